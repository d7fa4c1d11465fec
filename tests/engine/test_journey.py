"""From a new revision to 100 %: preparing, holding, what keeps it at a stage."""

from dataclasses import replace

import pytest
from world import FAIL, NO_DATA, NOT_ENOUGH, PASS, V2, World, at_stage, ready, spec, stages, verdict

from canary_rollout.analysis.verdict import Assessment, Lack, Outcome
from canary_rollout.engine.decide import decide
from canary_rollout.engine.decision import Lower, Raise, ReleasePause, ScaleCanary
from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action


def workload(**more):
    return {
        "stable": {"service": "shop", "deployment": "shop"},
        "canary": {"service": "shop-canary", "deployment": "shop-canary"},
        "drain": "30s",
        **more,
    }


# -- beginning


def test_a_canary_equal_to_stable_means_weight_0_and_nothing_to_do():
    world = World().run()
    assert (world.state.phase, world.weight, world.last.wake_at) == (Phase.IDLE, 0, None)
    assert not world.last.evaluating


def test_a_good_revision_goes_through_every_stage_and_becomes_stable():
    world = World().run().release().run()
    for _ in range(6):
        world.run(60)
    assert world.weights == [0, 0, 50, 500, 2500, 10_000, 0]
    assert (world.state.phase, world.stable.revision, world.canary.paused) == (Phase.SUCCEEDED, V2, False)
    assert [entry.result for entry in world.history] == ["Succeeded"]
    assert world.events[0] == Reason.NEW_REVISION
    assert world.events[-2:] == [Reason.PROMOTED, Reason.SUCCEEDED]


def test_the_intent_is_persisted_before_the_route_is_raised():
    world = World().run().release()
    while world.state.wanted == 0:
        assert not any(isinstance(action, Raise) for action in world.look().actions)
    assert world.weight == 0
    assert any(isinstance(action, Raise) for action in world.look().actions)


def test_a_raise_carries_the_resource_version_it_was_decided_on():
    world = World().run().release()
    while world.state.wanted == 0:
        world.look()
    raised = next(action for action in world.look().actions if isinstance(action, Raise))
    assert raised.fence == str(world.version - 1)


def test_the_template_is_held_before_the_first_raise():
    world = World().run().release().run()
    assert world.canary.paused_by_us
    assert world.weight == 50


def test_a_time_only_counts_from_the_moment_the_data_plane_has_the_weight():
    world = World().run().release()
    while world.weight == 0:
        world.look()
    world.confirm(yes=False)
    world.run(500)
    assert (world.weight, world.state.clock.elapsed(world.now), world.state.confirmed) == (50, 0.0, 0)
    assert world.last.reason is Reason.WAITING_FOR_ROUTE
    world.confirm().run()
    assert (world.weight, world.state.clock.since) == (50, world.now)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observed": False, "settled": False}, "is being updated"),
        ({"settled": False, "available": 1}, "1 of 2 pods"),
        ({"leaving": 1}, "1 pod of the template before is still leaving"),
        ({"leaving": 2}, "2 pods of the template before are still leaving"),
        ({"settled": False, "available": 0, "replicas": 0}, "has 0 replicas"),
        ({"settled": False, "paused": True}, "paused by somebody else"),
        ({"settled": False, "crash": "pod x: CrashLoopBackOff"}, "CrashLoopBackOff"),
    ],
)
def test_what_preparing_waits_for_is_said_and_reported_stalled_at_the_deadline(change, words):
    world = World().run()
    world.canary = ready(V2, **change)
    world.run()
    assert words in world.message
    assert not world.last.stalled
    assert world.last.wake_at == world.now + 600
    world.run(601)
    assert world.last.reason is Reason.PROGRESS_DEADLINE
    assert world.last.stalled
    assert words in world.message
    assert world.weight == 0


def test_a_rollout_goes_on_when_its_pods_come_up_after_the_deadline():
    world = World().run()
    world.canary = ready(V2, settled=False, available=1)
    world.run(700)
    world.canary = ready(V2)
    world.run()
    assert world.weight == 50


def test_preparing_waits_for_a_confirmed_zero_before_it_touches_the_canary():
    world = World().run()
    world.confirm(yes=False)
    world.release().run()
    assert not world.canary.paused
    assert "serves stable only" in world.message
    world.run(601)
    assert world.last.stalled


