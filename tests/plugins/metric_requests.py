"""Short ways to specs and requests for the tests of metrics and analysis."""

from typing import Any

from canary_rollout.metrics.request import MetricRequest, VersionArm
from canary_rollout.model.spec import CanaryRolloutSpec


def make_spec(
    server: str = "http://127.0.0.1:9", *, rules: Any = None, gates: Any = (), cohort: Any = None, **metrics: Any
) -> CanaryRolloutSpec:
    """A spec with one stage at 5 % (with ``gates`` and ``cohort``) and one at 100 %."""
    first: dict[str, Any] = {"name": "some", "weight": "5%", "hold": "10m", "exit": list(gates)}
    if cohort:
        first["cohort"] = cohort
    raw: dict[str, Any] = {
        "workload": {
            "stable": {"service": "checkout", "deployment": "checkout"},
            "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
        },
        "traffic": {"nginx": {"service": "proxy"}},
        "metrics": {"prometheus": server, **metrics},
        "stages": [first, {"name": "all", "weight": "100%", "hold": "1h", "exit": list(gates)}],
    }
    if rules is not None:
        raw |= {"haltRules": rules, "defaultHaltRules": False}
    return CanaryRolloutSpec.model_validate(raw)


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
