"""From a new revision to 100 %: preparing the canary, holding stages, deciding when the next one begins."""

from typing import Final

from canary_rollout.analysis.verdict import Assessment, Lack, Outcome, Verdict
from canary_rollout.engine.decision import HoldPause, ReleasePause, ScaleCanary
from canary_rollout.engine.draft import Draft, stage_at
from canary_rollout.engine.drain import drained
from canary_rollout.engine.ending import begin_promotion
from canary_rollout.engine.routing import RETRY_RAISE
from canary_rollout.model.commands import EXPIRES_AFTER
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action, Stage
from canary_rollout.model.status import StageClock
from canary_rollout.model.units import FULL, format_duration, format_moment, format_weight


def advance(draft: Draft) -> None:
    """Move the journey on where it may move."""
    if draft.state.phase is Phase.PREPARING:
        _prepare(draft)
    else:
        _hold(draft)


# -- preparing -------------------------------------------------------------------------------------------------------


def _prepare(draft: Draft) -> None:
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
        waits_for = f"its pods are ready; {canary.leaving} pods of the template before are still leaving"
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
        _enter_next(draft)
    elif not _held_back(draft):
        draft.want(pin, stage_at(draft.stages, pin).name)
        draft.pause(
            Reason.PAUSED_BY_COMMAND, f"started at {format_weight(pin)} by command; `resume` goes on to the next stage"
        )
        draft.say(Reason.WAITING_FOR_ROUTE, f"The weight rises to {format_weight(pin)}, where it is paused")


# -- holding ---------------------------------------------------------------------------------------------------------


def _hold(draft: Draft) -> None:
    _adopt_stage(draft)
    _note_data(draft)
    served = draft.serves_as_wanted
    if served:
        _confirm(draft)
    paused = _paused(draft)
    if not paused and draft.state.phase is Phase.PAUSED and draft.state.no_data_since is None:
        draft.change(phase=Phase.PROGRESSING)
    if not served:
        draft.stop_clock()
        _say_route(draft)
    elif paused:
        draft.stop_clock()
    elif draft.state.wanted == 0 and not draft.mirror:
        _enter_next(draft)  # nothing is served, so there is nothing to watch for a whole hold
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


def _paused(draft: Draft) -> bool:
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
    if question := _open_question(seen) or _closed_entry(seen, draft.next_stage, draft.state.stage):
        _extend(draft, *question)
    elif draft.state.wanted >= FULL:
        begin_promotion(draft)
    else:
        _enter_next(draft)


def _open_question(seen: Assessment) -> tuple[Reason, str] | None:
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


def _closed(gates: tuple[Verdict, ...], reason: Reason) -> tuple[Reason, str] | None:
    """The first gate that does not let the rollout through."""
    for gate in gates:
        if gate.outcome is Outcome.FAIL or gate.breached_since is not None:
            return reason, gate.message
        if not _answered(gate):
            return Reason.NOT_ENOUGH_REQUESTS, gate.message
    return None


def _closed_entry(seen: Assessment, following: Stage | None, present: str) -> tuple[Reason, str] | None:
    """The first entry gate of the next stage that does not let the rollout in. A stage that it was in is not entered again."""
    if following is None or not following.entry or following.name == present:
        return None
    if seen.entering != following.name:
        return Reason.ENTRY_GATE, f"the entry gates of stage {following.name} are not evaluated yet"
    return _closed(seen.entries, Reason.ENTRY_GATE)


def _answered(verdict: Verdict) -> bool:
    """Whether a rule or gate has nothing more to say: it passes, or it does not apply (invariant 3)."""
    return verdict.outcome is Outcome.PASS or verdict.lack is Lack.NOT_APPLICABLE


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
    _paused(draft)


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


def _held_back(draft: Draft) -> bool:
    """Whether a raise must not happen now; says why."""
    canary = draft.seen.canary
    if draft.state.pause is not None or draft.spec.paused:
        return _paused(draft)
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


def _enter_next(draft: Draft) -> None:
    following = draft.next_stage
    if following is None or _held_back(draft) or _stands_before(draft, following):
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
    closed = _closed_entry(seen, following, draft.state.stage) if seen is not None else None
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
