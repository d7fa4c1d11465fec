"""What this process remembers of one CanaryRollout beside the cluster: parsed forms, and how often somebody interfered.

Nothing in here is needed after a restart; all that is, is in status.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from pydantic import ValidationError

from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.verdict import Assessment
from canary_rollout.controller.running import Running
from canary_rollout.kube.port import Object
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.model.effective import resolve
from canary_rollout.model.shared import share_field_sets
from canary_rollout.model.spec import CanaryRolloutSpec, HaltRule, Stage
from canary_rollout.model.status import MAX_HALTS, CanaryRolloutStatus, Halt, RolloutState
from canary_rollout.model.stored import STORED

log: Final = structlog.get_logger(__name__)

_SAME_MOMENT: Final = 0.001
"""Seconds by which an instant may differ after it was written and read back."""
_STORED_BEFORE: Final = (
    " (an earlier version took this; until it is mended, the stored spec is watched and lowered by, and headers that may not be "
    "told are left out)"
)


@dataclass(slots=True)
class Pods:
    """Pods of one Deployment, as listed when the Deployment was at ``version``."""

    version: str = ""
    items: tuple[Object, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What Prometheus was asked for last, and what that was made from: the same again costs nothing.

    Attributes:
        spec: by identity.
        stage: by identity.
        pods: stable's and the canary's, by identity.
        facts: everything else.
        request: what was asked.
        created: by pod name, when it was created, POSIX seconds.
    """

    spec: CanaryRolloutSpec
    stage: Stage | None
    pods: tuple[tuple[Object, ...], ...]
    facts: tuple[object, ...]
    request: MetricRequest
    created: dict[str, float]

    def holds(
        self,
        spec: CanaryRolloutSpec,
        stage: Stage | None,
        pods: tuple[tuple[Object, ...], ...],
        facts: tuple[object, ...],
    ) -> bool:
        """Whether it was made from the very same."""
        same = self.spec is spec and self.stage is stage and len(pods) == len(self.pods)
        return same and all(one is other for one, other in zip(pods, self.pods, strict=True)) and self.facts == facts


@dataclass(slots=True)
class Contest:
    """How often in a row somebody lowered our weight, when we may write again and when it was told (POSIX seconds)."""

    times: int = 0
    seen_version: str = ""
    reassert_at: float = 0.0
    told_at: float = 0.0


