"""From a new revision to 100 %: preparing the canary, holding stages, deciding when the next one begins."""

from canary_rollout.analysis.verdict import Assessment, Lack, Outcome, Verdict
from canary_rollout.engine.decision import HoldPause, ReleasePause, ScaleCanary
from canary_rollout.engine.draft import ENDING, RESTING, Draft
from canary_rollout.model.commands import EXPIRES_AFTER
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action, Promotion, Stage
from canary_rollout.model.status import Lowering, StageClock
from canary_rollout.model.units import FULL, format_duration, format_instant, format_weight

RETRY_RAISE = 2.0
"""Seconds until a raise that must not be sent now (Lease, clock) is looked at again."""


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
    if canary.revision == stable.revision:
        if state.phase is not Phase.SUCCEEDED:
            draft.change(phase=Phase.IDLE, revision=canary.revision, stable_revision=stable.revision, stage="")
    elif halt := state.halt_of(canary.revision):
        stopped = Phase.HALTED if halt.reason in {Reason.ROUTE_LOWERED, Reason.SHARE_EXCEEDED} else Phase.ROLLED_BACK
        draft.change(phase=stopped, revision=canary.revision, stage="")
    elif state.phase is not Phase.SUCCEEDED or canary.revision != state.revision:
        _begin(draft)
        latch = draft.seen.route.latch if draft.seen.route is not None else None
        if latch is not None and latch.revision == canary.revision and state.began_at is None:
            draft.halt(Reason.RULE_FAILED if latch.rule else Reason.HALTED, latch.message, latch.rule)


def _superseded(draft: Draft) -> None:
    old, new = draft.state.revision, draft.seen.canary.revision
    draft.end("Superseded", "NewRevision", f"revision {new} took its place at {format_weight(draft.state.wanted)}")
    _begin(draft)
    draft.note(Reason.NEW_REVISION, f"revision {new} replaces {old}; traffic goes back to stable first")


def _begin(draft: Draft) -> None:
    state, new = draft.state, draft.seen.canary.revision
    reverted = new == draft.seen.stable.revision
    serving = draft.may_serve
    draft.change(
        phase=Phase.RETURNING if reverted else Phase.PREPARING,
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
        override=(),
        lowering=Lowering(reason=Reason.NEW_REVISION, to=0, at=draft.now) if serving else state.lowering,
    )
    draft.restart_evidence = True
    if draft.ended is None:
        draft.note(Reason.NEW_REVISION, f"revision {new} appeared; its pods are prepared")


def advance(draft: Draft) -> None:
    """Move the journey on where it may move."""
    if draft.state.phase is Phase.PREPARING:
        _prepare(draft)
    else:
        _hold(draft)


# -- preparing -------------------------------------------------------------------------------------------------------


def _prepare(draft: Draft) -> None:
    canary, deployment = draft.seen.canary, draft.spec.workload.canary.deployment
    deadline = (draft.state.began_at or draft.now) + draft.spec.workload.progress_deadline
    draft.say(
        Reason.PREPARING, f"Preparing revision {draft.state.revision}: waiting for the data plane to serve stable only"
    )
    if not draft.at_zero:
        return
    if draft.state.confirmed != 0:
        draft.change(confirmed=0)
    if not canary.observed:
        draft.say(
            Reason.PREPARING, f"Preparing revision {draft.state.revision}: Deployment {deployment} is being updated"
        )
    elif not canary.settled:
        _make_pods(draft)
    elif not canary.paused:
        draft.act(HoldPause())
        draft.say(
            Reason.PREPARING,
            f"Revision {draft.state.revision} is ready; its template is held before any traffic goes to it",
        )
    else:
        _first_raise(draft)
        return
    if draft.now >= deadline:
        waited = format_duration(draft.spec.workload.progress_deadline)
        draft.say(
            Reason.PROGRESS_DEADLINE,
            f"Revision {draft.state.revision} is not ready after {waited}"
            + (f": {canary.crash}" if canary.crash else "; look at the pods of Deployment " + deployment),
            stalled=True,
        )
    else:
        draft.wake(deadline)


def _make_pods(draft: Draft) -> None:
    canary, workload = draft.seen.canary, draft.spec.workload.canary
    scaling = workload.scaling
    if canary.paused and canary.paused_by_us:
        draft.act(ReleasePause())
    if scaling is not None and canary.replicas < scaling.replicas:
        draft.act(ScaleCanary(scaling.replicas))
    what = f"{canary.available} of {canary.replicas} pods of Deployment {workload.deployment} are ready"
    if canary.replicas == 0:
        what = f"Deployment {workload.deployment} has 0 replicas; scale it, or set workload.canary.scaling"
    if canary.paused and not canary.paused_by_us:
        what = f"Deployment {workload.deployment} is paused by somebody else; resume it"
    draft.say(Reason.PREPARING, f"Preparing revision {draft.state.revision}: {canary.crash or what}")


def _first_raise(draft: Draft) -> None:
    pin = draft.state.pin
    if pin is not None and not _held_back(draft):
        draft.want(pin, ([stage for stage in draft.stages if stage.weight <= pin][-1:] or [draft.stages[0]])[0].name)
        draft.change(phase=Phase.PROGRESSING)
        draft.pause(
            Reason.PAUSED_BY_COMMAND, f"started at {format_weight(pin)} by command; `resume` goes on to the next stage"
        )
        return
    _enter_next(draft)


# -- holding ---------------------------------------------------------------------------------------------------------


