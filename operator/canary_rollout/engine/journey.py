"""From a new revision to 100 %: holding stages, and what decides at the end of each."""

from typing import Final

from canary_rollout.analysis.verdict import Assessment, Lack
from canary_rollout.engine.draft import Draft
from canary_rollout.engine.ending import begin_promotion
from canary_rollout.engine.preparing import prepare
from canary_rollout.engine.raises import closed_entry, enter_next, is_paused, open_question
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action
from canary_rollout.model.status import StageClock
from canary_rollout.model.units import FULL, format_duration, format_moment, format_weight


def advance(draft: Draft) -> None:
    """Move the journey on where it may move."""
    if draft.state.phase is Phase.PREPARING:
        prepare(draft)
    else:
        _hold(draft)


# -- holding ---------------------------------------------------------------------------------------------------------


def _hold(draft: Draft) -> None:
    _adopt_stage(draft)
    _note_data(draft)
    served = draft.serves_as_wanted
    if served:
        _confirm(draft)
    paused = is_paused(draft)
    if not paused and draft.state.phase is Phase.PAUSED and draft.state.no_data_since is None:
        draft.change(phase=Phase.PROGRESSING)
    if not served:
        draft.stop_clock()
        _say_route(draft)
    elif paused:
        draft.stop_clock()
    elif draft.state.wanted == 0 and not draft.mirror:
        enter_next(draft)  # nothing is served, so there is nothing to watch for a whole hold
    elif draft.state.no_data_since is not None:
        draft.stop_clock()
        _say_no_data(draft)
    else:
        _count(draft)


def _adopt_stage(draft: Draft) -> None:
    """The stage was edited away: go on as in the one below, and hold that for its whole time from now (invariant 6)."""
    gone, stage = draft.state.stage, draft.stage
    if not gone or stage.name == gone:
        return
    draft.change(stage=stage.name, clock=draft.state.clock if stage.weight == draft.state.wanted else StageClock())
    draft.note(
        Reason.STAGE_HELD,
        f"stage {gone} is gone from the spec; {format_weight(draft.state.wanted)} is held as in stage {stage.name}",
    )


def _confirm(draft: Draft) -> None:
    if draft.state.confirmed == draft.state.wanted:
        return
    draft.change(confirmed=draft.state.wanted)
    draft.note(
        Reason.STAGE_STARTED,
        f"{format_weight(draft.state.wanted)} confirmed by the data plane; stage {draft.stage.name} counts from now",
    )


def _count(draft: Draft) -> None:
    """The stage's time runs; at its end the verdicts of that moment decide."""
    ran_before = draft.state.clock.since is not None
    draft.run_clock()
    ends = round(draft.now + draft.stage.hold - draft.state.clock.elapsed(draft.now), 3)
    seen, since = draft.assessment, draft.state.clock.since or draft.now
    if ends > draft.now:
        draft.change(phase=Phase.PROGRESSING)
        _say_holding(draft, ends)
    elif seen is not None and seen.at >= since:
        _at_the_end_of_the_hold(draft, seen)
    else:
        draft.wake(draft.now + draft.spec.metrics.interval)
        _await_verdicts(draft, ran_before=ran_before)


def _await_verdicts(draft: Draft, *, ran_before: bool) -> None:
    """Nothing was evaluated just now: what was said last still stands, unless something has changed since."""
    changed = draft.command is not None and draft.command.accepted
    if ran_before and not changed:
        draft.keep_words()
        return
    draft.change(phase=Phase.PROGRESSING)
    draft.say(
        Reason.STAGE_HELD,
        f"Holding {format_weight(draft.state.wanted)} in stage {draft.stage.name}: its time is over, the next evaluation "
        "decides",
    )


def _note_data(draft: Draft) -> None:
    """Missing data is never a pass and never a fail: it stops the stage's time, and nothing else."""
    seen = draft.assessment
    if seen is None or (draft.state.wanted == 0 and not draft.mirror):
        return
    asked = [verdict for verdict in seen.stops if verdict.action is not Action.ALERT]
    if draft.state.clock.elapsed(draft.now) >= draft.stage.hold:
        asked += (*seen.exits, *seen.entries)
    missing = [verdict for verdict in asked if verdict.lack is Lack.NO_DATA]
    if missing and draft.state.no_data_since is None:
        draft.change(no_data_since=draft.now)
        draft.note(
            Reason.NO_DATA, f"{missing[0].message}; {format_weight(draft.state.wanted)} is held meanwhile", warning=True
        )
    elif not missing and draft.state.no_data_since is not None:
        draft.change(no_data_since=None)
        draft.note(Reason.RESUMED, "data is back; the stage goes on")


