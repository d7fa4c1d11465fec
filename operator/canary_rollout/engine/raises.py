"""What keeps a weight from rising: a pause, what must be mended first, gates, a person who is asked; and the next stage."""

from canary_rollout.analysis.verdict import Assessment, Lack, Outcome, Verdict
from canary_rollout.engine.decision import HoldPause
from canary_rollout.engine.draft import Draft
from canary_rollout.engine.routing import RETRY_RAISE
from canary_rollout.model.commands import EXPIRES_AFTER
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action, Stage
from canary_rollout.model.units import format_weight


def held_back(draft: Draft) -> bool:
    """Whether a raise must not happen now; says why."""
    canary = draft.seen.canary
    if draft.state.pause is not None or draft.spec.paused:
        return is_paused(draft)
    if draft.seen.no_raise:
        draft.wake(draft.now + RETRY_RAISE)
        draft.say(Reason.CLOCK_SKEW, f"Not raised: {draft.seen.no_raise}")
    elif draft.seen.problems:
        draft.say(Reason.INVALID_SPEC, draft.seen.problems[0], stalled=True)
    elif not canary.settled or canary.crash:
        draft.say(Reason.CANARY_NOT_READY, f"Not raised: {canary.crash or 'not all pods of the canary are ready'}")
    elif not canary.paused:
        draft.act(HoldPause())
        draft.say(Reason.PREPARING, "Not raised: the canary's template is not held yet")
    else:
        return False
    return True


def is_paused(draft: Draft) -> bool:
    """Whether a person, a rule or the spec holds the weight; says which."""
    weight = format_weight(draft.state.wanted)
    phase = Phase.PAUSED if draft.state.stage else Phase.PREPARING
    if draft.state.pause is not None:
        draft.change(phase=phase)
        draft.say(
            draft.state.pause.reason,
            f"Paused at {weight}: {draft.state.pause.message}. `resume` goes on, `rollback` goes back",
        )
        return True
    if draft.spec.paused:
        draft.change(phase=phase)
        draft.say(Reason.PAUSED_BY_SPEC, f"Paused at {weight} by spec.paused; set it to false to go on")
        return True
    return False


def enter_next(draft: Draft) -> None:
    """Raise the intent to the next stage, unless something keeps it from that."""
    following = draft.next_stage
    if following is None or held_back(draft) or _stands_before(draft, following):
        return
    if following.approval is not None and not _approved(draft, following):
        waiting = draft.before.phase is Phase.AWAITING_APPROVAL
        draft.change(phase=Phase.AWAITING_APPROVAL)
        what = f"stage {following.name} ({format_weight(following.weight)}) needs a person: `kubectl canary approve`"
        if not waiting:
            draft.note(Reason.AWAITING_APPROVAL, what)
        draft.say(Reason.AWAITING_APPROVAL, f"Holding {format_weight(draft.state.wanted)}: {what}")
        return
    draft.want(following.weight, following.name)
    draft.say(
        Reason.WAITING_FOR_ROUTE,
        f"Stage {following.name} begins: the weight rises to {format_weight(following.weight)}",
    )


def _stands_before(draft: Draft, following: Stage) -> bool:
    """Whether an entry gate keeps the rollout out; at weight 0 it waits there for as long as it takes, and says so."""
    if not following.entry or following.name == draft.state.stage:
        return False
    seen = draft.assessment
    closed = closed_entry(seen, following, draft.state.stage) if seen is not None else None
    if seen is not None and closed is None:
        return False
    draft.wake(draft.now + draft.spec.metrics.interval)
    draft.say(
        Reason.ENTRY_GATE,
        f"Holding {format_weight(draft.state.wanted)} before stage {following.name}: its entry gates do not hold yet (see verdicts)",
    )
    return True


def _approved(draft: Draft, stage: Stage) -> bool:
    approval = draft.state.approval
    return approval is not None and approval.stage == stage.name and draft.now - approval.at < EXPIRES_AFTER


def open_question(seen: Assessment) -> tuple[Reason, str] | None:
    """The first thing that speaks against the next stage, or ``None``. Promotion is a stricter question than rollback."""
    rules = (
        verdict for verdict in seen.rules if verdict.action is not Action.ALERT
    )  # an alert is told, it decides nothing
    for verdict in rules:
        if verdict.breached_since is not None or verdict.outcome is Outcome.FAIL:
            return Reason.STAGE_HELD, verdict.message
        # How many requests are enough is for the comparison to say, which counts those of the whole stage.
        if not _answered(verdict) and not (verdict.few and seen.promotion is not None):
            return Reason.NOT_ENOUGH_REQUESTS, verdict.message
    if seen.promotion is not None and not _answered(seen.promotion):
        return Reason.PROMOTION_GATE, seen.promotion.message
    return _closed(seen.exits, Reason.EXIT_GATE)


def closed_entry(seen: Assessment, following: Stage | None, present: str) -> tuple[Reason, str] | None:
    """The first entry gate of the next stage that does not let the rollout in. A stage that it was in is not entered again."""
    if following is None or not following.entry or following.name == present:
        return None
    if seen.entering != following.name:
        return Reason.ENTRY_GATE, f"the entry gates of stage {following.name} are not evaluated yet"
    return _closed(seen.entries, Reason.ENTRY_GATE)


def _closed(gates: tuple[Verdict, ...], reason: Reason) -> tuple[Reason, str] | None:
    """The first gate that does not let the rollout through."""
    for gate in gates:
        if gate.outcome is Outcome.FAIL or gate.breached_since is not None:
            return reason, gate.message
        if not _answered(gate):
            return Reason.NOT_ENOUGH_REQUESTS, gate.message
    return None


def _answered(verdict: Verdict) -> bool:
    """Whether a rule or gate has nothing more to say: it passes, or it does not apply (invariant 3)."""
    return verdict.outcome is Outcome.PASS or verdict.lack is Lack.NOT_APPLICABLE