def _hold(draft: Draft) -> None:
    _note_data(draft)
    if not draft.serves_as_wanted:
        draft.stop_clock()
        _say_route(draft)
        return
    if draft.state.confirmed != draft.state.wanted:
        draft.change(confirmed=draft.state.wanted)
        draft.note(
            Reason.STAGE_STARTED,
            f"{format_weight(draft.state.wanted)} confirmed by the data plane; stage {draft.stage.name} counts from now",
        )
    if _paused(draft):
        draft.stop_clock()
        return
    if draft.state.no_data_since is not None:
        draft.stop_clock()
        _say_no_data(draft)
        return
    if draft.state.wanted == 0:
        _enter_next(draft)  # nothing is served, so there is nothing to watch for a whole hold
        return
    draft.run_clock()
    draft.change(phase=Phase.PROGRESSING)
    ends = draft.now + draft.stage.hold - draft.state.clock.elapsed(draft.now)
    if ends > draft.now:
        _say_holding(draft, ends)
    else:
        _at_the_end_of_the_hold(draft)


def _note_data(draft: Draft) -> None:
    """Missing data is never a pass and never a fail: it stops the stage's time, and nothing else."""
    seen = draft.seen.assessment
    if seen is None:
        return
    missing = [verdict for verdict in seen.rules if verdict.lack is Lack.NO_DATA and verdict.action is not Action.ALERT]
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
    draft.change(phase=Phase.PROGRESSING if draft.state.phase is not Phase.PAUSED else Phase.PAUSED)
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
        draft.change(phase=Phase.PAUSED)
        draft.say(
            Reason.PAUSED_NO_DATA,
            f"Paused at {weight}: no data since {format_instant(since)}; goes on by itself when data returns",
        )
    else:
        draft.wake(pause_at)
        draft.say(
            Reason.NO_DATA,
            f"Holding {weight}: no data since {format_instant(since)}; neither advanced nor rolled back, goes on by itself when data returns",
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
    draft.say(
        Reason.STAGE_HELD,
        f"Holding {format_weight(draft.state.wanted)} in stage {draft.stage.name} until {format_instant(ends)}, {then}",
    )


# -- the end of a hold -----------------------------------------------------------------------------------------------


def _at_the_end_of_the_hold(draft: Draft) -> None:
    seen = draft.seen.assessment
    if seen is None:
        draft.keep_words()  # nothing was evaluated just now: what was said last still stands
        return
    if open_question := _open_question(seen):
        _extend(draft, open_question)
        return
    if draft.state.wanted >= FULL:
        copy = draft.spec.workload.promotion is Promotion.COPY_TEMPLATE
        draft.change(phase=Phase.PROMOTING if copy else Phase.AWAITING_PROMOTION, clock=StageClock())
        draft.note(
            Reason.PROMOTING if copy else Reason.AWAITING_PROMOTION,
            f"revision {draft.state.revision} held 100 %; "
            + ("stable is brought up to date" if copy else "waiting for stable to be brought up to date"),
        )
        return
    _enter_next(draft)


def _open_question(seen: Assessment) -> tuple[Reason, str] | None:
    """The first thing that speaks against the next stage, or ``None``. Promotion is a stricter question than rollback."""
    for verdict in seen.rules:
        if verdict.action is Action.ALERT:
            continue  # an alert is told, it decides nothing
        if verdict.breached_since is not None or verdict.outcome is Outcome.FAIL:
            return Reason.STAGE_HELD, verdict.message
        if verdict.lack is Lack.NOT_ENOUGH:
            return Reason.NOT_ENOUGH_REQUESTS, verdict.message
    for verdict in seen.exits:
        if problem := _gate_problem(verdict):
            return problem
    return None


def _gate_problem(verdict: Verdict) -> tuple[Reason, str] | None:
    if verdict.outcome is Outcome.FAIL:
        return Reason.EXIT_GATE, verdict.message
    if verdict.outcome is Outcome.NONE:
        return (Reason.NO_DATA if verdict.lack is Lack.NO_DATA else Reason.NOT_ENOUGH_REQUESTS), verdict.message
    return None


def _extend(draft: Draft, question: tuple[Reason, str]) -> None:
    reason, why = question
    limit = draft.now + draft.stage.longest_hold - draft.state.clock.elapsed(draft.now)
    weight, stage = format_weight(draft.state.wanted), draft.stage.name
    if limit > draft.now:
        draft.wake(limit)
        draft.say(
            reason,
            f"Holding {weight} in stage {stage} beyond its time, until {format_instant(limit)} at most: {_steady(reason)}",
        )
        return
    asked = Reason.PAUSED_NOT_ENOUGH if reason is Reason.NOT_ENOUGH_REQUESTS else reason
    draft.pause(asked, f"stage {stage} was held as long as it may be: {why}")


def _steady(reason: Reason) -> str:
    """Words without numbers, so that a held rollout's status does not change at every tick."""
    return {
        Reason.NOT_ENOUGH_REQUESTS: "too few requests for a verdict (see verdicts)",
        Reason.EXIT_GATE: "an exit gate does not hold yet (see verdicts)",
        Reason.NO_DATA: "an exit gate has no data (see verdicts)",
    }.get(reason, "a halt rule is breached, though not for long enough to fail (see verdicts)")


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
    if following is None or _held_back(draft):
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
    draft.change(phase=Phase.PROGRESSING)
    draft.say(
        Reason.WAITING_FOR_ROUTE,
        f"Stage {following.name} begins: the weight rises to {format_weight(following.weight)}",
    )


def _approved(draft: Draft, stage: Stage) -> bool:
    approval = draft.state.approval
    return approval is not None and approval.stage == stage.name and draft.now - approval.at < EXPIRES_AFTER
