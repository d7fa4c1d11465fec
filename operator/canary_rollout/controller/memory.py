"""What this process remembers of one CanaryRollout beside the cluster: parsed forms, and how often somebody interfered.

Nothing in here is needed after a restart; all that is, is in status.
"""

from dataclasses import dataclass, field

from pydantic import ValidationError

from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.verdict import Assessment
from canary_rollout.kube.port import Object
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import CanaryRolloutStatus, RolloutState


@dataclass(slots=True)
class Pods:
    """Pods of one Deployment, as listed when the Deployment was at ``version``."""

    version: str = ""
    items: tuple[Object, ...] = ()


@dataclass(slots=True)
class Contest:
    """How often in a row somebody lowered our weight, and when we may write again (POSIX seconds)."""

    times: int = 0
    seen_version: str = ""
    reassert_at: float = 0.0


@dataclass(slots=True)
class Memory:
    """One rollout's memory.

    Attributes:
        spec: the spec of ``generation``; ``None`` when it is not valid, then ``spec_error`` says why.
        status: the status at ``status_version`` (resourceVersion).
        revisions: by Deployment name, the generation and selector labels hashed, and the revision.
        pods: by Deployment name.
        term: Lease term of the last decision that was carried out; 0: none yet.
        latched: a state with a halt that could not be persisted yet; it counts instead of the persisted one.
        evidence: the rules' memory; ``None`` until taken from status.
        assessment: verdicts not yet decided on (kept until a decision on them is carried out).
        evaluating: whether the rules are to be evaluated at every interval.
        contest: who interferes with the route.
    """

    generation: int = -1
    spec: CanaryRolloutSpec | None = None
    spec_error: str = ""
    status_version: str = ""
    status: CanaryRolloutStatus = field(default_factory=CanaryRolloutStatus)
    revisions: dict[str, tuple[object, str]] = field(default_factory=dict)
    pods: dict[str, Pods] = field(default_factory=dict)
    term: int = 0
    latched: RolloutState | None = None
    evidence: Evidence | None = None
    assessment: Assessment | None = None
    evaluating: bool = False
    contest: Contest = field(default_factory=Contest)

    def read(self, rollout: Object) -> None:
        """Parse spec and status where they changed."""
        generation = int(rollout["metadata"].get("generation", 0))
        if generation != self.generation:
            self._read_spec(rollout)
            self.generation = generation
        version = rollout["metadata"].get("resourceVersion", "")
        if version != self.status_version:
            self.status = CanaryRolloutStatus.model_validate(rollout.get("status") or {})
            self.status_version = version
        if self.evidence is None:
            self.evidence = self._persisted_evidence()

    def _read_spec(self, rollout: Object) -> None:
        from canary_rollout.model.explain import explain_validation_error  # noqa: PLC0415 - only when something changed

        try:
            self.spec, self.spec_error = CanaryRolloutSpec.model_validate(rollout.get("spec") or {}), ""
        except ValidationError as error:
            self.spec, self.spec_error = None, explain_validation_error(error)

    def _persisted_evidence(self) -> Evidence:
        try:
            return Evidence.from_dict(self.status.evidence)
        except EvidenceError:
            # Somebody else wrote it. Starting afresh can only delay a verdict, never make one up.
            return Evidence()

    @property
    def state(self) -> RolloutState:
        """The state to decide on: what is persisted, or a halt that could not be persisted yet."""
        return self.latched if self.latched is not None else self.status.rollout
