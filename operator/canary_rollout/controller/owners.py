"""Which CanaryRollout a Deployment belongs to, and which changes are urgent."""

from typing import Any

from canary_rollout.controller.queue import Key
from canary_rollout.kube.cache import Change
from canary_rollout.kube.port import CANARY_ROLLOUTS, DEPLOYMENTS, Object
from canary_rollout.model.commands import PREFIX

Place = tuple[str, str]
"""Namespace and name of a Deployment."""


class Owners:
    """Fed by the cache; answers in constant time however many rollouts there are."""

    def __init__(self) -> None:
        self._age: dict[Key, tuple[str, str]] = {}
        self._places: dict[Key, frozenset[Place]] = {}
        self._keys: dict[Place, set[Key]] = {}

    def take(self, change: Change) -> None:
        """Take in a change of a CanaryRollout."""
        key = (change.namespace, change.name)
        for place in self._places.pop(key, frozenset()):
            self._keys[place].discard(key)
            if not self._keys[place]:
                del self._keys[place]
        self._age.pop(key, None)
        if change.after is None:
            return
        metadata = change.after["metadata"]
        self._age[key] = (metadata.get("creationTimestamp", ""), metadata.get("uid", ""))
        self._places[key] = _places(key, change.after)
        for place in self._places[key]:
            self._keys.setdefault(place, set()).add(key)

    def owner(self, namespace: str, deployment: str) -> Key | None:
        """The oldest CanaryRollout that names the Deployment."""
        return min(self._keys.get((namespace, deployment), ()), key=lambda key: self._age[key], default=None)

    def keys(self, namespace: str, deployment: str) -> frozenset[Key]:
        """All CanaryRollouts that name the Deployment."""
        return frozenset(self._keys.get((namespace, deployment), ()))


def _places(key: Key, rollout: Object) -> frozenset[Place]:
    """Read with care: this may be a spec from before the CRD's rules, and whoever feeds the cache must not fail on it."""
    names = (_at(rollout, "spec", "workload", role, "deployment") for role in ("stable", "canary"))
    return frozenset((key[0], name) for name in names if name and isinstance(name, str))


def _at(obj: Any, *path: str) -> Any:
    for step in path:
        obj = obj.get(step) if isinstance(obj, dict) else None
    return obj


def urgent(change: Change) -> bool:
    """Whether a change may call for less traffic: commands and edits, fewer ready pods, a new template, a deletion."""
    before, after = change.before, change.after
    if before is None or after is None:
        return change.resource == DEPLOYMENTS and after is None
    if change.resource == CANARY_ROLLOUTS:
        return _asked(before) != _asked(after)
    if change.resource == DEPLOYMENTS:
        return _available(after) < _available(before) or _generation(after) != _generation(before)
    return False


def _asked(rollout: Object) -> tuple[object, ...]:
    metadata = rollout["metadata"]
    annotations = metadata.get("annotations") or {}
    commands = sorted((key, value) for key, value in annotations.items() if key.startswith(PREFIX))
    return (metadata.get("generation"), metadata.get("deletionTimestamp"), tuple(commands))


def _available(deployment: Object) -> int:
    return int(deployment.get("status", {}).get("availableReplicas", 0))


def _generation(deployment: Object) -> int:
    return int(deployment["metadata"].get("generation", 0))