@dataclass(slots=True)
class Memory:
    """One rollout's memory.

    Attributes:
        uid: of the object; one that was created again under the same name is another.
        written: the last valid spec as somebody wrote it, or one that an earlier version took for valid and that was stored when
            this process began; ``None`` when it has seen neither.
        spec: the same with whole halt rules, those of the sets it refers to among them; what everything goes by.
        set_problems: why a set could not be taken in.
        taken: the rules of each set as they were taken in last.
        sets_as_of: versions of the sets in ``spec``; ``None``: they are not looked up yet.
        waited_for_sets: how many looks were put off until they are listed.
        spec_error: why the spec of ``generation`` is not valid; empty when it is.
        acted_on: the spec of the last look that was carried out; another one may name another route or Deployment.
        status: the status at ``status_version`` (resourceVersion).
        revisions: by Deployment name, the generation and selector labels hashed, and the revision.
        pods: by Deployment name.
        term: Lease term of the last decision that was carried out; 0: none yet.
        watched_from: POSIX seconds of the first decision of that term.
        latched: a state with a halt that is not known to be persisted yet; it counts instead of the persisted one.
        evidence: the rules' memory; ``None`` until taken from status.
        assessment: verdicts not yet decided on (kept until a decision on them is carried out).
        comparing: the comparison as far as this process has fed it; ``None`` until taken from the evidence's checkpoint.
        asked: what Prometheus was asked for last.
        evaluating: whether the rules are to be evaluated at every interval.
        check_error: why Prometheus cannot be asked for this rollout; empty when it can.
        contest: who interferes with the route.
        unreadable: what is wrong with annotations that look like commands and are none.
        told: those of them that have been told.
        reached: whether the canary's Service has listed a ready endpoint since there are ready pods.
        unreached_since: POSIX seconds since when it lists none although there are.
        failing: the kind of error that looks at it are said to fail with; empty while none is said.
        place: where a spec (by identity) has its traffic, as status holds it.
    """

    uid: str = ""
    generation: int = -1
    written: CanaryRolloutSpec | None = None
    spec: CanaryRolloutSpec | None = None
    set_problems: tuple[str, ...] = ()
    taken: dict[str, tuple[HaltRule, ...]] = field(default_factory=dict)
    sets_as_of: tuple[str, ...] | None = None
    waited_for_sets: int = 0
    spec_error: str = ""
    acted_on: CanaryRolloutSpec | None = None
    status_version: str = ""
    status: CanaryRolloutStatus = field(default_factory=CanaryRolloutStatus)
    revisions: dict[str, tuple[object, str]] = field(default_factory=dict)
    pods: dict[str, Pods] = field(default_factory=dict)
    term: int = 0
    watched_from: float | None = None
    latched: RolloutState | None = None
    evidence: Evidence | None = None
    assessment: Assessment | None = None
    comparing: Running | None = None
    asked: Asked | None = None
    evaluating: bool = False
    check_error: str = ""
    contest: Contest = field(default_factory=Contest)
    unreadable: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()
    reached: bool = False
    unreached_since: float | None = None
    failing: str = ""
    place: tuple[CanaryRolloutSpec, Object] | None = None

    def read(self, rollout: Object) -> None:
        """Parse spec and status where they changed."""
        generation = int(rollout["metadata"].get("generation", 0))
        if generation != self.generation:
            self._read_spec(rollout)
            self.generation = generation
        version = rollout["metadata"].get("resourceVersion", "")
        if version != self.status_version:
            self.status = _status_of(rollout)
            share_field_sets(self.status)
            self.status_version = version
            if self.latched is not None and _persisted(self.latched, self.status.rollout):
                self.latched = None
        if self.evidence is None:
            self.evidence = self._persisted_evidence()

    def _read_spec(self, rollout: Object) -> None:
        from canary_rollout.model.explain import explain_validation_error  # noqa: PLC0415 - only when something changed

        raw = rollout.get("spec") or {}
        try:
            self.written, self.spec_error = CanaryRolloutSpec.model_validate(raw), ""
        except ValidationError as error:
            # The last valid one stays: what serves by it is still watched, and taken back when it does harm.
            self.spec_error = explain_validation_error(error)
            if self.written is not None:
                return
            try:
                self.written = CanaryRolloutSpec.model_validate(raw, context=STORED)
            except ValidationError:
                return
            self.spec_error += _STORED_BEFORE
        share_field_sets(self.written)
        self.sets_as_of = None
        # Until the sets are looked up, those of the last time stand in.
        effective = resolve(self.written, lambda _: "it is not read yet", self.taken)
        self.spec, self.set_problems = effective.spec, effective.problems
        workload = self.spec.workload
        for known in (self.revisions, self.pods):
            for name in known.keys() - {workload.stable.deployment, workload.canary.deployment}:
                del known[name]

    def _persisted_evidence(self) -> Evidence:
        try:
            return Evidence.from_dict(self.status.evidence)
        except EvidenceError:
            # Somebody else wrote it. Starting afresh can only delay a verdict, never make one up.
            return Evidence()

    @property
    def state(self) -> RolloutState:
        """The state to decide on: what is persisted, or a halt that is not known to be persisted yet."""
        return self.latched if self.latched is not None else self.status.rollout


def _persisted(latched: RolloutState, state: RolloutState) -> bool:
    """Whether the halt of ``latched`` is in the persisted state, or one that came after it."""
    halt, found = latched.halt_of(latched.revision), state.halt_of(latched.revision)
    return halt is None or (found is not None and found.at >= halt.at - _SAME_MOMENT)


def _status_of(rollout: Object) -> CanaryRolloutStatus:
    """The status, or what can be read of one that somebody has mangled.

    Verdicts are kept at all costs. Where the journey itself cannot be read it begins anew, at weight 0.
    """
    raw = rollout.get("status") or {}
    try:
        return CanaryRolloutStatus.model_validate(raw)
    except ValidationError as error:
        metadata = rollout["metadata"]
        log.warning(
            "status does not read, its engine's memory alone is taken",
            namespace=metadata.get("namespace", ""),
            rollout=metadata["name"],
            error=str(error),
        )
    memory: Any = raw.get("rollout")
    memory = memory if isinstance(memory, dict) else {}
    try:
        state = RolloutState.model_validate(memory)
    except ValidationError:
        state = RolloutState(halts=_halts_of(memory.get("halts")))
    return CanaryRolloutStatus(phase=state.phase, revision=state.revision, rollout=state)


def _halts_of(raw: Any) -> tuple[Halt, ...]:
    found = []
    for item in raw if isinstance(raw, list) else ():
        try:
            found.append(Halt.model_validate(item))
        except ValidationError:
            continue  # told by the warning above; nothing in it can be trusted
    return tuple(found[:MAX_HALTS])
