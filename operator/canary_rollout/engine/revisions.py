"""Which revision the rollout is about: a new one begins, one that is replaced is let go of, a condemned one stays down."""

from canary_rollout.engine.draft import ENDING, HALTED_BY_ROUTE, RESTING, Draft
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.status import Lowering, StageClock
from canary_rollout.model.units import format_weight


def notice_revision(draft: Draft) -> None:
    """Begin a rollout when the canary's template is new; let go of the old one when it changed under way."""
    canary, stable, state = draft.seen.canary, draft.seen.stable, draft.state
    if not canary.exists or not stable.exists or state.phase in ENDING:
        return
    if state.phase in RESTING:
        _from_rest(draft)
    elif canary.revision != state.revision:
        _superseded(draft)


def _from_rest(draft: Draft) -> None:
    canary, stable, state = draft.seen.canary, draft.seen.stable, draft.state
    if not state.revision and draft.may_serve and canary.revision == stable.revision:
        _begin(draft)  # the status was lost while the canary served: it is emptied like any other
    elif canary.revision == stable.revision:
        if state.phase is not Phase.SUCCEEDED or state.revision != canary.revision:
            draft.change(phase=Phase.IDLE, revision=canary.revision, stable_revision=stable.revision)
    elif halt := state.halt_of(canary.revision):
        stopped = Phase.HALTED if halt.reason in HALTED_BY_ROUTE else Phase.ROLLED_BACK
        draft.change(phase=stopped, revision=canary.revision)
    elif canary.revision != state.revision:
        _begin(draft)  # else only stable has changed, and nobody asked for the canary to be rolled out over that


def _superseded(draft: Draft) -> None:
    old, new = draft.state.revision, draft.seen.canary.revision
    draft.end("Superseded", "NewRevision", f"revision {new} took its place at {format_weight(draft.state.wanted)}")
    _begin(draft)
    draft.note(Reason.NEW_REVISION, f"revision {new} replaces {old}; traffic goes back to stable first")


def _begin(draft: Draft) -> None:
    """A revision takes the place of whatever was there; what may still be under way on the canary is drained first."""
    state, new = draft.state, draft.seen.canary.revision
    nothing_to_try = new == draft.seen.stable.revision or state.halt_of(new) is not None
    busy = draft.may_serve or not draft.emptied
    draft.change(
        phase=Phase.RETURNING if nothing_to_try else Phase.PREPARING,
        revision=new,
        stable_revision=draft.seen.stable.revision,
        stage="",
        wanted=0,
        clock=StageClock(),
        began_at=draft.now,
        serving_since=None,
        pause=None,
        approval=None,
        no_data_since=None,
        drain_until=None,
        fresh_after=draft.now,
        pin=None,
        override=state.override if not state.revision else (),  # a retry keeps what its revision was started with
        lowering=Lowering(reason=Reason.NEW_REVISION, to=0, at=draft.now) if busy else None,
    )
    draft.restart_evidence = True
    draft.say(Reason.NEW_REVISION, f"Revision {new} appeared")
    if draft.ended is None and not nothing_to_try:
        draft.note(Reason.NEW_REVISION, f"revision {new} appeared; its pods are prepared")