def test_the_canary_is_scaled_up_before_and_put_to_sleep_after():
    scaling = workload(canary={**workload()["canary"], "scaling": {"replicas": 4, "idleReplicas": 1}})
    world = World(spec=spec(workload=scaling)).run()
    assert world.scaled == [1]
    world.canary = ready(V2, replicas=1, available=1)
    world.run()
    assert world.scaled == [1, 4]
    assert world.weight == 50
    world.rules = FAIL
    world.run().run(31)
    assert world.scaled == [1, 4, 1]


def test_a_canary_that_has_too_few_pods_is_scaled_although_it_is_settled():
    scaling = workload(canary={**workload()["canary"], "scaling": {"replicas": 4, "idleReplicas": 2}})
    world = World(spec=spec(workload=scaling)).run().release()
    while not (actions := [action for action in world.look().actions if isinstance(action, ScaleCanary)]):
        assert world.weight == 0
    assert actions == [ScaleCanary(4)]
    assert ReleasePause() not in world.last.actions


# -- holding


def test_a_held_stage_says_until_when_and_what_comes_next():
    world = at_stage("second")
    assert "Holding 5% in stage second until" in world.message
    assert "then stage third (25%)" in world.message
    assert world.last.next_change == world.last.wake_at == world.now + 60
    assert world.last.evaluating


def test_the_last_stage_says_that_promotion_is_next():
    assert "then promotion" in at_stage("all").message


def test_spec_paused_holds_the_weight_and_stops_the_clock():
    world = at_stage("second").run(30)
    world.spec = spec(paused=True)
    world.run(1000)
    assert (world.weight, world.state.phase, world.last.reason) == (500, Phase.PAUSED, Reason.PAUSED_BY_SPEC)
    world.spec = spec()
    world.run()
    assert world.state.phase is Phase.PROGRESSING
    assert world.last.wake_at == pytest.approx(world.now + 30, abs=0.01)


def test_a_rollout_that_begins_paused_prepares_and_waits_at_zero():
    world = World(spec=spec(paused=True)).run().release().run()
    assert (world.weight, world.state.phase, world.canary.paused_by_us) == (0, Phase.PREPARING, True)
    assert "Paused at 0%" in world.message
    world.spec = spec()
    world.run()
    assert world.weight == 50


def test_verdicts_from_before_the_weight_was_confirmed_decide_nothing():
    world = at_stage("second")
    world.now += 60
    old = Assessment(world.now - 61, PASS, ())
    decision = decide(world.spec, world.state, replace(world.observe(), assessment=old), world.now)
    assert decision.state.wanted == 500


def test_the_end_of_a_hold_waits_for_an_evaluation_and_keeps_its_words_meanwhile():
    world = at_stage("second")
    world.now += 61
    decision = world.look(evaluate=False)
    assert decision.message is None
    assert (world.state.phase, decision.wake_at) == (Phase.PROGRESSING, world.now + 10)
    assert world.run().weight == 2500


def test_an_unpaused_rollout_whose_time_is_over_says_what_it_waits_for():
    world = at_stage("second")
    world.now += 59.9
    world.spec = spec(paused=True)
    world.look()
    world.now += 10
    world.spec = spec(stages=stages(("second", {"hold": "30s"})))
    world.look(evaluate=False)
    assert "the next evaluation decides" in world.message


# -- no data


def test_missing_data_holds_the_weight_and_stops_the_time():
    world = at_stage("second")
    world.run(30)
    world.rules = NO_DATA
    world.run(800)
    assert (world.weight, world.state.phase, world.last.reason) == (500, Phase.PROGRESSING, Reason.NO_DATA)
    assert world.state.clock.elapsed(world.now) == pytest.approx(30, abs=0.1)
    assert world.events.count(Reason.NO_DATA) == 1


def test_missing_data_pauses_after_its_time_and_the_pause_ends_by_itself():
    world = at_stage("second")
    world.rules = NO_DATA
    world.run(1000)
    assert (world.weight, world.state.phase, world.last.reason) == (500, Phase.PAUSED, Reason.PAUSED_NO_DATA)
    assert world.state.pause is None
    assert world.events.count(Reason.PAUSED_NO_DATA) == 1
    world.rules = PASS
    world.run()
    assert (world.weight, world.state.phase) == (500, Phase.PROGRESSING)
    world.run(60).run()
    assert world.weight == 2500


