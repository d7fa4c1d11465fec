"""What the data plane is told. The only place where a write of the route is decided (design invariants 2, 5, 9, 10)."""

from dataclasses import replace

from canary_rollout.engine.decision import HoldPause, Lower, Raise
from canary_rollout.engine.draft import HOLDING, RESTING, Draft
from canary_rollout.model.conditions import Reason
from canary_rollout.model.route import Latch, Route, RouteView
from canary_rollout.model.spec import Cohort
from canary_rollout.model.units import format_weight

LOOK_AGAIN = 1.0
"""Seconds until a route that was just written is looked at again: where nothing is reported, no event would tell of it."""
RETRY_RAISE = 2.0
"""Seconds until a raise that must not be sent now (Lease, clock) is looked at again."""


def route(draft: Draft) -> None:
    """Bring the route to what the *persisted* intent says; a fresh halt lowers without waiting for anything."""
    _bring(draft)
    if any(isinstance(action, (Lower, Raise)) for action in draft.actions):
        draft.wake(draft.now + LOOK_AGAIN)


def _bring(draft: Draft) -> None:
    _keep_template_held(draft)
    if draft.seen.route is not None and draft.seen.route.again_at is not None:
        draft.wake(draft.seen.route.again_at)
    if draft.latch:
        draft.actions.insert(0, Lower(wanted_route(draft)))
        return
    if _intent(draft) != _intent(Draft(draft.spec, draft.before, draft.seen, draft.now)):
        return  # the intent is persisted first; the route follows in the next reconcile
    target, view = wanted_route(draft), draft.seen.route
    if view is None:
        if not draft.seen.problems:  # nothing is begun that could not be finished
            # There must be an object to fence a raise with: it begins at 0.
            draft.actions.insert(0, Lower(replace(target, weight=0, cohort=None, mirror=0)))
    elif _widens(target, view):
        if view.weight > target.weight or (view.contested_by and view.cohort is not None):
            _lower(draft, _narrowed(target, view), view)
        else:
            _raise(draft, target, view)
    elif not _same(target, view) and not _left_alone(draft, target, view):
        _lower(draft, target, view)


def wanted_route(draft: Draft) -> Route:
    """The route that belongs to the draft's state."""
    state = draft.state
    halt = state.halt_of(state.revision)
    return Route(
        weight=state.wanted,
        revision=state.revision,
        stable_revision=draft.seen.stable.revision or state.stable_revision,
        cohort=draft.cohort,
        latch=Latch(halt.revision, halt.rule, halt.message, halt.at) if halt is not None else None,
        mirror=draft.mirror,
    )


def _intent(draft: Draft) -> tuple[object, ...]:
    return draft.state.wanted, draft.state.revision, draft.cohort, draft.mirror


def _same(target: Route, view: RouteView) -> bool:
    latched = (target.latch.revision if target.latch else "") == (view.latch.revision if view.latch else "")
    latched = latched or not view.carries_latch
    said = (view.weight, view.revision, view.mirror) == (target.weight, target.revision, target.mirror)
    said = said and view.cohort == target.cohort
    return said and latched and not view.outdated and not (view.contested_by and not view.confirmed)


def _left_alone(draft: Draft, target: Route, view: RouteView) -> bool:
    """A route that says nothing about the canary, written by somebody else while nothing is under way, stays as it is."""
    serves = target.weight or target.mirror or target.cohort or view.weight or view.mirror or view.cohort
    lacks_latch = target.latch is not None and view.carries_latch
    return draft.state.phase in RESTING and not serves and not view.revision and not view.outdated and not lacks_latch


def _widens(target: Route, view: RouteView) -> bool:
    """Whether anybody more would get the canary."""
    other_version = (target.weight > 0 or target.mirror > 0) and target.revision != view.revision
    more = target.weight > view.weight or target.mirror > view.mirror
    return more or other_version or _shared(target.cohort, view.cohort) != target.cohort


def _shared(wanted: Cohort | None, present: Cohort | None) -> Cohort | None:
    """The people who belong to both cohorts; nobody where that cannot be told by looking at plain values."""
    if wanted == present:
        return wanted
    if wanted is None or present is None or not _by_values(wanted) or not _by_values(present):
        return None
    if (wanted.header, wanted.cookie) != (present.header, present.cookie):
        return None
    values = tuple(value for value in wanted.values if value in present.values)
    if values == wanted.values:
        return wanted
    return wanted.model_copy(update={"values": values}) if values else None


def _by_values(cohort: Cohort) -> bool:
    return not cohort.prefixes and cohort.pattern is None and cohort.regions is None


def _narrowed(target: Route, view: RouteView) -> Route:
    """What of ``target`` nobody gets the canary by who does not already."""
    return replace(
        target,
        weight=min(target.weight, view.weight),
        cohort=_shared(target.cohort, view.cohort),
        mirror=min(target.mirror, view.mirror),
    )


def _lower(draft: Draft, target: Route, view: RouteView) -> None:
    to_nothing = target.weight == target.mirror == 0 and target.cohort is None
    draft.actions.insert(0, Lower(target, None if to_nothing else view.resource_version))


def _raise(draft: Draft, target: Route, view: RouteView) -> None:
    if blocked := _blocked(draft, target, view):
        reason, why = blocked
        if draft.seen.no_raise:
            draft.wake(draft.now + RETRY_RAISE)
        draft.say(reason, f"Not raised to {format_weight(target.weight)}: {why}")
    elif draft.now < draft.seen.reassert_at and (view.contested_by or view.weight < target.weight):
        # Also where our own write has just taken out what they had put in.
        draft.wake(draft.seen.reassert_at)
    else:
        draft.actions.insert(0, Raise(target, view.resource_version))


def _blocked(draft: Draft, target: Route, view: RouteView) -> tuple[Reason, str] | None:
    """Why a raise must not be sent now. While promoting, the canary's template may be a queued one: its pods are not."""
    canary, seen = draft.seen.canary, draft.seen
    holding = draft.state.phase in HOLDING
    checks = (
        (bool(seen.no_raise), Reason.CLOCK_SKEW, seen.no_raise),
        (bool(seen.problems), Reason.INVALID_SPEC, seen.problems[0] if seen.problems else ""),
        (holding and canary.revision != target.revision, Reason.NEW_REVISION, "the canary's template changed"),
        (not canary.paused, Reason.PREPARING, "the canary's template is not held"),
        (bool(canary.crash), Reason.CANARY_NOT_READY, canary.crash),
        (canary.available == 0 and not canary.settled, Reason.CANARY_NOT_READY, "the canary has no ready pod"),
        (holding and not canary.settled, Reason.CANARY_NOT_READY, "not all pods of the canary are ready"),
        (
            draft.spec.paused and (target.weight > draft.state.confirmed or target.mirror > view.mirror),
            Reason.PAUSED_BY_SPEC,
            "spec.paused is true; set it to false to go on",
        ),
    )
    return next(((reason, why) for speaks, reason, why in checks if speaks), None)


def _keep_template_held(draft: Draft) -> None:
    """Until the canary has given back its last request, its Deployment makes no pods of a new template, whoever unpaused it."""
    canary, state = draft.seen.canary, draft.state
    busy = state.phase not in RESTING and (draft.may_serve or not draft.emptied)
    if busy and canary.exists and not canary.paused and HoldPause() not in draft.actions:
        draft.act(HoldPause())
