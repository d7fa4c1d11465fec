"""One status write per reconcile, as small as the difference, and none when there is none."""

from typing import Any

from canary_rollout.controller.queue import Key
from canary_rollout.kube.port import CANARY_ROLLOUTS, KubeApi, Object
from canary_rollout.model.status import CanaryRolloutStatus

FINALIZER = "canaryrollout.dev/release"
"""Held only while a revision is under way: deletion then waits until traffic is on stable and the canary is released."""


def merge_diff(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch that makes ``new`` out of ``old``; empty when they are equal.

    The smallest objects (a lowering, a clock, a command's answer) are written whole: a latch is not fenced, so its patch
    can land on a status that moved on, and half an object there would be one that nobody can read any more.
    """
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if not isinstance(before, dict) or not isinstance(value, dict):
            if before != value or key not in old:
                patch[key] = value
        elif any(isinstance(inner, dict) for inner in value.values()):
            if inner := merge_diff(before, value):
                patch[key] = inner
        elif before != value:
            patch[key] = {**dict.fromkeys(before.keys() - value.keys()), **value}
    return patch


async def write_status(api: KubeApi, rollout: Object, status: CanaryRolloutStatus, *, fenced: bool) -> Object:
    """Write the status where it differs.

    Args:
        api: the cluster.
        rollout: the object that was decided on; the difference is taken from it.
        status: what it should say.
        fenced: refuse (ConflictError) when the object moved since; a latch is not fenced, it always counts.

    Returns:
        the object as it is now.
    """
    difference = merge_diff(rollout.get("status") or {}, status.to_dict())
    if not difference:
        return rollout
    metadata = rollout["metadata"]
    body: Object = {"status": difference}
    if fenced:
        body["metadata"] = {"resourceVersion": metadata["resourceVersion"]}
    return await api.merge_patch(CANARY_ROLLOUTS, metadata["namespace"], metadata["name"], body, subresource="status")


async def set_finalizer(api: KubeApi, rollout: Object, *, wanted: bool) -> Object:
    """Have our finalizer on the object, or not; others' are left alone. Returns the object as it is now."""
    metadata = rollout["metadata"]
    present = list(metadata.get("finalizers") or ())
    if (FINALIZER in present) == wanted:
        return rollout
    finalizers = [*present, FINALIZER] if wanted else [item for item in present if item != FINALIZER]
    body: Object = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
    return await api.merge_patch(CANARY_ROLLOUTS, metadata["namespace"], metadata["name"], body)


def key_of(rollout: Object) -> Key:
    """Namespace and name."""
    return rollout["metadata"]["namespace"], rollout["metadata"]["name"]