def test_missing_data_of_an_alert_holds_nothing():
    world = at_stage("second", rules=(verdict(Outcome.NONE, action=Action.ALERT, lack=Lack.NO_DATA),))
    assert world.run(60).run().weight == 2500


def test_a_gate_without_data_holds_until_there_is_some_and_asks_nobody():
    world = at_stage("second")
    world.exits = (verdict(Outcome.NONE, rule="latency-p75", action=None, lack=Lack.NO_DATA),)
    world.run(2000)
    assert (world.weight, world.state.pause, world.last.reason) == (500, None, Reason.PAUSED_NO_DATA)
    world.exits = (verdict(rule="latency-p75", action=None),)
    assert world.run(10).run().weight == 2500


# -- not enough, gates, breaches


def test_too_few_requests_extend_the_hold_and_then_ask_a_person():
    world = at_stage("second")
    world.rules = NOT_ENOUGH
    world.run(100)
    assert (world.last.reason, world.weight) == (Reason.NOT_ENOUGH_REQUESTS, 500)
    assert "beyond its time" in world.message
    world.run(81)
    assert (world.state.phase, world.last.reason) == (Phase.PAUSED, Reason.PAUSED_NOT_ENOUGH)
    world.rules = PASS
    world.run(5000)
    assert world.weight == 500
    world.say(Verb.RESUME).run()
    assert world.weight == 500, "after a pause the rollout asked for, the weight is held for its whole time again"
    assert world.run(60).run().weight == 2500


def test_enough_requests_within_the_extension_go_on_without_anybody():
    world = at_stage("second")
    world.rules = NOT_ENOUGH
    world.run(100)
    world.rules = PASS
    assert world.run().weight == 2500


@pytest.mark.parametrize("outcome", [verdict(Outcome.FAIL, action=None), verdict(Outcome.NONE, action=None)])
def test_a_gate_that_does_not_hold_stops_the_way_up_and_pauses_in_the_end(outcome):
    world = at_stage("second")
    world.exits = (outcome,)
    world.run(100)
    assert world.weight == 500
    world.run(100)
    assert world.state.phase is Phase.PAUSED
    assert world.state.halts == ()


def test_a_rule_or_gate_that_does_not_apply_holds_nothing():
    inactive = verdict(Outcome.NONE, lack=Lack.NOT_APPLICABLE)
    world = at_stage("second", rules=(inactive,))
    world.exits = (replace(inactive, action=None),)
    assert world.run(60).run().weight == 2500


def test_a_breach_that_has_not_lasted_long_enough_to_fail_keeps_the_weight_down():
    world = at_stage("second")
    world.rules = (verdict(Outcome.NONE, lack=Lack.NOT_ENOUGH, since=world.now),)
    world.run(100)
    assert "a halt rule is breached" in world.message
    world.run(100)
    assert world.state.pause.reason is Reason.PAUSED_BY_RULE


def test_a_stage_is_not_left_while_not_all_pods_are_ready():
    world = at_stage("second")
    world.canary = replace(world.canary, available=1, settled=False)
    world.run(61)
    assert (world.weight, world.last.reason) == (500, Reason.CANARY_NOT_READY)
    world.canary = replace(world.canary, available=2, settled=True)
    assert world.run().weight == 2500


def test_an_unneeded_hold_of_the_route_is_not_written_again():
    world = at_stage("second")
    before = world.version
    for _ in range(10):
        world.look()
    assert world.version == before
    assert not any(isinstance(action, Lower) for action in world.last.actions)


def test_what_nobody_watched_is_not_held_against_a_stage():
    world = at_stage("second")
    world.rules = NOT_ENOUGH
    world.now += 500.0  # the operator was away for longer than maxHold (three times 60 s)
    seen = replace(world.observe(), watched_from=world.now)
    decision = decide(world.spec, world.state, seen, world.now)
    assert (decision.state.phase, decision.state.pause) == (Phase.PROGRESSING, None)
    assert decision.wake_at == world.now + 120.0
    late = replace(world.observe(), watched_from=world.now - 120.0)
    assert decide(world.spec, world.state, late, world.now).state.pause.reason is Reason.PAUSED_NOT_ENOUGH
