"""Deleting a CanaryRollout: traffic on stable, the canary's Deployment given back, everything else as it was."""

from canary_rollout.controller.execute import Executor
from canary_rollout.controller.memory import Memory
from canary_rollout.controller.persist import FINALIZER, set_finalizer
from canary_rollout.engine.decision import Lower, ReleasePause
from canary_rollout.engine.observation import Observation
from canary_rollout.kube.port import KubeApi, Object
from canary_rollout.model.conditions import Phase
from canary_rollout.model.route import Route
from canary_rollout.model.units import UnitError, parse_instant

PATIENCE = 60.0
"""Seconds a deletion waits for the data plane to confirm; the lowering is written in any case."""
_LOOK_AGAIN = 1.0


async def farewell(
    api: KubeApi, rollout: Object, memory: Memory, seen: Observation, executor: Executor, *, now: float
) -> float | None:
    """Take one step of the deletion. Returns seconds until the next one, ``None`` when it is done."""
    if FINALIZER not in (rollout["metadata"].get("finalizers") or ()):
        return None
    state = memory.state
    promoted_soon = state.phase in {Phase.PROMOTING, Phase.AWAITING_PROMOTION}
    if not promoted_soon and not _on_stable(seen):
        await executor.carry_out(Lower(Route(0, state.revision, seen.stable.revision)))
        if now - _deleted_at(rollout, now) < PATIENCE:
            return _LOOK_AGAIN
    queued = promoted_soon and seen.canary.revision != state.revision
    if seen.canary.paused and seen.canary.paused_by_us and not queued:
        await executor.carry_out(ReleasePause())
    await executor.router.release()
    await set_finalizer(api, rollout, wanted=False)
    return None


def _on_stable(seen: Observation) -> bool:
    route = seen.route
    return route is None or (route.weight == 0 and route.cohort is None and route.confirmed)


def _deleted_at(rollout: Object, now: float) -> float:
    try:
        return parse_instant(rollout["metadata"].get("deletionTimestamp"))
    except UnitError:
        return now
