"""A rollout that has been under way for a while in the past of ``past_metrics``, as its status would say."""

from canary_rollout.analysis.comparing import policy_of
from canary_rollout.analysis.evidence import Evidence
from canary_rollout.controller.running import begin
from canary_rollout.model.conditions import Phase
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import CanaryRolloutStatus, RolloutState, StageClock

UNDER_WAY = 1200


def under_way(end, spec, stage="few", weight=500):
    """In ``stage`` for twenty minutes, and what its comparison remembers of the first tick."""
    began = float(end - UNDER_WAY)
    running = begin(policy_of(CanaryRolloutSpec.model_validate(spec)), 15.0, began)
    state = RolloutState(
        phase=Phase.PROGRESSING,
        revision="ab12cd34ef",
        stage=stage,
        wanted=weight,
        confirmed=weight,
        clock=StageClock(held_ms=0, since=began),
        began_at=began,
    )
    running.weigh(state, began)
    evidence = Evidence(comparison=running.checkpoint()).to_dict()
    return CanaryRolloutStatus(observed_generation=1, phase=Phase.PROGRESSING, rollout=state, evidence=evidence)
