"""Gates at both ends of a stage, the gate that every raise asks, and the comparison's own word."""

from dataclasses import replace

import pytest
from reported import held
from world import FAIL, NOT_ENOUGH, PASS, World, at_stage, spec, verdict

from canary_rollout.analysis.verdict import Lack, Outcome
from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action

GATE = [{"name": "slos", "query": "x", "min": "1"}]
STAGES = [
    {"name": "first", "weight": "0.5%", "hold": "60s"},
    {"name": "second", "weight": "5%", "hold": "60s", "entry": GATE},
    {"name": "all", "weight": "100%", "hold": "60s"},
]
OPEN = (verdict(rule="slos", action=None),)
CLOSED = (verdict(Outcome.FAIL, rule="slos", action=None),)
UNKNOWN = (verdict(Outcome.NONE, rule="slos", action=None, lack=Lack.NO_DATA),)
YOUNG = (verdict(Outcome.NONE, rule="slos", action=None, lack=Lack.NOT_ENOUGH),)


def before_second(entries) -> World:
    """Held at the first stage, whose time is over."""
    world = at_stage("first", spec=spec(stages=STAGES))
    world.entries = entries
    return world.run(60.0).run()


def before_first(entries) -> World:
    """A new revision whose pods are ready, before a first stage with an entry gate."""
    first, *rest = STAGES
    world = World(spec=spec(stages=[{**first, "entry": GATE}, *rest]), entries=entries).run()
    return world.release().run()


# -- entry gates -------------------------------------------------------------------------------------------------------


def test_a_stage_is_entered_when_its_entry_gates_hold():
    assert before_second(OPEN).state.stage == "second"


@pytest.mark.parametrize(("entries", "reason"), [(CLOSED, Reason.ENTRY_GATE), (YOUNG, Reason.NOT_ENOUGH_REQUESTS)])
def test_an_entry_gate_that_does_not_hold_extends_the_hold_of_the_stage_before(entries, reason):
    world = before_second(entries)
    assert (world.state.stage, world.weight, world.last.reason) == ("first", 50, reason)
    world.entries = OPEN
    assert world.run().state.stage == "second"


def test_an_entry_gate_that_stays_closed_asks_a_person_in_the_end():
    world = before_second(CLOSED).run(3 * 60.0).run()
    assert (world.state.phase, world.state.pause.reason) == (Phase.PAUSED, Reason.ENTRY_GATE)
    assert "slos" in world.state.pause.message


def test_an_entry_gate_without_data_stops_the_time_and_passes_nothing():
    world = before_second(UNKNOWN)
    assert (world.weight, world.last.reason) == (50, Reason.NO_DATA)
    world.entries = OPEN
    assert world.run().state.stage == "second"


def test_the_first_stage_waits_at_nothing_for_its_entry_gates_for_as_long_as_it_takes():
    world = before_first(CLOSED)
    for _ in range(50):
        world.look()
        world.now += 600
    assert (world.weight, world.state.wanted, world.state.pause) == (0, 0, None)
    assert world.last.reason is Reason.ENTRY_GATE
    assert world.last.message == "Holding 0% before stage first: its entry gates do not hold yet (see verdicts)"
    world.entries = OPEN
    assert world.run().weight == 50


def test_before_the_first_stage_gates_are_asked_although_nothing_serves():
    assert before_first(CLOSED).last.evaluating
    assert not World(spec=spec(stages=STAGES)).run().release().look().evaluating


def test_an_entry_gate_is_asked_at_the_moment_of_the_raise_and_not_before():
    world = before_first(OPEN)
    world = World(spec=world.spec, entries=OPEN).run()
    world.release()
    for _ in range(6):
        world.look(evaluate=False)
    assert (world.weight, world.state.wanted) == (0, 0), "nobody has evaluated anything"
    assert world.run().weight == 50


def test_rules_that_fail_before_anything_serves_condemn_nobody():
    world = before_first(CLOSED)
    world.rules = FAIL
    world.run()
    assert world.state.halts == ()
    assert world.state.phase is Phase.PREPARING


