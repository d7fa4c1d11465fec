"""Commands that hold and move a rollout: pause, resume, set-weight, promote; what each does, where each is refused."""

from dataclasses import replace

import pytest
from world import FAIL, NO_DATA, PASS, World, at_stage, preparing, rolled_back, spec, verdict

from canary_rollout.analysis.verdict import Outcome
from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action

PAUSE_RULE = (verdict(Outcome.FAIL, rule="p99", action=Action.PAUSE),)


def promoting(**changes) -> World:
    world = at_stage("all", **changes)
    world.run(60)
    return world


# -- pause and resume


def test_a_person_pauses_and_resumes_and_the_time_goes_on_where_it_stood():
    world = at_stage("second").run(30)
    world.say(Verb.PAUSE, reason="lunch").run(1000)
    assert (world.weight, world.state.phase, world.last.reason) == (500, Phase.PAUSED, Reason.PAUSED_BY_COMMAND)
    assert "paused by command: lunch" in world.message
    world.say(Verb.RESUME).run()
    assert world.state.phase is Phase.PROGRESSING
    assert world.run(29).weight == 500
    assert world.run(1).run().weight == 2500


def test_a_pause_is_told_once_and_pausing_again_changes_nothing():
    world = at_stage("second").say(Verb.PAUSE).run()
    first = world.state.pause
    world.say(Verb.PAUSE, reason="again").run()
    assert world.state.pause == first
    assert world.events.count(Reason.PAUSED_BY_COMMAND) == 1


def test_a_pause_takes_back_a_raise_that_is_decided_and_not_written():
    world = at_stage("second")
    world.now += 60
    world.look()
    assert (world.state.wanted, world.weight) == (2500, 500)
    world.say(Verb.PAUSE).run(1000)
    assert (world.state.wanted, world.weight, world.state.stage) == (500, 500, "second")


def test_a_rule_that_pauses_takes_back_a_raise_that_is_decided_and_not_written():
    world = at_stage("second").say(Verb.PROMOTE)
    world.look()
    world.rules = PAUSE_RULE
    world.run(100)
    assert (world.weight, world.state.pause.rule) == (500, "p99")


def test_a_paused_rollout_is_still_rolled_back_by_a_rule():
    world = at_stage("second").say(Verb.PAUSE).run()
    world.rules = FAIL
    world.look()
    assert (world.weight, world.state.phase) == (0, Phase.ROLLING_BACK)
    assert world.state.pause is None


def test_a_pause_of_a_preparing_rollout_holds_it_at_zero():
    world = preparing().say(Verb.PAUSE).run()
    world.canary = replace(world.canary, settled=True, available=2)
    world.run(1000)
    assert (world.weight, world.state.phase) == (0, Phase.PREPARING)
    assert world.say(Verb.RESUME).run().weight == 50


def test_resuming_after_a_rule_begins_the_rules_afresh_and_the_hold_anew():
    world = at_stage("second").run(50)
    world.rules = PAUSE_RULE
    world.run()
    assert (world.state.phase, world.last.reason) == (Phase.PAUSED, Reason.PAUSED_BY_RULE)
    world.rules = PASS
    world.say(Verb.RESUME)
    assert world.look().restart_evidence
    assert world.state.fresh_after == world.now
    world.run()
    assert world.run(59).weight == 500
    assert world.run(1).run().weight == 2500


def test_resume_is_refused_where_nothing_is_paused_by_a_person_or_a_rule():
    world = at_stage("second").say(Verb.RESUME).run()
    assert world.answers == ["it is not paused by a command or a rule"]
    world.spec = spec(paused=True)
    world.say(Verb.RESUME).run()
    assert "spec.paused is true" in world.answers[-1]


def test_no_data_at_a_paused_weight_is_forgotten_when_a_person_resumes():
    world = at_stage("second")
    world.rules = NO_DATA
    world.run(1000)
    world.say(Verb.PAUSE).run()
    world.say(Verb.RESUME).run()
    assert world.state.no_data_since == world.now
    assert world.last.reason is Reason.NO_DATA


# -- set-weight


@pytest.mark.parametrize(
    ("weight", "basis_points", "stage"),
    [
        ("10%", 1000, "second"),
        ("0.1%", 10, "first"),
        ("100%", 10_000, "all"),
        ("5%", 500, "second"),
        ("0%", 0, "first"),
    ],
)
def test_set_weight_goes_there_and_pauses(weight, basis_points, stage):
    world = at_stage("second").say(Verb.SET_WEIGHT, weight=weight).run(1000)
    assert (world.weight, world.state.stage, world.state.phase) == (basis_points, stage, Phase.PAUSED)
    assert f"weight set to {weight}" in world.message


