"""How a revision's journey ends: promotion and the way back, rollback, rest. Same order both ways: 0, confirmed, drain."""

from canary_rollout.engine.decision import CopyTemplate, ReleasePause, RestoreStable, ScaleCanary
from canary_rollout.engine.draft import HALTED_BY_ROUTE, Draft
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Promotion
from canary_rollout.model.status import Lowering, StageClock
from canary_rollout.model.units import format_instant


def finish(draft: Draft) -> None:
    """Move an ending journey on, or keep a resting one at rest."""
    phase = draft.state.phase
    if phase in {Phase.PROMOTING, Phase.AWAITING_PROMOTION}:
        _promote(draft)
    elif phase is Phase.RETURNING:
        _return(draft)
    elif phase is Phase.ROLLING_BACK:
        _roll_back(draft)
    else:
        _rest(draft)


def _promote(draft: Draft) -> None:
    stable, revision = draft.seen.stable, draft.state.revision
    if draft.serves_as_wanted and draft.state.confirmed != draft.state.wanted:
        draft.change(confirmed=draft.state.wanted)
    if stable.revision == revision:
        if stable.settled:
            _begin_return(draft)
        else:
            draft.say(
                Reason.PROMOTING,
                f"Promoting revision {revision}: stable's pods are being updated; traffic stays on the canary until all are ready",
            )
    elif draft.state.phase is Phase.PROMOTING:
        draft.act(CopyTemplate(revision))
        draft.say(Reason.PROMOTING, f"Promoting revision {revision}: copying its template to stable")
    else:
        draft.say(
            Reason.AWAITING_PROMOTION,
            f"Revision {revision} serves 100 %; bring Deployment {draft.spec.workload.stable.deployment} to the same template to finish, "
            "or `rollback`" + _queued(draft),
        )


def _queued(draft: Draft) -> str:
    other = draft.seen.canary.revision
    return f". Revision {other} is queued" if other != draft.state.revision else ""


def _begin_return(draft: Draft) -> None:
    """Stable has the revision on all its pods: traffic goes back to it, once that intent is persisted."""
    draft.change(
        phase=Phase.RETURNING,
        wanted=0,
        clock=StageClock(),
        lowering=Lowering(reason=Reason.PROMOTED, to=0, at=draft.now),
    )
    draft.note(Reason.PROMOTED, f"stable is at revision {draft.state.revision} on all its pods; traffic returns to it")


def _drained(draft: Draft) -> bool:
    """Weight 0, confirmed, and requests that began on the canary have had their time."""
    if not draft.at_zero:
        draft.say(Reason.RETURNING, "Traffic goes back to stable: waiting until the data plane has it")
        return False
    if draft.state.confirmed != 0:
        draft.change(confirmed=0)
    until = draft.state.drain_until
    if until is None:
        served = draft.before.serving_since is not None
        until = draft.now + (draft.spec.workload.drain if served else 0.0)
        draft.change(drain_until=until)
    if draft.now < until:
        draft.wake(until)
        draft.next_change = until
        draft.say(
            Reason.DRAINING,
            f"Stable serves everything; requests under way on the canary may end until {format_instant(until)}",
        )
        return False
    return True


def _let_go(draft: Draft) -> None:
    """The canary serves nothing and has drained: give its Deployment back and let it sleep where told to."""
    canary, scaling = draft.seen.canary, draft.spec.workload.canary.scaling
    if canary.paused and canary.paused_by_us:
        draft.act(ReleasePause())
    if scaling is not None and canary.exists and canary.replicas != scaling.idle_replicas:
        draft.act(ScaleCanary(scaling.idle_replicas))


def _return(draft: Draft) -> None:
    if not _drained(draft):
        return
    _let_go(draft)
    lowering = draft.state.lowering
    if lowering is not None and lowering.reason is Reason.PROMOTED:
        message = f"Revision {draft.state.revision} is stable"
        draft.end("Succeeded", "Succeeded", message)
        draft.note(Reason.SUCCEEDED, message)
        draft.change(phase=Phase.SUCCEEDED, serving_since=None, drain_until=None, stage="")
        draft.say(Reason.SUCCEEDED, message + "; nothing to do until the canary's template changes")
    else:
        draft.change(phase=Phase.IDLE, serving_since=None, drain_until=None, stage="")
        _rest(draft)


def _roll_back(draft: Draft) -> None:
    halt = draft.state.halt_of(draft.state.revision)
    why = halt.message if halt is not None else "stopped"
    stable, state = draft.seen.stable, draft.state
    copied = (
        draft.spec.workload.promotion is Promotion.COPY_TEMPLATE and stable.exists and stable.revision == state.revision
    )
    if copied and state.stable_revision and state.stable_revision != state.revision:
        draft.act(RestoreStable(state.stable_revision))
    drained = _drained(draft)
    if not drained:
        draft.say(Reason.ROLLED_BACK, f"Rolling back revision {state.revision}: {why}")
        return
    _let_go(draft)
    by_route = halt is not None and halt.reason in HALTED_BY_ROUTE
    draft.end("Halted" if by_route else "RolledBack", halt.reason if halt is not None else "", why)
    draft.note(
        Reason.ROLLED_BACK, f"stable serves everything again, revision {state.revision} stays at 0: {why}", warning=True
    )
    draft.change(phase=Phase.HALTED if by_route else Phase.ROLLED_BACK, serving_since=None, drain_until=None, stage="")
    _say_stopped(draft)


def _rest(draft: Draft) -> None:
    if draft.at_zero:
        if draft.state.confirmed != 0:
            draft.change(confirmed=0)
        _let_go(draft)
    if draft.state.phase in {Phase.ROLLED_BACK, Phase.HALTED}:
        _say_stopped(draft)
    elif draft.state.phase is Phase.SUCCEEDED:
        draft.say(
            Reason.SUCCEEDED,
            f"Revision {draft.state.revision} is stable; nothing to do until the canary's template changes",
        )
    else:
        draft.say(Reason.IDLE, "Stable serves everything; a change of the canary's template starts a rollout")


def _say_stopped(draft: Draft) -> None:
    halt = draft.state.halt_of(draft.state.revision)
    why = halt.message if halt is not None else "stopped"
    word = "Halted" if draft.state.phase is Phase.HALTED else "Rolled back"
    reason = Reason.HALTED if draft.state.phase is Phase.HALTED else Reason.ROLLED_BACK
    draft.say(reason, f"{word} revision {draft.state.revision}: {why}. It stays at 0 until `retry` or a new revision")
