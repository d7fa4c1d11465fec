"""Objects as the cache keeps them: only what somebody here reads, and every word once.

A parsed object costs many times its JSON, most of it in keys and words that are the same in thousands of others.
What it costs a rollout is in the resident memory that `make bench-scale` prints.
"""

from sys import intern
from typing import Any, Final

from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    CLUSTER_HALT_RULE_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    FIELD_MANAGER,
    HALT_RULE_SETS,
    LEASES,
    PODS,
    SERVICES,
    Object,
    Resource,
)

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_SHARED: Final = 64
"""Longest string that is shared with others."""
_READ: Final[dict[Resource, dict[str, frozenset[str]]]] = {
    DEPLOYMENTS: {
        "spec": frozenset({"paused", "replicas", "revisionHistoryLimit", "selector", "template"}),
        "status": frozenset(
            {"availableReplicas", "observedGeneration", "replicas", "terminatingReplicas", "updatedReplicas"}
        ),
    },
    SERVICES: {
        "spec": frozenset(
            {
                *("clusterIP", "ports", "selector", "type", "sessionAffinity", "trafficDistribution"),
                *("internalTrafficPolicy", "externalTrafficPolicy"),
            }
        ),
        "status": frozenset(),
    },
    ENDPOINT_SLICES: {"ports": frozenset()},
    LEASES: {},
    HALT_RULE_SETS: {},
    CLUSTER_HALT_RULE_SETS: {},
    PODS: {
        "spec": frozenset(),
        "status": frozenset({"conditions", "containerStatuses", "initContainerStatuses", "phase", "reason"}),
    },
}
"""Of these kinds, only these fields of these parts are read; parts that are not named are kept whole."""

_CONTAINER: Final = frozenset({"name", "restartCount", "state", "lastState"})
_ENTRIES: Final = {
    "conditions": frozenset({"type", "status", "lastTransitionTime"}),
    "containerStatuses": _CONTAINER,
    "initContainerStatuses": _CONTAINER,
}
"""Of a pod's lists, only these fields of each entry."""
_OF_POD: Final = frozenset({"name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "ownerReferences"})
"""Of a pod's metadata; whose it is was told by its labels before."""

THINNED: Final = frozenset({CANARY_ROLLOUTS, *_READ})
"""Kinds no router writes: nobody asks who wrote them last."""


def compact(resource: Resource, obj: Object, *, whole: bool = False) -> Object:
    """A copy for the cache; ``obj`` itself is not changed.

    Args:
        resource: its kind.
        obj: as the API server sent it.
        whole: keep ``managedFields`` of everybody (who wrote a route last is read from them).
    """
    read = _READ.get(resource, {})
    kept: Object = {}
    for key, value in obj.items():
        if key == "metadata":
            kept["metadata"] = _of_pod(value) if resource == PODS else _metadata(value, whole=whole)
        elif key in read:
            fields = read[key]
            if fields and value:
                kept[key] = {
                    intern(name): _shared(_thin(resource, name, part)) for name, part in value.items() if name in fields
                }
        else:
            kept[intern(key)] = _shared(value)
    return kept


def _of_pod(metadata: Object) -> Object:
    return {intern(key): _shared(value) for key, value in metadata.items() if key in _OF_POD}


def _thin(resource: Resource, name: str, part: Any) -> Any:
    if resource != PODS or name not in _ENTRIES or not isinstance(part, list):
        return part
    return [{field: value for field, value in entry.items() if field in _ENTRIES[name]} for entry in part]


def _metadata(metadata: Object, *, whole: bool) -> Object:
    kept: Object = {
        intern(key): _shared(value) for key, value in metadata.items() if key not in {"managedFields", "annotations"}
    }
    entries = metadata.get("managedFields") or ()
    ours = [_shared(entry) for entry in entries if whole or entry.get("manager", "").startswith(FIELD_MANAGER)]
    if ours:
        kept["managedFields"] = ours  # whether spec.paused is ours is read from here
    notes = {
        intern(key): _shared(value)
        for key, value in (metadata.get("annotations") or {}).items()
        if key != _LAST_APPLIED
    }
    if notes:
        kept["annotations"] = notes
    return kept


def _shared(value: Any) -> Any:
    if type(value) is str:
        return intern(value) if len(value) <= _SHARED else value
    if type(value) is dict:
        return {intern(key): _shared(part) for key, part in value.items()}
    if type(value) is list:
        return [_shared(part) for part in value]
    return value
