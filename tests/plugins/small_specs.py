"""Short ways to specs for the tests of analysis and metrics."""

from typing import Any

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