def _say_route(draft: Draft) -> None:
    route, weight = draft.seen.route, format_weight(draft.state.wanted)
    if route is not None and route.contested_by and route.weight != draft.state.wanted:
        draft.say(
            Reason.ROUTE_CONTESTED,
            f"{route.contested_by} wrote {format_weight(route.weight)} over the wanted {weight}; the stage's time stands still",
        )
    else:
        pending = f": {route.pending}" if route is not None and route.pending else ""
        draft.say(
            Reason.WAITING_FOR_ROUTE, f"Stage {draft.stage.name}: waiting until the data plane has {weight}{pending}"
        )


def _say_no_data(draft: Draft) -> None:
    since = draft.state.no_data_since or draft.now
    pause_at = since + draft.spec.on_no_data.hold_for
    weight = format_weight(draft.state.wanted)
    if draft.now >= pause_at:
        if draft.before.phase is not Phase.PAUSED:
            longest = format_duration(draft.spec.on_no_data.hold_for)
            draft.note(Reason.PAUSED_NO_DATA, f"no data for {longest}; paused at {weight} until there is", warning=True)
        draft.change(phase=Phase.PAUSED)
        draft.say(
            Reason.PAUSED_NO_DATA,
            f"Paused at {weight}: no data since {format_moment(since)}; goes on by itself when data returns (whose: see verdicts)",
        )
    else:
        draft.wake(pause_at)
        draft.change(phase=Phase.PROGRESSING)
        draft.say(
            Reason.NO_DATA,
            f"Holding {weight}: no data since {format_moment(since)}; neither advanced nor rolled back, goes on by itself when data returns (whose: see verdicts)",
        )


def _say_holding(draft: Draft, ends: float) -> None:
    draft.wake(ends)
    following = draft.next_stage
    then = (
        f"then stage {following.name} ({format_weight(following.weight)})"
        if following is not None
        else "then promotion"
    )
    if following is not None and following.approval is not None:
        then += " once approved"
    draft.next_change = ends
    what = (
        f"Copying {format_weight(draft.mirror)} of the requests"
        if draft.mirror
        else (f"Holding {format_weight(draft.state.wanted)}")
    )
    draft.say(
        Reason.STAGE_HELD,
        f"{what} in stage {draft.stage.name} until {format_moment(ends)}, {then}",
    )


# -- the end of a hold -----------------------------------------------------------------------------------------------


def _at_the_end_of_the_hold(draft: Draft, seen: Assessment) -> None:
    if question := open_question(seen) or closed_entry(seen, draft.next_stage, draft.state.stage):
        _extend(draft, *question)
    elif draft.state.wanted >= FULL:
        begin_promotion(draft)
    else:
        enter_next(draft)


def _extend(draft: Draft, reason: Reason, why: str) -> None:
    limit = draft.now + draft.stage.longest_hold - draft.state.clock.elapsed(draft.now)
    if draft.seen.watched_from is not None:  # an operator that was away has seen nothing of what it waits for
        limit = max(limit, draft.seen.watched_from + draft.stage.longest_hold - draft.stage.hold)
    limit = round(limit, 3)
    weight, stage = format_weight(draft.state.wanted), draft.stage.name
    if limit > draft.now:
        draft.wake(limit)
        draft.change(phase=Phase.PROGRESSING)
        draft.say(
            reason,
            f"Holding {weight} in stage {stage} beyond its time, until {format_moment(limit)} at most: {_STEADY[reason]}",
        )
        return
    draft.pause(_ASKED[reason], f"stage {stage} was held as long as it may be: {why}")
    draft.stop_clock()
    is_paused(draft)


_STEADY: Final = {
    Reason.NOT_ENOUGH_REQUESTS: "too few requests for a verdict (see verdicts)",
    Reason.EXIT_GATE: "an exit gate does not hold yet (see verdicts)",
    Reason.ENTRY_GATE: "an entry gate of the next stage does not hold yet (see verdicts)",
    Reason.PROMOTION_GATE: "the comparison with stable does not let it go on yet (see verdicts)",
    Reason.STAGE_HELD: "a halt rule is breached, though not for long enough to fail (see verdicts)",
}
"""Words without numbers, so that a held rollout's status does not change at every tick."""
_ASKED: Final = {
    Reason.NOT_ENOUGH_REQUESTS: Reason.PAUSED_NOT_ENOUGH,
    Reason.EXIT_GATE: Reason.EXIT_GATE,
    Reason.ENTRY_GATE: Reason.ENTRY_GATE,
    Reason.PROMOTION_GATE: Reason.PAUSED_NOT_ENOUGH,
    Reason.STAGE_HELD: Reason.PAUSED_BY_RULE,
}