def test_a_person_goes_past_an_entry_gate_by_command():
    world = before_second(CLOSED)
    world.say(Verb.PROMOTE).run()
    assert world.state.stage == "second"


def test_back_in_a_stage_it_was_in_a_rollout_does_not_ask_its_entry_gates_again():
    world = before_second(OPEN).run()
    world.say(Verb.SET_WEIGHT, weight="3%").run()
    world.say(Verb.RESUME).run()
    assert world.state.stage == "first", "3 % is above the first stage and below the second"
    world.entries = CLOSED
    assert world.run(60.0).run().state.stage == "first", "so the second is entered again, and asks"


# -- the gate of the comparison ----------------------------------------------------------------------------------------

HOLD = verdict(Outcome.NONE, rule="promotion", action=None, lack=Lack.NOT_ENOUGH)


def test_no_stage_is_left_before_the_comparison_lets_it_go():
    world = at_stage("second")
    world.promotion = HOLD
    world.run(60.0).run()
    assert (world.weight, world.last.reason) == (500, Reason.PROMOTION_GATE)
    assert "the comparison with stable does not let it go on yet" in world.message
    world.promotion = verdict(rule="promotion", action=None)
    assert world.run().weight == 2500


def test_a_comparison_that_never_lets_go_asks_a_person():
    world = at_stage("second")
    world.promotion = HOLD
    world.run(60.0).run(180.0).run()
    assert world.state.pause.reason is Reason.PAUSED_NOT_ENOUGH


def test_how_many_requests_are_enough_is_for_the_comparison_to_say():
    few = replace(verdict(Outcome.NONE, lack=Lack.NOT_ENOUGH), few=True)
    world = at_stage("second")
    world.rules = (few,)
    world.promotion = HOLD
    world.run(60.0).run()
    assert (world.weight, world.last.reason) == (500, Reason.PROMOTION_GATE)
    world.promotion = verdict(rule="promotion", action=None)
    assert world.run().weight == 2500, "a window of five minutes never has a hundred at this traffic"
    world.promotion = None
    world.run(60.0).run()
    assert (world.weight, world.last.reason) == (2500, Reason.NOT_ENOUGH_REQUESTS), (
        "without a comparison the rules count"
    )


# -- its tests ---------------------------------------------------------------------------------------------------------


def test_a_test_that_fails_rolls_back_as_a_rule_does():
    world = at_stage("second")
    world.tests = (verdict(Outcome.FAIL, rule="error-comparison"),)
    decision = world.look()
    assert decision.latch
    assert world.weight == 0
    assert world.state.halts[0].rule == "error-comparison"


def test_a_test_may_pause_or_tell_instead():
    world = at_stage("second")
    world.tests = (
        verdict(Outcome.FAIL, rule="latency-comparison", action=Action.PAUSE),
        verdict(Outcome.FAIL, rule="gauge-comparison", action=Action.ALERT),
    )
    world.look()
    assert (world.state.pause.rule, world.weight) == ("latency-comparison", 500)
    assert world.events.count(Reason.RULE_ALERT) == 1


def test_a_test_that_is_not_sure_yet_leaves_the_decision_to_the_gate():
    world = at_stage("second")
    world.tests = (verdict(Outcome.NONE, rule="latency-comparison", lack=Lack.NOT_ENOUGH),)
    assert world.run(60.0).run().weight == 2500


def test_a_comparison_without_data_holds():
    world = at_stage("second")
    world.tests = (verdict(Outcome.NONE, rule="error-comparison", lack=Lack.NO_DATA),)
    assert world.run(60.0).run().weight == 500
    assert world.state.no_data_since is not None


def test_rules_and_tests_and_gates_are_all_listed():
    world = held()
    world.tests = (verdict(rule="error-comparison"),)
    world.entries, world.promotion = OPEN, HOLD
    world.rules = (*PASS, *NOT_ENOUGH)
    world.look()
    assert [found.rule for found in world.status.verdicts] == [
        "error-comparison",
        "error-rate",
        "error-rate",
        "slos",
        "promotion",
    ]
