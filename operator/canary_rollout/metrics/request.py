"""What one rollout wants to know, as plain values that compare quickly."""

import re
from dataclasses import dataclass
from typing import Final

from canary_rollout.analysis.readings import MeasureKey, keys_needed
from canary_rollout.metrics.errors import UnsafeValueError
from canary_rollout.model.spec import Arms, CanaryRolloutSpec, Stage

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_REVISION: Final = re.compile(r"[A-Za-z0-9._-]{0,64}")


def checked_name(value: str, field: str) -> str:
    """Return ``value`` if it is a Kubernetes object name and so safe in a query.

    Raises:
        UnsafeValueError: it is not.
    """
    if not _NAME.fullmatch(value):
        raise UnsafeValueError(f"{field} {value!r:.100} is not a Kubernetes name and does not go into a query")
    return value


@dataclass(frozen=True, slots=True)
class VersionArm:
    """How one version's series are found.

    Attributes:
        deployment: its Deployment.
        service: its Service.
        replica_sets: names of the ReplicaSets whose pods are this version; only read with ``arms.by: pod``. More than one
            (a Deployment that is being rolled) costs a query of its own per measure.
        pods: names of the pods themselves, instead of ``replica_sets``; for pods whose cut-off names do not tell the
            versions apart (Deployments with names of 48 characters and more).
        revision: its revision as the agent's series name it; only read with ``source: agent``. Empty: all revisions
            together, and then ``Evidence.restarted`` must keep an older one's requests out of a newer one's verdicts.
    """

    deployment: str
    service: str
    replica_sets: frozenset[str] = frozenset()
    pods: frozenset[str] = frozenset()
    revision: str = ""

    def __post_init__(self) -> None:
        checked_name(self.deployment, "deployment")
        checked_name(self.service, "service")
        for name in (*self.replica_sets, *self.pods):
            checked_name(name, "pod or ReplicaSet")
        if not _REVISION.fullmatch(self.revision):
            raise UnsafeValueError(f"revision {self.revision!r:.100} is not one of ours and does not go into a query")


@dataclass(frozen=True, slots=True)
class MetricRequest:
    """What one rollout wants to know at each of its evaluations.

    Attributes:
        key: the caller's name for the rollout, unique.
        namespace: namespace of the rollout and its pods.
        rollout: name of the CanaryRollout.
        server: address of Prometheus, without a trailing slash.
        source: ``app`` or ``agent``.
        interval: seconds between two evaluations.
        timeout: longest wait for one query, seconds.
        status_label: label that holds the HTTP status.
        arms: what tells the versions apart, as in the spec.
        measures: what to measure.
        stable: the stable version.
        canary: the canary version.
    """

    key: str
    namespace: str
    rollout: str
    server: str
    source: str
    interval: float
    timeout: float
    status_label: str
    arms: Arms
    measures: frozenset[MeasureKey]
    stable: VersionArm
    canary: VersionArm

    def __post_init__(self) -> None:
        checked_name(self.namespace, "namespace")
        checked_name(self.rollout, "rollout")

    @classmethod
    def of(  # noqa: PLR0917 - what a rollout is made of
        cls,
        namespace: str,
        name: str,
        spec: CanaryRolloutSpec,
        stage: Stage | None,
        stable_replica_sets: frozenset[str],
        canary_replica_sets: frozenset[str],
        *,
        revisions: tuple[str, str] = ("", ""),
    ) -> "MetricRequest":
        """Return the request of a rollout in a stage, with ``namespace/name`` as its key.

        ``revisions`` are stable's and the canary's, as the agent's series name them; empty: all of them together.

        Raises:
            UnsafeValueError: a name that is no Kubernetes name.
        """
        metrics, workload = spec.metrics, spec.workload
        return cls(
            key=f"{namespace}/{name}",
            namespace=namespace,
            rollout=name,
            server=metrics.prometheus.rstrip("/"),
            source=metrics.source,
            interval=metrics.interval,
            timeout=metrics.timeout,
            status_label=metrics.status_label,
            arms=metrics.arms,
            measures=keys_needed(spec, stage),
            stable=VersionArm(
                workload.stable.deployment, workload.stable.service, stable_replica_sets, revision=revisions[0]
            ),
            canary=VersionArm(
                workload.canary.deployment, workload.canary.service, canary_replica_sets, revision=revisions[1]
            ),
        )
