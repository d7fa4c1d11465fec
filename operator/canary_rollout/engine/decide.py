"""decide(spec, state, observation, now): the whole operator in one pure function.

The order of the steps is the order of importance: what harms is stopped before anything else is looked at, people's
commands come before the operator's own plans, and the route is decided last, from the intent that is already persisted.
"""

from canary_rollout.engine.decision import Decision
from canary_rollout.engine.draft import Draft
from canary_rollout.engine.ending import finish
from canary_rollout.engine.harm import stop_if_harmful
from canary_rollout.engine.journey import advance
from canary_rollout.engine.observation import Observation
from canary_rollout.engine.orders import take_command
from canary_rollout.engine.revisions import notice_revision
from canary_rollout.engine.routing import route
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import RolloutState

_UNDER_WAY = frozenset({Phase.PREPARING, Phase.PROGRESSING, Phase.PAUSED, Phase.AWAITING_APPROVAL})


def decide(spec: CanaryRolloutSpec, state: RolloutState, seen: Observation, now: float) -> Decision:
    """What to do now.

    Args:
        spec: the validated spec.
        state: the engine's memory as it is *persisted*; a raise is only ever sent for an intent found in here.
        seen: the world as it was gathered.
        now: POSIX seconds; used to the millisecond, as status holds it.

    Returns:
        The new memory, the actions and the words. Deciding again on the same input gives the same answer.
    """
    draft = Draft(spec, state, seen, round(now, 3))
    stop_if_harmful(draft)
    if not draft.latch:
        notice_revision(draft)
    if not draft.latch:
        take_command(draft)
    if draft.state.phase in _UNDER_WAY:
        advance(draft)
    else:
        finish(draft)
    route(draft)
    _say_problems(draft)
    return draft.decision()


def _say_problems(draft: Draft) -> None:
    """What a person has to mend comes before everything else that could be said, unless the rollout is being stopped."""
    if draft.seen.problems and draft.state.phase is not Phase.ROLLING_BACK:
        missing = not (draft.seen.stable.exists and draft.seen.canary.exists)
        draft.say(Reason.WORKLOAD_MISSING if missing else Reason.INVALID_SPEC, draft.seen.problems[0], stalled=True)
