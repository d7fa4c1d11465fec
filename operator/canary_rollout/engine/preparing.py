"""Preparing the canary: the data plane serves stable only, the pods are there, the template is held, the first weight."""

from canary_rollout.engine.decision import HoldPause, ReleasePause, ScaleCanary
from canary_rollout.engine.draft import Draft, stage_at
from canary_rollout.engine.drain import drained
from canary_rollout.engine.raises import enter_next, held_back
from canary_rollout.model.conditions import Reason
from canary_rollout.model.units import format_duration, format_weight


def prepare(draft: Draft) -> None:
    """Bring the canary to where its first weight can be raised, and raise it."""
    if draft.before.revision != draft.state.revision:
        return  # that it has begun is persisted before anything is done for it
    if waits_for := _unprepared(draft):
        draft.say(Reason.PREPARING, f"Preparing revision {draft.state.revision}: {waits_for}")
        _watch_the_deadline(draft, waits_for)
    elif drained(draft) and _has_pods(draft):
        _first_raise(draft)


def _unprepared(draft: Draft) -> str:
    """What the data plane must say before the canary may change; empty when it has."""
    route = draft.seen.route
    # A route written for this very revision: a raise that was sent for the one before it can no longer arrive.
    if draft.at_zero and route is not None and route.revision == draft.state.revision:
        return ""
    pending = f" ({route.pending})" if route is not None and route.pending else ""
    return f"waiting until the data plane serves stable only{pending}"


def _has_pods(draft: Draft) -> bool:
    """Whether all pods of the revision are ready and its template is held; brings that about."""
    canary, workload = draft.seen.canary, draft.spec.workload.canary
    too_few = workload.scaling is not None and canary.replicas < workload.scaling.replicas
    if not canary.observed:
        waits_for = f"Deployment {workload.deployment} is being updated"
    elif too_few or not canary.settled:
        waits_for = _make_pods(draft)
    elif canary.leaving:
        # Proxies keep connections to pods that end: the version before would answer at this revision's weight.
        pods = (
            "1 pod of the template before is"
            if canary.leaving == 1
            else f"{canary.leaving} pods of the template before are"
        )
        waits_for = f"its pods are ready; {pods} still leaving"
    elif not canary.paused:
        draft.act(HoldPause())
        waits_for = "its pods are ready; its template is held before any traffic goes to it"
    else:
        return True
    draft.say(Reason.PREPARING, f"Preparing revision {draft.state.revision}: {waits_for}")
    _watch_the_deadline(draft, waits_for)
    return False


def _make_pods(draft: Draft) -> str:
    canary, workload = draft.seen.canary, draft.spec.workload.canary
    scaling = workload.scaling
    if canary.paused and canary.paused_by_us and not canary.settled:
        draft.act(ReleasePause())
    if scaling is not None and canary.replicas < scaling.replicas:
        draft.act(ScaleCanary(scaling.replicas))
    if canary.paused and not canary.paused_by_us and not canary.settled:
        return f"Deployment {workload.deployment} is paused by somebody else; resume it"
    if draft.seen.scales:
        return canary.crash or f"Deployment {workload.deployment} takes its template over"
    if canary.replicas == 0 and scaling is None:
        return f"Deployment {workload.deployment} has 0 replicas; scale it, or set workload.canary.scaling"
    leaving = ", pods of the template before are still leaving" if canary.available > canary.replicas else ""
    ready = min(canary.available, canary.replicas)
    return canary.crash or f"{ready} of {canary.replicas} pods of Deployment {workload.deployment} are ready{leaving}"


def _watch_the_deadline(draft: Draft, waits_for: str) -> None:
    longest = draft.spec.workload.progress_deadline
    deadline = (draft.state.began_at or draft.now) + longest
    if draft.now < deadline:
        draft.wake(deadline)
        return
    draft.say(
        Reason.PROGRESS_DEADLINE,
        f"Revision {draft.state.revision} is not ready after {format_duration(longest)}: {waits_for}",
        stalled=True,
    )


def _first_raise(draft: Draft) -> None:
    pin = draft.state.pin
    if pin is None:
        enter_next(draft)
    elif not held_back(draft):
        draft.want(pin, stage_at(draft.stages, pin).name)
        draft.pause(Reason.PAUSED_BY_COMMAND, f"started at {format_weight(pin)} by command")
        draft.say(Reason.WAITING_FOR_ROUTE, f"The weight rises to {format_weight(pin)}, where it is paused")