def test_a_lowering_by_command_records_its_cause_before_the_route_is_written():
    world = at_stage("second").say(Verb.SET_WEIGHT, weight="1%")
    assert world.look().actions == ()
    assert world.state.lowering.reason is Reason.WEIGHT_SET
    world.look()
    assert world.weight == 100


def test_resuming_from_weight_0_enters_the_first_stage_without_a_hold_of_nothing():
    world = at_stage("second")
    world.rules = NO_DATA
    world.run()
    world.say(Verb.SET_WEIGHT, weight="0%").run()
    world.say(Verb.RESUME).run()
    assert world.weight == 50


def test_weight_0_by_command_under_spec_paused_says_so_and_goes_on_after():
    world = at_stage("second").say(Verb.SET_WEIGHT, weight="0%").run()
    world.spec = spec(paused=True)
    world.say(Verb.RESUME).run()
    assert (world.weight, world.state.phase, world.last.reason) == (0, Phase.PAUSED, Reason.PAUSED_BY_SPEC)
    world.no_raise = "clock"
    world.spec = spec()
    world.run(5)
    assert (world.state.phase, world.last.reason) == (Phase.PROGRESSING, Reason.CLOCK_SKEW)


@pytest.mark.parametrize("weight", ["101%", "-1%", "10", "1.234%", None])
def test_set_weight_refuses_what_is_no_weight(weight):
    world = at_stage("second").say(Verb.SET_WEIGHT, weight=weight).run()
    assert world.events[-1] == Reason.COMMAND_REFUSED
    assert (world.weight, world.state.pause) == (500, None)


def test_a_weight_that_the_router_cannot_express_is_refused_with_its_neighbours():
    world = at_stage("second", step=100).say(Verb.SET_WEIGHT, weight="2.5%").run()
    assert world.answers == ["this router has steps of 1%: write 2% or 3%"]
    world.say(Verb.SET_WEIGHT, weight="2%").run()
    assert world.weight == 200


def test_spec_paused_refuses_raises_by_command_and_no_lowering():
    world = at_stage("second")
    world.spec = spec(paused=True)
    world.say(Verb.SET_WEIGHT, weight="10%").run()
    world.say(Verb.PROMOTE).run()
    world.say(Verb.PROMOTE, full=True).run()
    assert all("spec.paused is true" in answer for answer in world.answers)
    assert (world.weight, world.state.pause) == (500, None)
    world.say(Verb.SET_WEIGHT, weight="1%").run()
    assert world.weight == 100


def test_set_weight_is_refused_before_and_after_a_revision_is_held():
    for world in (preparing(), promoting(spec=spec(workload=MANUAL)), rolled_back()):
        before = world.weight
        world.say(Verb.SET_WEIGHT, weight="1%").run()
        assert world.events[-1] == Reason.COMMAND_REFUSED
        assert world.weight == before


MANUAL = {
    "stable": {"service": "shop", "deployment": "shop"},
    "canary": {"service": "shop-canary", "deployment": "shop-canary"},
    "promotion": "Manual",
}


# -- promote


def test_promote_goes_to_the_next_stage_without_waiting():
    assert at_stage("second").say(Verb.PROMOTE).run().weight == 2500


def test_promote_full_goes_to_100_percent_and_is_held_there_for_its_time():
    world = at_stage("first").say(Verb.PROMOTE, full=True).run()
    assert (world.weight, world.state.phase, world.state.stage) == (10_000, Phase.PROGRESSING, "all")
    assert world.run(59).state.phase is Phase.PROGRESSING
    assert world.run(60).run().state.phase is not Phase.PROGRESSING


def test_promote_ends_a_pause_and_passes_over_an_approval():
    world = at_stage("second").say(Verb.PAUSE).run().say(Verb.PROMOTE).run()
    assert (world.weight, world.state.phase) == (2500, Phase.PROGRESSING)


def test_promote_is_refused_at_100_percent():
    world = at_stage("all").say(Verb.PROMOTE).run()
    assert world.answers == ["it is at 100% already"]


def test_promote_needs_pods_that_are_ready():
    world = at_stage("second").say(Verb.PROMOTE)
    world.canary = replace(world.canary, settled=False, available=1)
    world.run()
    assert (world.weight, world.last.reason) == (500, Reason.CANARY_NOT_READY)
