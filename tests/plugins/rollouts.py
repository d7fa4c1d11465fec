"""A CanaryRollout for tests, and how to change it; many wrong ones are in ``wrong_rollouts``."""

import copy
from typing import Any

GOOD: dict[str, Any] = {
    "apiVersion": "canaryrollout.dev/v1alpha1",
    "kind": "CanaryRollout",
    "metadata": {"name": "checkout"},
    "spec": {
        "workload": {
            "stable": {"service": "checkout", "deployment": "checkout"},
            "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
        },
        "traffic": {"nginx": {"service": "edge"}},
        "metrics": {"prometheus": "http://prometheus.monitoring:9090"},
    },
}
STAGES = [
    {"name": "first", "weight": "0.5%", "hold": "1h"},
    {"name": "second", "weight": "25%", "hold": "1d12h"},
    {"name": "all", "weight": "100%", "hold": "0s"},
]
RULE = {"name": "errors", "preset": "error-rate", "above": "1%"}
GONE: Any = object()
"""In a change: take the field away."""


def rollout(**changes: Any) -> dict[str, Any]:
    """:data:`GOOD` with the parts of its spec in ``changes`` replaced: ``traffic__sticky={...}``."""
    return changed({name.replace("__", "."): value for name, value in changes.items()})


def changed(changes: dict[str, Any], base: dict[str, Any] = GOOD) -> dict[str, Any]:
    """``base`` with values replaced by path below ``spec``, such as ``stages.0.weight``."""
    result = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node: Any = result["spec"]
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
        if value is GONE:
            del node[last]
        elif isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = copy.deepcopy(value)
    return result
