"""What stops a rollout: a lost or foreign lowering, pods that crash, rules that fail, a share far above the weight."""

from canary_rollout.analysis.verdict import Outcome, Verdict
from canary_rollout.engine.draft import HOLDING, RESTING, Draft
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action
from canary_rollout.model.units import FULL, format_weight

SHARE_FACTOR = 3.0
"""A share this many times the weight is no accident of the split (design invariant 9)."""
SHARE_EXPECTED = 30.0
"""Canary requests that the weight must predict before the share is judged: 3x of 30 is 11 sigma away."""


def stop_if_harmful(draft: Draft) -> None:
    """Halt or pause the revision when anything says so. Never waits: uses only what is already known."""
    _adopt_latch_of_route(draft)
    state = draft.state
    if state.phase in RESTING or state.phase in {Phase.ROLLING_BACK, Phase.RETURNING} or state.halt_of(state.revision):
        return
    for check in (_lowered_while_away, _crashed, _failed, _share_exceeded):
        check(draft)
        if draft.latch:
            return
    _pause_or_alert(draft)


def _adopt_latch_of_route(draft: Draft) -> None:
    """A verdict that is on the route's own object but not in the status counts (the status write was lost)."""
    route, state = draft.seen.route, draft.state
    latch = route.latch if route is not None else None
    if latch is None or latch.revision != state.revision or state.halt_of(latch.revision) or state.phase in RESTING:
        return
    if latch.at < (state.began_at or 0.0):
        return  # older than a retry of the same revision
    draft.halt(Reason.RULE_FAILED if latch.rule else Reason.HALTED, latch.message, latch.rule)
    halt = draft.state.halts[0]
    draft.change(halts=(halt.model_copy(update={"at": latch.at}), *draft.state.halts[1:]))


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
    canary, serving = draft.seen.canary, draft.state.serving_since is not None and draft.may_serve
    if not serving:
        return
    if not canary.exists:
        draft.halt(
            Reason.CANARY_NOT_READY, f"Deployment {draft.spec.workload.canary.deployment} is gone while it served"
        )
    elif canary.crash:
        draft.halt(Reason.CANARY_CRASHED, canary.crash)
    elif canary.available == 0:
        draft.halt(
            Reason.CANARY_NOT_READY,
            f"none of the {canary.replicas} pods of Deployment {draft.spec.workload.canary.deployment} is ready while it serves",
        )


def _verdicts(draft: Draft, action: Action) -> list[Verdict]:
    found = draft.seen.assessment.rules if draft.seen.assessment is not None else ()
    return [verdict for verdict in found if verdict.outcome is Outcome.FAIL and verdict.action is action]


def _failed(draft: Draft) -> None:
    """A rule with action Rollback that fails."""
    for verdict in _verdicts(draft, Action.ROLLBACK):
        if draft.may_serve:
            draft.halt(Reason.RULE_FAILED, verdict.message, verdict.rule)
            return


def _share_exceeded(draft: Draft) -> None:
    """The canary gets far more than its weight: the data plane does not do what it was told."""
    seen, state = draft.seen.assessment, draft.state
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
    for verdict in _verdicts(draft, Action.PAUSE):
        if draft.state.phase in HOLDING and draft.may_serve:
            draft.pause(Reason.PAUSED_BY_RULE, verdict.message, verdict.rule)
    for verdict in _verdicts(draft, Action.ALERT):
        if verdict.rule not in draft.seen.failing_before:
            draft.note(Reason.RULE_ALERT, verdict.message, warning=True)
