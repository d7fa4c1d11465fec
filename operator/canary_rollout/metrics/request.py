"""What one rollout wants to know, as plain values that compare quickly."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from canary_rollout.analysis.readings import MeasureKey, keys_needed
from canary_rollout.metrics.errors import UnsafeValueError
from canary_rollout.metrics.presets import Presets
from canary_rollout.metrics.target import Target
from canary_rollout.model.spec import Arms, CanaryRolloutSpec, Stage

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9._-]{0,64}")


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
        app_version: the version that its pod template's labels name (``app.kubernetes.io/version``); empty: none.
        any_revision: take the pods of all of the Deployment's ReplicaSets, by their names; for looking back over days.
    """

    deployment: str
    service: str
    replica_sets: frozenset[str] = frozenset()
    pods: frozenset[str] = frozenset()
    revision: str = ""
    app_version: str = ""
    any_revision: bool = False

    def __post_init__(self) -> None:
        checked_name(self.deployment, "deployment")
        checked_name(self.service, "service")
        for name in (*self.replica_sets, *self.pods):
            checked_name(name, "pod or ReplicaSet")
        for field, value in (("revision", self.revision), ("version label", self.app_version)):
            if not _LABEL_VALUE.fullmatch(value):
                raise UnsafeValueError(f"{field} {value!r:.100} is no label value and does not go into a query")


@dataclass(frozen=True, slots=True)
class MetricRequest:
    """What one rollout wants to know at each of its evaluations.

    Attributes:
        key: the caller's name for the rollout, unique.
        namespace: namespace of the rollout and its pods.
        rollout: name of the CanaryRollout.
        server: the Prometheus that answers unless a measure names another.
        source: whose series the presets read.
        interval: seconds between two evaluations.
        timeout: longest wait for one query, seconds.
        status_label: label that holds the HTTP status.
        arms: what tells the versions apart, as in the spec.
        measures: what to measure.
        stable: the stable version.
        canary: the canary version.
        servers: other Prometheus servers, by name.
        port: port of the Services, where series name it.
        route: name of the route in front of the Services (an Ingress), where series name it.
        own: preset sets of the user's own.
        compared: whether raw counters are asked for, for the comparison with stable.
        tenants: whether they are asked for by bucket of tenants as well.
        began: when the rollout began, POSIX seconds; for baselines before it.
        phase: the rollout's place within its interval, seconds: those of one place share their queries.
    """

    key: str
    namespace: str
    rollout: str
    server: Target
    source: str
    interval: float
    timeout: float
    status_label: str
    arms: Arms
    measures: frozenset[MeasureKey]
    stable: VersionArm
    canary: VersionArm
    servers: tuple[tuple[str, Target], ...] = ()
    port: str = "80"
    route: str = ""
    own: tuple[Presets, ...] = ()
    compared: bool = False
    tenants: bool = False
    began: float | None = None
    phase: float = 0.0

    def __post_init__(self) -> None:
        checked_name(self.namespace, "namespace")
        checked_name(self.rollout, "rollout")
        if self.route:
            checked_name(self.route, "route")

    def target(self, name: str) -> Target | None:
        """Return the server of a name, ``""`` for the main one; ``None``: there is none."""
        return self.server if not name else dict(self.servers).get(name)

    @classmethod
    def of(  # noqa: PLR0913, PLR0917 - what a rollout is made of
        cls,
        namespace: str,
        name: str,
        spec: CanaryRolloutSpec,
        stage: Stage | None,
        stable_replica_sets: frozenset[str],
        canary_replica_sets: frozenset[str],
        *,
        revisions: tuple[str, str] = ("", ""),
        app_versions: tuple[str, str] = ("", ""),
        targets: Mapping[str, Target] | None = None,
        own: tuple[Presets, ...] = (),
        compared: bool = False,
        began: float | None = None,
        phase: float = 0.0,
    ) -> "MetricRequest":
        """Return the request of a rollout in a stage, with ``namespace/name`` as its key.

        Args:
            namespace: the rollout's.
            name: the rollout's.
            spec: its spec.
            stage: where it is; ``None``: the halt rules alone.
            stable_replica_sets: names of the ReplicaSets of stable's pods.
            canary_replica_sets: names of the ReplicaSets of the canary's pods.
            revisions: stable's and the canary's, as the agent's series name them; empty: all of them together.
            app_versions: stable's and the canary's, as their pod templates' labels name them.
            targets: the servers by name, the main one as ``""``; default: those of the spec, without credentials.
            own: preset sets of the user's own.
            compared: whether raw counters are wanted.
            began: when the rollout began, POSIX seconds.
            phase: its place within its interval, seconds.

        Raises:
            UnsafeValueError: a name that is no Kubernetes name.
        """
        metrics, workload = spec.metrics, spec.workload
        if targets is None:
            targets = {"": Target(metrics.prometheus.rstrip("/"))}
        ingress = spec.traffic.ingress_nginx
        names = (
            (workload.stable.deployment, workload.stable.service),
            (workload.canary.deployment, workload.canary.service),
        )
        sets = (stable_replica_sets, canary_replica_sets)
        stable, canary = (
            VersionArm(*names[place], sets[place], revision=revisions[place], app_version=app_versions[place])
            for place in (0, 1)
        )
        return cls(
            key=f"{namespace}/{name}",
            namespace=namespace,
            rollout=name,
            server=targets[""],
            source=metrics.source,
            interval=metrics.interval,
            timeout=metrics.timeout,
            status_label=metrics.status_label,
            arms=metrics.arms,
            measures=keys_needed(spec, stage),
            stable=stable,
            canary=canary,
            servers=tuple((server, target) for server, target in sorted(targets.items()) if server),
            port=metrics.port,
            route=ingress.ingress if ingress is not None else "",
            own=own,
            compared=compared,
            tenants=compared and metrics.source == "agent" and spec.traffic.sticky is not None,
            began=began,
            phase=phase,
        )
