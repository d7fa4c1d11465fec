"""What is lost: a status, a latch, a lowering, a raise; and what an operator makes of what it finds."""

from dataclasses import replace

from world import FAIL, PASS, V1, V2, V3, World, at_stage, ready

from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.route import Latch
from canary_rollout.model.status import RolloutState


def test_a_route_found_lower_at_the_start_is_a_halt_until_retry():
    world = at_stage("second")
    world.foreign(0)
    world.route = replace(world.route, contested_by="", confirmed=True)
    world.at_start = True
    world.look()
    assert world.state.halt_of(V2).reason is Reason.ROUTE_LOWERED
    world.run(31)
    assert (world.state.phase, world.weight) == (Phase.HALTED, 0)
    world.say(Verb.RETRY).run()
    assert world.weight == 50


def test_a_route_that_is_gone_at_the_start_is_a_halt_too():
    world = at_stage("second")
    world.route, world.at_start = None, True
    assert world.look().latch


def test_a_lowering_that_was_recorded_is_no_halt_at_the_start():
    world = at_stage("second").say(Verb.SET_WEIGHT, weight="1%")
    world.look()
    world.look()
    world.at_start = True
    world.state = world.state.model_copy(update={"confirmed": 500})
    assert not world.look().latch
    assert world.weight == 100


def test_a_raise_ordered_before_a_lowering_was_confirmed_is_no_halt_at_the_start():
    world = at_stage("third")
    world.say(Verb.SET_WEIGHT, weight="5%").look()
    world.confirms = False
    world.look()
    world.say(Verb.SET_WEIGHT, weight="10%").look()
    assert (world.weight, world.state.wanted) == (500, 1000)
    world.at_start = True
    world.look()
    assert world.state.phase is Phase.PAUSED, world.message
    assert world.weight == 1000


def test_a_raise_that_was_not_written_before_the_end_is_no_halt_at_the_start():
    world = at_stage("second").say(Verb.PROMOTE)
    world.look()
    world.at_start = True
    assert not world.look().latch
    assert world.weight == 2500


def test_a_latch_whose_status_write_was_lost_is_taken_from_the_route():
    world = at_stage("second")
    before = world.state
    world.rules = FAIL
    world.look()
    world.state, world.at_start, world.rules = before, True, PASS
    halted_at = world.now
    world.now += 5
    decision = world.look()
    assert decision.latch
    assert (world.state.halt_of(V2).at, world.state.halt_of(V2).rule) == (halted_at, "error-rate")
    world.run(1000)
    assert world.weight == 0


def test_a_lowering_that_was_lost_is_written_again_from_the_status():
    world = at_stage("second")
    route = world.route
    world.rules = FAIL
    world.look()
    world.route, world.rules, world.at_start = route, PASS, True
    world.run()
    assert (world.weight, world.route.latch.revision) == (0, V2)


def test_a_lost_status_with_a_latch_on_the_route_condemns_the_revision():
    world = at_stage("second")
    world.rules = FAIL
    world.run(31)
    world.rules = PASS
    world.state = RolloutState()
    world.run(1000)
    assert (world.weight, world.state.phase) == (0, Phase.ROLLED_BACK)
    assert world.state.halt_of(V2).rule == "error-rate"


def test_a_lost_status_with_a_latch_and_traffic_lowers_at_once():
    world = at_stage("second")
    world.route = replace(world.route, latch=Latch(V2, "error-rate", "20 % failed", world.now - 1))
    world.state = RolloutState()
    assert world.look().latch
    assert world.weight == 0
    world.run(29)
    assert world.canary.paused, "what it serves drains first"
    world.run(2)
    assert world.state.phase is Phase.ROLLED_BACK


def test_a_lost_status_keeps_the_verdict_about_a_revision_that_is_not_there_now():
    world = at_stage("second")
    world.rules = FAIL
    world.run(31)
    world.rules = PASS
    world.release(V1).look()
    world.route = replace(world.route, latch=Latch(V2, "error-rate", "20 % failed", world.now - 1))
    world.state = RolloutState()
    world.run()
    world.release(V2).run(1000)
    assert (world.weight, world.state.phase) == (0, Phase.ROLLED_BACK)


def test_a_latch_that_cannot_be_read_condemns_what_is_there():
    world = at_stage("second")
    world.route = replace(world.route, latch=Latch("", "unreadable", "the annotation does not parse", 0.0))
    world.state = RolloutState()
    assert world.look().latch
    assert world.state.halt_of(V2) is not None


def test_a_latch_that_cannot_be_read_does_not_condemn_stable():
    world = World().run()
    world.route = replace(world.route, latch=Latch("", "unreadable", "the annotation does not parse", 0.0))
    world.state = RolloutState()
    world.run()
    assert (world.state.phase, world.state.halts) == (Phase.IDLE, ())


def test_a_late_verdict_about_another_revision_is_remembered_and_stops_nobody_else():
    world = at_stage("second")
    world.route = replace(world.route, latch=Latch(V3, "", "pods crashed", world.now))
    assert not world.look().latch
    assert world.state.halt_of(V3).reason is Reason.HALTED


def test_a_latch_from_before_a_retry_counts_no_more():
    world = at_stage("second")
    world.rules = FAIL
    world.run(31)
    world.rules = PASS
    latch = world.route.latch
    world.now += 10
    world.say(Verb.RETRY).run()
    world.route = replace(world.route, latch=latch)
    world.run()
    assert (world.weight, world.route.latch) == (50, None)


def test_a_late_latch_does_not_stop_a_revision_that_is_being_promoted_home():
    world = at_stage("all")
    while world.state.phase is not Phase.RETURNING:
        world.now += 30
        world.look()
    world.route = replace(world.route, latch=Latch(V2, "error-rate", "late", world.now))
    world.run(31)
    assert world.state.phase is Phase.SUCCEEDED


def test_a_lost_status_while_serving_begins_again_from_0_and_drains():
    world = at_stage("third")
    world.state = RolloutState()
    world.look(evaluate=False)
    world.run()
    assert (world.weight, world.state.phase, world.last.reason) == (0, Phase.PREPARING, Reason.DRAINING)
    world.run(31)
    assert (world.weight, world.state.stage) == (50, "first")


def test_a_lost_status_with_the_canary_back_at_stables_template_drains_before_it_lets_go():
    world = at_stage("second")
    world.state, world.stable = RolloutState(), ready(V2)
    world.run(20)
    assert (world.weight, world.canary.paused) == (0, True)
    world.run(11)
    assert (world.state.phase, world.canary.paused) == (Phase.IDLE, False)
