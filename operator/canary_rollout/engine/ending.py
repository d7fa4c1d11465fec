"""How a revision's journey ends: promotion and the way back, rollback, rest. Same order both ways: 0, confirmed, drain."""

from canary_rollout.engine.decision import CopyTemplate, ReleasePause, RestoreStable, ScaleCanary
from canary_rollout.engine.draft import HALTED_BY_ROUTE, Draft
from canary_rollout.engine.drain import drained
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Promotion
from canary_rollout.model.status import Lowering, StageClock
from canary_rollout.model.units import format_duration


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


# -- promotion -------------------------------------------------------------------------------------------------------


def begin_promotion(draft: Draft) -> None:
    """The canary has held everything for its time: stable is next."""
    revision = draft.state.revision
    if draft.spec.workload.promotion is Promotion.COPY_TEMPLATE:
        draft.change(phase=Phase.PROMOTING, clock=StageClock(since=draft.now))
        draft.note(Reason.PROMOTING, f"revision {revision} held 100 %; stable is brought up to date")
        draft.say(Reason.PROMOTING, f"Promoting revision {revision}: its template is copied to stable")
    else:
        draft.change(phase=Phase.AWAITING_PROMOTION, clock=StageClock())
        draft.note(
            Reason.AWAITING_PROMOTION, f"revision {revision} held 100 %; waiting for stable to be brought up to date"
        )
        _say_awaiting(draft)


def _promote(draft: Draft) -> None:
    stable, revision = draft.seen.stable, draft.state.revision
    if draft.serves_as_wanted and draft.state.confirmed != draft.state.wanted:
        draft.change(confirmed=draft.state.wanted)
    if stable.revision == revision:
        if stable.settled:
            _begin_return(draft)
        else:
            _wait_for_stable(draft)
    elif draft.spec.workload.promotion is Promotion.COPY_TEMPLATE:
        if draft.state.phase is not Phase.PROMOTING:
            begin_promotion(draft)  # the spec was changed meanwhile; the phase is persisted before stable is touched
            return
        if stable.revision in {draft.state.stable_revision, ""}:
            draft.act(CopyTemplate(revision))
        else:  # somebody changed stable under way: that is what a rollback has to give back, so it is persisted first
            draft.change(stable_revision=stable.revision)
        draft.say(Reason.PROMOTING, f"Promoting revision {revision}: its template is copied to stable")
    else:
        draft.change(phase=Phase.AWAITING_PROMOTION, clock=StageClock())
        _say_awaiting(draft)


def _wait_for_stable(draft: Draft) -> None:
    """Stable has the template, not yet on all its pods."""
    deployment, revision = draft.spec.workload.stable.deployment, draft.state.revision
    if draft.state.phase is not Phase.PROMOTING or draft.state.clock.since is None:
        draft.change(phase=Phase.PROMOTING, clock=StageClock(since=draft.now))
    deadline = (draft.state.clock.since or draft.now) + draft.spec.workload.progress_deadline
    if draft.now >= deadline:
        waited = format_duration(draft.spec.workload.progress_deadline)
        draft.say(
            Reason.PROGRESS_DEADLINE,
            f"Promoting revision {revision}: Deployment {deployment} does not have it on all pods after {waited}; traffic "
            "stays on the canary; look at its pods, or `rollback`",
            stalled=True,
        )
        return
    draft.wake(deadline)
    draft.say(
        Reason.PROMOTING,
        f"Promoting revision {revision}: stable's pods are being updated; traffic stays on the canary until all are ready",
    )


def _say_awaiting(draft: Draft) -> None:
    other = draft.seen.canary.revision
    queued = f". Revision {other} is queued" if other not in {draft.state.revision, ""} else ""
    draft.say(
        Reason.AWAITING_PROMOTION,
        f"Revision {draft.state.revision} serves 100 %; bring Deployment {draft.spec.workload.stable.deployment} to the "
        f"same template to finish, or `rollback`{queued}",
    )


def _begin_return(draft: Draft) -> None:
    """Stable has the revision on all its pods: traffic goes back to it, once that intent is persisted."""
    revision = draft.state.revision
    draft.change(
        phase=Phase.RETURNING,
        wanted=0,
        clock=StageClock(),
        drain_until=None,
        lowering=Lowering(reason=Reason.PROMOTED, to=0, at=draft.now),
    )
    draft.note(Reason.PROMOTED, f"stable is at revision {revision} on all its pods; traffic returns to it")
    draft.say(Reason.RETURNING, f"Stable is at revision {revision} on all its pods: traffic goes back to it")


