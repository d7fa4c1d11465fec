"""What is written to the route: fences, other people's writes, cohorts."""

from dataclasses import replace

import pytest
from world import FAIL, V1, V2, World, at_stage, spec, stages

from canary_rollout.engine.decision import Lower, Raise
from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Reason
from canary_rollout.model.spec import Cohort

INTERNAL = {"header": "X-Cohort", "values": ["internal"]}
FRIENDLY = {"header": "X-Cohort", "values": ["internal", "friendly"]}
COHORTS = spec(stages=stages(("first", {"cohort": INTERNAL}), ("second", {"cohort": FRIENDLY})))


def test_the_route_is_made_at_weight_0_before_anything_is_raised():
    world = World()
    assert world.look().actions == ()
    assert world.look().actions[0].route.weight == 0


def test_a_weight_somebody_raised_is_corrected_at_once():
    world = at_stage("second")
    world.foreign(5000)
    world.reassert_at = world.now + 60
    world.look()
    assert world.weight == 500


def test_a_weight_somebody_raised_at_rest_is_corrected_at_once():
    world = World().run()
    world.foreign(5000)
    world.look()
    assert world.weight == 0


def test_a_weight_somebody_lowered_stops_the_time_and_is_written_again_not_before_its_time():
    world = at_stage("second").run(30)
    world.foreign(0)
    world.reassert_at = world.now + 8
    world.run(7)
    assert (world.weight, world.last.reason) == (0, Reason.ROUTE_CONTESTED)
    assert "kubectl-edit wrote 0% over the wanted 5%" in world.message
    assert world.last.wake_at == world.reassert_at
    world.run(1)
    assert world.weight == 500
    assert world.state.clock.elapsed(world.now) == pytest.approx(30, abs=0.1)


def test_a_write_by_somebody_else_of_the_same_weight_is_written_over_too():
    world = at_stage("second")
    world.foreign(500)
    world.look()
    assert (world.route.contested_by, world.route.confirmed) == ("", True)


def test_a_route_that_is_deleted_while_we_look_is_made_again_from_0():
    world = at_stage("second")
    world.route = None
    world.run()
    assert world.weights[-2:] == [0, 500]


def test_an_outdated_route_is_written_again_at_the_same_weight():
    world = at_stage("second")
    world.route = replace(world.route, outdated=True, confirmed=False)
    decision = world.look()
    assert [action.route.weight for action in decision.actions] == [500]
    assert not world.route.outdated


def test_everything_is_taken_away_without_a_fence():
    world = at_stage("second")
    world.rules = FAIL
    lowering = world.look().actions[0]
    assert (lowering.route.weight, lowering.fence) == (0, None)


def test_a_lowering_to_more_than_nothing_is_fenced():
    """Landed late, after a verdict, it would be a raise."""
    world = at_stage("second").say(Verb.SET_WEIGHT, weight="1%")
    world.look()
    lowering = world.look().actions[0]
    assert isinstance(lowering, Lower)
    assert lowering.fence == str(world.version - 1)


def test_a_raise_is_not_sent_for_a_revision_that_is_no_longer_there():
    world = at_stage("second").say(Verb.PROMOTE)
    world.look()
    world.release("c" * 10)
    for _ in range(3):
        assert not any(isinstance(action, Raise) for action in world.look().actions)
    assert world.weight == 0


# -- cohorts


def test_a_cohort_is_routed_with_its_stage():
    world = at_stage("first", spec=COHORTS)
    assert world.route.cohort == Cohort.model_validate(INTERNAL)
    world.run(60).run()
    assert (world.weight, world.route.cohort) == (500, Cohort.model_validate(FRIENDLY))
    world.run(60).run()
    assert (world.weight, world.route.cohort) == (2500, None)


def test_a_cohort_goes_with_a_rollback():
    world = at_stage("second", spec=COHORTS)
    world.rules = FAIL
    world.look()
    assert (world.weight, world.route.cohort) == (0, None)


def test_a_cohort_that_somebody_widened_is_narrowed_at_once():
    world = at_stage("first", spec=COHORTS)
    world.foreign(50)
    world.route = replace(world.route, cohort=Cohort.model_validate(FRIENDLY))
    world.reassert_at = world.now + 60
    world.look()
    assert world.route.cohort == Cohort.model_validate(INTERNAL)


def test_a_cohort_that_somebody_exchanged_is_taken_away_at_once_and_given_back_later():
    world = at_stage("first", spec=COHORTS)
    world.foreign(50)
    world.route = replace(world.route, cohort=Cohort(cookie="everybody", values=("yes",)))
    world.look()
    assert (world.weight, world.route.cohort) == (50, None)
    world.run()
    assert world.route.cohort == Cohort.model_validate(INTERNAL)


def test_a_higher_weight_with_the_cohort_gone_is_lowered_first():
    world = at_stage("first", spec=COHORTS)
    world.foreign(9000)
    world.route = replace(world.route, cohort=None)
    world.reassert_at = world.now + 60
    world.look()
    assert (world.weight, world.route.cohort) == (50, None)
    world.run()
    assert world.route.cohort == Cohort.model_validate(INTERNAL)


def test_part_of_a_cohort_is_kept_when_the_weight_must_come_down():
    world = at_stage("second", spec=COHORTS)
    world.foreign(9000)
    world.route = replace(world.route, cohort=Cohort(header="X-Cohort", values=("friendly", "others")))
    world.look()
    assert (world.weight, world.route.cohort) == (500, Cohort(header="X-Cohort", values=("friendly",)))


def test_an_edit_that_narrows_the_cohort_is_written_like_a_lowering():
    world = at_stage("second", spec=COHORTS)
    world.no_raise = "the clock is 3 s off"
    world.spec = spec(stages=stages(("first", {"cohort": INTERNAL}), ("second", {"cohort": INTERNAL})))
    world.look()
    assert (world.weight, world.route.cohort) == (500, Cohort.model_validate(INTERNAL))


def test_a_lowering_by_command_takes_the_wider_cohort_with_it():
    world = at_stage("second", spec=COHORTS).say(Verb.SET_WEIGHT, weight="0.5%").run()
    assert (world.weight, world.route.cohort) == (50, Cohort.model_validate(INTERNAL))


def test_a_raise_that_is_blocked_says_why():
    world = at_stage("second")
    world.foreign(0)
    for change, words in (
        ({"available": 1, "settled": False}, "not all pods of the canary are ready"),
        ({"paused": False}, "the canary's template is not held"),
    ):
        kept, world.canary = world.canary, replace(world.canary, **change)
        decision = world.look()
        assert f"Not raised to 5%: {words}" in decision.message
        world.canary = kept
    world.run()
    assert world.weight == 500


def test_the_route_names_stables_revision():
    world = World().run()
    world.release(V2).look()
    world.look()
    assert world.last.actions[0].route.stable_revision == V1
