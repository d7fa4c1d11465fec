"""What the data plane is told. The only place where a write of the route is decided (design invariants 2, 5, 9, 10)."""

from canary_rollout.engine.decision import HoldPause, Lower, Raise
from canary_rollout.engine.draft import RESTING, Draft
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.route import Latch, Route, RouteView
from canary_rollout.model.spec import Cohort
from canary_rollout.model.units import format_weight


def route(draft: Draft) -> None:
    """Bring the route to what the *persisted* intent says; a fresh halt lowers without waiting for anything."""
    if draft.latch:
        draft.actions.insert(0, Lower(wanted_route(draft)))
        return
    _keep_template_held(draft)
    if draft.state.wanted != draft.before.wanted or draft.state.revision != draft.before.revision:
        return  # the intent is persisted first; the route follows in the next reconcile
    target, view = wanted_route(draft), draft.seen.route
    if view is not None and _same(target, view):
        return
    if view is None and draft.seen.problems:
        return  # nothing is begun that could not be finished
    if _widens(target, view):
        _raise(draft, target, view)
    else:
        draft.actions.insert(0, Lower(target))


def wanted_route(draft: Draft) -> Route:
    """The route that belongs to the draft's state."""
    state = draft.state
    halt = state.halt_of(state.revision)
    return Route(
        weight=state.wanted,
        revision=state.revision,
        stable_revision=draft.seen.stable.revision or state.stable_revision,
        cohort=_cohort(draft),
        latch=Latch(halt.revision, halt.rule, halt.message, halt.at) if halt is not None else None,
    )


def _cohort(draft: Draft) -> Cohort | None:
    serving = (
        draft.state.wanted > 0 and draft.state.phase not in RESTING and draft.state.phase is not Phase.ROLLING_BACK
    )
    return draft.stage.cohort if serving and draft.state.stage else None


def _same(target: Route, view: RouteView) -> bool:
    latched = (target.latch.revision if target.latch else "") == (view.latch.revision if view.latch else "")
    return (
        view.weight == target.weight and view.revision == target.revision and view.cohort == target.cohort and latched
    )


def _widens(target: Route, view: RouteView | None) -> bool:
    """Whether anybody more would get the canary."""
    if view is None:
        return target.weight > 0
    more_people = target.cohort is not None and target.cohort != view.cohort
    other_version = target.weight > 0 and target.revision != view.revision
    return target.weight > view.weight or more_people or other_version


def _raise(draft: Draft, target: Route, view: RouteView | None) -> None:
    canary = draft.seen.canary
    if view is None:
        # There must be an object to fence a raise with: it begins at 0.
        draft.actions.insert(0, Lower(Route(0, target.revision, target.stable_revision)))
        return
    why = draft.seen.no_raise or (draft.seen.problems[0] if draft.seen.problems else "")
    if canary.revision != target.revision and draft.state.phase not in {Phase.PROMOTING, Phase.AWAITING_PROMOTION}:
        why = "the canary's template changed"
    elif not canary.paused:
        why = "the canary's template is not held"
    elif canary.crash or canary.available == 0:
        why = canary.crash or "the canary has no ready pod"
    if why:
        draft.say(
            Reason.CANARY_NOT_READY if not draft.seen.no_raise else Reason.CLOCK_SKEW,
            f"Not raised to {format_weight(target.weight)}: {why}",
        )
        return
    if view.contested_by and draft.now < draft.seen.reassert_at:
        draft.wake(draft.seen.reassert_at)
        return
    draft.actions.insert(0, Raise(target, view.resource_version))


def _keep_template_held(draft: Draft) -> None:
    """While the canary may serve, its Deployment makes no pods of a new template, whoever unpaused it."""
    canary, state = draft.seen.canary, draft.state
    serving = draft.may_serve and state.phase not in RESTING and state.phase is not Phase.PREPARING
    if serving and canary.exists and not canary.paused and HoldPause() not in draft.actions:
        draft.act(HoldPause())
