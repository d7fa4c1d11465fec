"""What stops a rollout: a lost or foreign lowering, pods that crash, rules that fail, a share far above the weight."""

from canary_rollout.analysis.verdict import Outcome, Verdict
from canary_rollout.engine.draft import HOLDING, RESTING, Draft, cut, with_halt
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.route import Latch
from canary_rollout.model.spec import Action
from canary_rollout.model.status import Halt
from canary_rollout.model.units import FULL, format_weight

SHARE_FACTOR = 3.0
"""A share this many times the weight is no accident of the split (design invariant 9)."""
SHARE_EXPECTED = 30.0
"""Canary requests that the weight must predict before the share is judged: 3x of 30 is 11 sigma away."""


_PAST_HARM = RESTING | {Phase.ROLLING_BACK, Phase.RETURNING}
"""Phases in which the canary has, or is about to have, no traffic."""


def stop_if_harmful(draft: Draft) -> None:
    """Halt or pause the revision when anything says so. Never waits: uses only what is already known."""
    _adopt_latch_of_route(draft)
    if draft.state.phase not in _PAST_HARM:
        _look_for_harm(draft)


def _look_for_harm(draft: Draft) -> None:
    for check in (_lowered_while_away, _crashed, _failed, _share_exceeded):
        check(draft)
        if draft.latch:
            return
    _pause_or_alert(draft)


def _adopt_latch_of_route(draft: Draft) -> None:
    """A verdict that is on the route's own object but not in the status counts (the status write was lost)."""
    route, state, canary = draft.seen.route, draft.state, draft.seen.canary
    latch = route.latch if route is not None else None
    if latch is None or (state.began_at is not None and latch.at < state.began_at):
        return  # an old one: its revision was replaced or retried since
    # One that cannot be read names no revision: it condemns what is there, but for stable's own.
    revision = latch.revision or (canary.revision if canary.revision != draft.seen.stable.revision else "")
    if not revision or state.halt_of(revision) is not None:
        return
    forgotten = state.began_at is None and state.phase in RESTING
    if forgotten and revision == canary.revision and draft.may_serve:
        draft.change(phase=Phase.PREPARING, revision=revision, began_at=draft.now, serving_since=draft.now)
    reason = Reason.RULE_FAILED if latch.rule else Reason.HALTED
    if revision == draft.state.revision and draft.state.phase not in _PAST_HARM:
        draft.halt(reason, latch.message, latch.rule)
        halt = draft.state.halts[0]
        draft.change(halts=(halt.model_copy(update={"at": latch.at}), *draft.state.halts[1:]))
    elif revision != state.revision or state.phase in RESTING:
        _remember(draft, revision, reason, latch)


def _remember(draft: Draft, revision: str, reason: Reason, latch: Latch) -> None:
    """Condemn a revision that serves nothing."""
    halt = Halt(revision=revision, reason=reason, rule=latch.rule, message=cut(latch.message), at=latch.at)
    draft.change(halts=with_halt(draft.state.halts, halt))


def _lowered_while_away(draft: Draft) -> None:
    """At start, a route below the last confirmed weight with neither latch nor cause is a halt, never a reason to raise."""
    state = draft.state
    if not draft.seen.at_start or draft.route_weight >= state.confirmed:
        return
    if state.lowering is not None and draft.route_weight >= state.lowering.to:
        return
    draft.halt(
        Reason.ROUTE_LOWERED,
        f"the route was found at {format_weight(draft.route_weight)} although {format_weight(state.confirmed)} had been "
        "confirmed and nothing recorded why; taken as a verdict that was lost. `retry` starts the revision again",
    )


def _crashed(draft: Draft) -> None:
    """Pods of the canary that crash, or are all unready, while they serve."""
    canary = draft.seen.canary
    if not _serves(draft):
        return
    if not canary.exists:
        draft.halt(
            Reason.CANARY_NOT_READY, f"Deployment {draft.spec.workload.canary.deployment} is gone while it served"
        )
    elif canary.crash:
        draft.halt(Reason.CANARY_CRASHED, canary.crash)
    elif canary.available == 0 and not _still_to_be_made(draft):
        draft.halt(
            Reason.CANARY_NOT_READY,
            f"none of the {canary.replicas} pods of Deployment {draft.spec.workload.canary.deployment} is ready while it serves",
        )


def _still_to_be_made(draft: Draft) -> bool:
    """Whether the canary has no ready pod because the weight, which is their number, was 0 until now or is again."""
    return draft.seen.scales and (draft.state.confirmed == 0 or draft.seen.canary.replicas == 0)


def _serves(draft: Draft) -> bool:
    """Whether this very revision may have traffic; what the one before it did says nothing about it."""
    return draft.state.serving_since is not None and draft.may_serve


def _verdicts(draft: Draft, action: Action) -> list[Verdict]:
    found = draft.assessment.stops if draft.assessment is not None and _serves(draft) else ()
    return [verdict for verdict in found if verdict.outcome is Outcome.FAIL and verdict.action is action]


def _failed(draft: Draft) -> None:
    """A rule or a test of the comparison with action Rollback that fails."""
    for verdict in _verdicts(draft, Action.ROLLBACK)[:1]:
        draft.halt(Reason.RULE_FAILED, verdict.message, verdict.rule)


def _share_exceeded(draft: Draft) -> None:
    """The canary gets far more than its weight: the data plane does not do what it was told."""
    seen, state = draft.assessment, draft.state
    if seen is None or seen.received_share is None or not 0 < state.wanted < FULL:
        return
    if draft.spec.traffic.sticky is not None or draft.stage.cohort is not None:
        return  # requests of tenants and of cohort members are not distributed like the weight
    if state.clock.elapsed(draft.now) < draft.spec.metrics.window or not draft.serves_as_wanted:
        return  # the window still reaches back to another weight
    weight = state.wanted / FULL
    if seen.received_requests * weight >= SHARE_EXPECTED and seen.received_share > SHARE_FACTOR * weight:
        draft.halt(
            Reason.SHARE_EXCEEDED,
            f"the canary received {seen.received_share:.2%} of {seen.received_requests:.0f} requests at a weight of "
            f"{format_weight(state.wanted)}: the data plane does not do what it was told",
        )


def _pause_or_alert(draft: Draft) -> None:
    """A rule with action Pause holds the weight; once promotion has begun there is nothing to hold, and it is told."""
    alerts = _verdicts(draft, Action.ALERT)
    for verdict in _verdicts(draft, Action.PAUSE):
        if draft.state.phase in HOLDING:
            draft.stay_here()
            draft.pause(Reason.PAUSED_BY_RULE, verdict.message, verdict.rule)
        else:
            alerts.append(verdict)
    for verdict in alerts:
        if verdict.rule not in draft.seen.failing_before:
            draft.note(Reason.RULE_ALERT, verdict.message, warning=True)
