"""Between weight 0 and letting go of the canary: requests under way end on the version they began on (invariant 7)."""

from canary_rollout.engine.draft import Draft
from canary_rollout.model.conditions import Reason
from canary_rollout.model.units import format_moment


def drained(draft: Draft) -> bool:
    """Weight 0, confirmed, and requests that began on the canary have had their time; says what is waited for."""
    state = draft.state
    if draft.route_weight > 0 and state.drain_until is not None:
        draft.change(drain_until=None)  # somebody gave it traffic again
    if not draft.at_zero:
        draft.say(
            Reason.RETURNING, "Traffic goes back to stable: waiting until the data plane has it" + _pending(draft)
        )
        return False
    if state.confirmed != 0:
        draft.change(confirmed=0)
    if not draft.served:
        return True
    if state.drain_until is None:
        draft.change(drain_until=round(draft.now + draft.spec.workload.drain, 3))
    until = draft.state.drain_until or draft.now
    if draft.now >= until:
        return True
    draft.wake(until)
    draft.next_change = until
    draft.say(
        Reason.DRAINING,
        f"Stable serves everything; requests under way on the canary may end until {format_moment(until)}",
    )
    return False


def _pending(draft: Draft) -> str:
    route = draft.seen.route
    return f" ({route.pending})" if route is not None and route.pending else ""
