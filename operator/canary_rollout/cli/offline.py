"""What is known without a cluster: a manifest's spec, and what its router can express."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, cast

from pydantic import ValidationError

from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.cli.manifest import Manifest
from canary_rollout.kube.port import KubeApi, Object, Resource
from canary_rollout.model.explain import located_problems, path_of, validation_problems
from canary_rollout.model.metrics import LEAST_OF_TENANTS
from canary_rollout.model.route import Capabilities
from canary_rollout.model.spec import CanaryRolloutSpec, Stage
from canary_rollout.model.units import FULL, format_duration, format_weight
from canary_rollout.traffic.port import Router, RouterContext
from canary_rollout.traffic.registry import router_for


class _NoCluster:
    """Reads as empty, remembers what was looked for, and says so when it is asked for more."""

    def __init__(self) -> None:
        self.missing: set[str] = set()

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        self.missing |= {f"{resource.kind} {name}", f"{namespace}/{name}"}
        return None

    def select(self, resource: Resource, namespace: str | None, labels: Mapping[str, str]) -> list[Object]:  # noqa: ARG002 - the port
        return []

    def now(self) -> float:
        return time.time()

    def __getattr__(self, name: str) -> NoReturn:
        raise CliError(f"this is looked at without a cluster, and the router asked for {name}")


def uncounted_tenants(spec: CanaryRolloutSpec) -> str:
    """Why nothing is known of the past of the tenants of a sticky stage, so that its error test pauses; empty if it is."""
    if spec.traffic.sticky is None:
        return ""
    if spec.traffic.nginx is None:
        return f"{spec.traffic.router} does not count by tenant (our nginx does)"
    if spec.metrics.source != "agent":
        return f"source {spec.metrics.source} does not count by tenant (metrics.source: agent does)"
    if spec.metrics.history < LEAST_OF_TENANTS:
        least, given = format_duration(LEAST_OF_TENANTS), format_duration(spec.metrics.history)
        return f"metrics.history {given} leaves the tenants less than {least} of past on stable"
    return ""


def router_of(spec: CanaryRolloutSpec, namespace: str, name: str) -> Router:
    """The router of a spec, for what it says without looking at the cluster.

    Raises:
        RouterError: there is no such router.
    """
    return _router(spec, namespace, name, _NoCluster())


def router_problems(spec: CanaryRolloutSpec, namespace: str, name: str) -> list[str]:
    """Why the router cannot serve this spec, one sentence each; that objects are missing is no problem here.

    Raises:
        RouterError: there is no such router.
    """
    nothing = _NoCluster()
    found = _router(spec, namespace, name, nothing).problems()
    return [problem for problem in found if not any(missing in problem for missing in nothing.missing)]


def _router(spec: CanaryRolloutSpec, namespace: str, name: str, nothing: Any) -> Router:
    return router_for(RouterContext(namespace, name, "", spec, cast("KubeApi", nothing), nothing, nothing))


def inexpressible(spec: CanaryRolloutSpec, can: Capabilities) -> Iterator[tuple[int, Stage, str]]:
    """Stages whose weight the router cannot express: place in ``spec.stages``, the stage, the nearest weights it can."""
    for place, stage in enumerate(spec.stages):
        if stage.weight % can.step:
            yield place, stage, " or ".join(format_weight(weight) for weight in nearest(stage.weight, can.step))


def nearest(weight: int, step: int) -> list[int]:
    """The weights next to ``weight`` that are whole multiples of ``step``, in basis points, above 0 and up to 100 %."""
    lower = weight // step * step
    return [near for near in (lower, min(FULL, lower + step)) if near > 0]


def spec_of(manifest: Manifest) -> CanaryRolloutSpec:
    """The spec of a manifest.

    Raises:
        CliError: it is not valid; names the first problem and how to see all.
    """
    try:
        return CanaryRolloutSpec.model_validate(manifest.raw.get("spec"))
    except ValidationError as error:
        place, sentence = located_problems(error)[0]
        line = manifest.line(("spec", *place))
        raise CliError(
            f"{manifest.source}:{line}: {path_of(place)}: {sentence} (`kubectl canary validate` shows all problems)",
            Exit.USAGE,
        ) from error


def spec_of_object(rollout: Object) -> CanaryRolloutSpec:
    """The spec of a CanaryRollout in the cluster.

    Raises:
        CliError: this program cannot read it; it may be older than the operator.
    """
    try:
        return CanaryRolloutSpec.model_validate(rollout.get("spec"))
    except ValidationError as error:
        raise CliError(
            f"the spec of {rollout['metadata']['name']} cannot be read here: {validation_problems(error)[0]}; "
            "if the operator reads it, this program is older than the operator"
        ) from error
