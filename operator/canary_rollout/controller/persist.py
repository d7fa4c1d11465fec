"""One status write per reconcile, as small as the difference, and none when there is none."""

from typing import Any

from canary_rollout.controller.queue import Key
from canary_rollout.kube.port import CANARY_ROLLOUTS, KubeApi, Object
from canary_rollout.model.status import CanaryRolloutStatus

FINALIZER = "canaryrollout.dev/release"
"""Held only while a revision is under way: deletion then waits until traffic is on stable and the canary is released."""


def merge_diff(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch that makes ``new`` out of ``old``; empty when they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            if inner := merge_diff(before, value):
                patch[key] = inner
        elif before != value or key not in old:
            patch[key] = value
    return patch


async def write_status(api: KubeApi, rollout: Object, status: CanaryRolloutStatus, *, fenced: bool) -> bool:
    """Write the status where it differs.

    Args:
        api: the cluster.
        rollout: the object the difference is taken from.
        status: what it should say.
        fenced: refuse (ConflictError) when the object moved since; a latch is not fenced, it always counts.

    Returns:
        whether something was written.
    """
    difference = merge_diff(rollout.get("status") or {}, status.to_dict())
    if not difference:
        return False
    metadata = rollout["metadata"]
    body: Object = {"status": difference}
    if fenced:
        body["metadata"] = {"resourceVersion": metadata["resourceVersion"]}
    await api.merge_patch(CANARY_ROLLOUTS, metadata["namespace"], metadata["name"], body, subresource="status")
    return True


async def set_finalizer(api: KubeApi, rollout: Object, *, wanted: bool) -> None:
    """Have our finalizer on the object, or not; others' are left alone."""
    metadata = rollout["metadata"]
    present = list(metadata.get("finalizers") or ())
    if (FINALIZER in present) == wanted:
        return
    finalizers = [*present, FINALIZER] if wanted else [item for item in present if item != FINALIZER]
    body: Object = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
    await api.merge_patch(CANARY_ROLLOUTS, metadata["namespace"], metadata["name"], body)


def key_of(rollout: Object) -> Key:
    """Namespace and name."""
    return rollout["metadata"]["namespace"], rollout["metadata"]["name"]
