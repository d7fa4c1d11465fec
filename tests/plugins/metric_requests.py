"""Short ways to specs and requests for the tests of metrics and analysis."""

from typing import Any

from small_specs import make_spec

from canary_rollout.metrics.request import MetricRequest, VersionArm
from canary_rollout.model.spec import CanaryRolloutSpec

__all__ = ["make_request", "make_spec"]


def make_request(
    spec: CanaryRolloutSpec,
    namespace: str = "shop",
    name: str = "checkout",
    stable: VersionArm | frozenset[str] = frozenset({"checkout-6b7f9c"}),
    canary: VersionArm | frozenset[str] = frozenset({"checkout-canary-7d8e"}),
) -> MetricRequest:
    """The request of a rollout in the first stage."""
    from dataclasses import replace

    sets = [arm if isinstance(arm, frozenset) else frozenset() for arm in (stable, canary)]
    request = MetricRequest.of(namespace, name, spec, spec.stages[0], *sets)
    changes: dict[str, Any] = {}
    if isinstance(stable, VersionArm):
        changes["stable"] = stable
    if isinstance(canary, VersionArm):
        changes["canary"] = canary
    return replace(request, **changes)
