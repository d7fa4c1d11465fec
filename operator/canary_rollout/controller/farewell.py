"""Deleting a CanaryRollout: traffic on stable, the canary's Deployment given back, everything else as it was."""

from dataclasses import dataclass

from pydantic import ValidationError

from canary_rollout.controller.execute import Executor, RouteRejectedError
from canary_rollout.controller.memory import Memory
from canary_rollout.controller.persist import FINALIZER, set_finalizer
from canary_rollout.controller.place import NOBODY_ASKS
from canary_rollout.engine.decision import Action, Lower, Note, ReleasePause
from canary_rollout.engine.observation import Observation
from canary_rollout.kube.port import ForbiddenError, InvalidError, KubeApi, Object
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.route import Latch, Route
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import RolloutState
from canary_rollout.model.stored import STORED
from canary_rollout.model.units import FULL, UnitError, format_weight, parse_instant
from canary_rollout.workloads.deployments import WorkloadError

PATIENCE = 60.0
"""Seconds a deletion waits for the data plane to confirm, or for something that refuses; the lowering is written in any case."""
_LOOK_AGAIN = 1.0
_REFUSALS = (RouteRejectedError, WorkloadError, InvalidError, ForbiddenError)


@dataclass(frozen=True, slots=True)
class Goodbye:
    """One step of a deletion.

    Attributes:
        again: seconds until the next step; ``None``: it is done.
        notes: what a person has to know.
    """

    again: float | None
    notes: tuple[Note, ...] = ()


async def farewell(
    api: KubeApi, rollout: Object, memory: Memory, seen: Observation, executor: Executor, *, now: float
) -> Goodbye:
    """Take one step of the deletion.

    Raises:
        ApiError: the API server does not answer; nothing is given up because of that.
    """
    if not held(rollout):
        return Goodbye(None)
    stays = memory.state.phase in {Phase.PROMOTING, Phase.AWAITING_PROMOTION}
    open_ends: list[str] = []
    if not stays and not _on_stable(seen):
        if refusal := await _try(executor, Lower(stable_only(memory.state, seen.stable.revision))):
            open_ends.append(f"the route could not be set to stable: {refusal}")
        else:
            open_ends.append("the data plane has not confirmed that it serves stable only")
        if not out_of_patience(rollout, now):
            return Goodbye(_LOOK_AGAIN)
    queued = stays and seen.canary.revision != memory.state.revision
    if (
        seen.canary.paused
        and seen.canary.paused_by_us
        and not queued
        and (refusal := await _try(executor, ReleasePause()))
    ):
        if not out_of_patience(rollout, now):
            return Goodbye(_LOOK_AGAIN)
        open_ends.append(refusal)
    await executor.router.release()
    await set_finalizer(api, rollout, wanted=False)
    return Goodbye(None, (*_stays(memory, seen, stays=stays, queued=queued), *_left(open_ends)))


async def let_go(api: KubeApi, rollout: Object, why: str, *, now: float) -> Goodbye:
    """Take one step of the deletion of something whose route cannot even be named: wait, then give up the finalizer."""
    if not held(rollout):
        return Goodbye(None)
    if not out_of_patience(rollout, now):
        return Goodbye(_LOOK_AGAIN)
    await set_finalizer(api, rollout, wanted=False)
    return Goodbye(None, _left([why]))


def spec_of(rollout: Object) -> CanaryRolloutSpec | None:
    """What a deletion needs of a spec that is not valid as a whole: where the route and the Deployments are.

    How requests are told apart, and what is told about them, is kept where it can be read: at weight 0 nothing rests on it.
    """
    spec = rollout.get("spec") or {}
    workload, traffic = spec.get("workload"), spec.get("traffic")
    if not isinstance(traffic, dict):
        return None
    untold = {key: value for key, value in traffic.items() if key not in {"requestHeaders", "responseHeaders"}}
    bare = {key: value for key, value in untold.items() if key not in {"sticky", "pin"}}
    for kept in (traffic, untold, bare):
        try:
            return CanaryRolloutSpec.model_validate(
                {"workload": workload, "traffic": kept, "metrics": NOBODY_ASKS}, context=STORED
            )
        except ValidationError:
            continue
    return None


def held(rollout: Object) -> bool:
    """Whether the deletion waits for us."""
    return FINALIZER in (rollout["metadata"].get("finalizers") or ())


def out_of_patience(rollout: Object, now: float) -> bool:
    """Whether the deletion was asked for so long ago that it goes on without what is still open."""
    try:
        return now - parse_instant(rollout["metadata"].get("deletionTimestamp")) >= PATIENCE
    except UnitError:
        return False


async def _try(executor: Executor, action: Action) -> str:
    """Do it; what was answered if it was refused. An API server that does not answer is no refusal."""
    try:
        await executor.carry_out(action)
    except _REFUSALS as error:
        return str(error)
    return ""


def stable_only(state: RolloutState, stable_revision: str) -> Route:
    """Stable serves everything; a verdict stays on the route, so that the revision stays condemned."""
    halt = state.halt_of(state.revision)
    latch = Latch(halt.revision, halt.rule, halt.message, halt.at) if halt is not None else None
    return Route(0, state.revision, stable_revision or state.stable_revision, latch=latch)


def _on_stable(seen: Observation) -> bool:
    route = seen.route
    return route is None or (route.weight == 0 and route.cohort is None and route.confirmed)


def _stays(memory: Memory, seen: Observation, *, stays: bool, queued: bool) -> tuple[Note, ...]:
    if not stays or seen.route is None or seen.route.weight == 0:
        return ()
    share = "all traffic" if seen.route.weight == FULL else format_weight(seen.route.weight)
    words = f"deleted before revision {memory.state.revision} was promoted: {share} stays on the canary"
    if queued:
        words += f"; its Deployment stays paused, because revision {seen.canary.revision} waits in it"
    return (Note(Reason.AWAITING_PROMOTION, words, warning=True),)


def _left(open_ends: list[str]) -> tuple[Note, ...]:
    return tuple(Note(Reason.ROUTE_PENDING, f"deleted although {words}", warning=True) for words in open_ends)