# -- the way back ----------------------------------------------------------------------------------------------------


def _return(draft: Draft) -> None:
    if not drained(draft):
        return
    _let_go(draft)
    lowering = draft.state.lowering
    promoted = lowering is not None and lowering.reason is Reason.PROMOTED
    _put_down(draft, Phase.SUCCEEDED if promoted else Phase.IDLE)
    if promoted:
        message = f"Revision {draft.state.revision} is stable"
        draft.end("Succeeded", "Succeeded", message)
        draft.note(Reason.SUCCEEDED, message)
    _rest(draft)


def _roll_back(draft: Draft) -> None:
    state = draft.state
    halt = state.halt_of(state.revision)
    why = halt.message if halt is not None else "stopped"
    restoring = _restore(draft)
    if not drained(draft):
        draft.say(Reason.ROLLED_BACK, f"Rolling back revision {state.revision}: {why}")
        return
    if restoring:
        draft.say(
            Reason.ROLLED_BACK,
            f"Rolling back revision {state.revision}: Deployment {draft.spec.workload.stable.deployment} goes back to "
            f"revision {state.stable_revision}",
        )
        return
    _let_go(draft)
    by_route = halt is not None and halt.reason in HALTED_BY_ROUTE
    draft.end("Halted" if by_route else "RolledBack", halt.reason if halt is not None else "", why)
    draft.note(
        Reason.ROLLED_BACK, f"stable serves everything again, revision {state.revision} stays at 0: {why}", warning=True
    )
    _put_down(draft, Phase.HALTED if by_route else Phase.ROLLED_BACK)
    _say_stopped(draft)


def _restore(draft: Draft) -> bool:
    """Whether stable has the condemned template from a promotion that was under way, and must get its own back."""
    stable, state = draft.seen.stable, draft.state
    copied = stable.exists and stable.revision == state.revision and state.stable_revision not in {"", state.revision}
    if copied and draft.spec.workload.promotion is Promotion.COPY_TEMPLATE:
        draft.act(RestoreStable(state.stable_revision))
        return True
    return False


def _let_go(draft: Draft) -> None:
    """The canary serves nothing and has drained: give its Deployment back and let it sleep where told to."""
    canary, scaling = draft.seen.canary, draft.spec.workload.canary.scaling
    if canary.paused and canary.paused_by_us:
        draft.act(ReleasePause())
    if scaling is not None and canary.exists and canary.replicas != scaling.idle_replicas:
        draft.act(ScaleCanary(scaling.idle_replicas))


# -- rest ------------------------------------------------------------------------------------------------------------


def _put_down(draft: Draft, phase: Phase) -> None:
    """The journey is over; nothing of it is carried into the next one."""
    draft.change(
        phase=phase, stage="", serving_since=None, drain_until=None, lowering=None, no_data_since=None, pin=None
    )


def _rest(draft: Draft) -> None:
    if draft.at_zero:
        if draft.state.confirmed != 0:
            draft.change(confirmed=0)
        _let_go(draft)
    if draft.state.phase in {Phase.ROLLED_BACK, Phase.HALTED}:
        _say_stopped(draft)
        return
    stable, revision = draft.seen.stable.revision, draft.state.revision
    succeeded = draft.state.phase is Phase.SUCCEEDED
    reason = Reason.SUCCEEDED if succeeded else Reason.IDLE
    if revision and stable not in {revision, ""}:
        then = "was promoted" if succeeded else "waits"
        draft.say(
            reason,
            f"Stable serves everything. Somebody changed it to revision {stable}; the canary's revision {revision} {then}, "
            "and a change of the canary's template starts a rollout",
        )
    elif succeeded:
        draft.say(reason, f"Revision {revision} is stable; nothing to do until the canary's template changes")
    else:
        draft.say(reason, "Stable serves everything; a change of the canary's template starts a rollout")


def _say_stopped(draft: Draft) -> None:
    halt = draft.state.halt_of(draft.state.revision)
    why = halt.message if halt is not None else "stopped"
    word = "Halted" if draft.state.phase is Phase.HALTED else "Rolled back"
    reason = Reason.HALTED if draft.state.phase is Phase.HALTED else Reason.ROLLED_BACK
    draft.say(reason, f"{word} revision {draft.state.revision}: {why}. It stays at 0 until `retry` or a new revision")
