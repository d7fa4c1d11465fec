"""What stops a rollout, at once and for good; and how it ends."""

from dataclasses import replace

import pytest
from world import FAIL, NO_DATA, NOT_ENOUGH, PASS, V1, V2, V3, World, at_stage, ready, spec, verdict

from canary_rollout.analysis.verdict import Assessment, Outcome
from canary_rollout.engine.decide import decide
from canary_rollout.engine.decision import HoldPause, Lower, ReleasePause, RestoreStable
from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action

ALERT = (verdict(Outcome.FAIL, rule="denials", action=Action.ALERT),)
STICKY = {"nginx": {"service": "proxy"}, "sticky": {"header": "X-Tenant-ID", "fallback": "clientIP"}}
COHORT = {"header": "X-Cohort", "values": ["internal"]}


def test_a_failing_rule_lowers_to_0_and_latches_in_one_decision():
    world = at_stage("second")
    world.rules = FAIL
    decision = world.look()
    assert decision.latch
    assert decision.actions[0] == Lower(world_route(world, 0), None)
    halt = world.state.halt_of(V2)
    assert (halt.rule, halt.reason, halt.weight, halt.stage) == ("error-rate", Reason.RULE_FAILED, 500, "second")
    assert world.route.latch.revision == V2
    assert "20 % of 240 requests failed" in world.message


def world_route(world, weight):
    from canary_rollout.model.route import Route

    return Route(weight, V2, V1, None, world.route.latch)


def test_a_rollback_is_confirmed_drained_and_then_lets_go_in_this_order():
    world = at_stage("second")
    world.rules = FAIL
    world.look()
    world.confirm(yes=False)
    world.run(100)
    assert (world.state.phase, world.canary.paused) == (Phase.ROLLING_BACK, True)
    world.confirm()
    world.run(29)
    assert (world.state.phase, world.canary.paused, world.last.next_change) == (
        Phase.ROLLING_BACK,
        True,
        world.state.drain_until,
    )
    world.run(2)
    assert (world.state.phase, world.canary.paused) == (Phase.ROLLED_BACK, False)


def test_somebody_who_gives_the_canary_traffic_while_it_drains_begins_the_drain_anew():
    world = at_stage("second")
    world.rules = FAIL
    world.run(20)
    world.foreign(5000)
    world.run(29)
    assert (world.weight, world.state.phase) == (0, Phase.ROLLING_BACK)
    world.run(2)
    assert world.state.phase is Phase.ROLLED_BACK


def test_a_rolled_back_revision_stays_at_0_whatever_its_rules_say_later():
    world = at_stage("second")
    world.rules = FAIL
    world.run(31)
    world.rules = PASS
    world.run(1_000_000)
    assert (world.weight, world.state.phase, world.last.wake_at) == (0, Phase.ROLLED_BACK, None)
    assert "until `retry` or a new revision" in world.message


def test_a_stopped_revision_that_comes_back_after_another_is_still_stopped():
    world = at_stage("second")
    world.rules = FAIL
    world.run(31)
    world.rules = PASS
    world.release(V3).run()
    assert world.weight == 50
    world.release(V2).run(100)
    assert (world.weight, world.state.phase, world.state.revision) == (0, Phase.ROLLED_BACK, V2)
    assert world.history[0].result == "Superseded"


def test_a_stopped_revision_that_comes_back_from_rest_is_still_stopped():
    world = at_stage("second")
    world.rules = FAIL
    world.run(31)
    world.release(V1).run()
    assert world.state.phase is Phase.IDLE
    world.rules = PASS
    world.release(V2).run(1000)
    assert (world.weight, world.state.phase) == (0, Phase.ROLLED_BACK)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crash": "pod x, container app: CrashLoopBackOff, 3 restarts"}, "CrashLoopBackOff"),
        ({"available": 0, "settled": False}, "none of the 2 pods"),
        ({"exists": False}, "is gone while it served"),
    ],
)
@pytest.mark.parametrize("stage", ["first", "all"])
def test_pods_that_break_while_they_serve_stop_it_at_once_and_for_good(stage, change, words):
    world = at_stage(stage)
    world.canary = replace(world.canary, **change)
    assert world.look(evaluate=False).latch
    assert world.weight == 0
    assert words in world.state.halt_of(V2).message
    world.canary = ready(V2, paused=True, paused_by_us=True)
    world.run(1000)
    assert (world.weight, world.state.phase) == (0, Phase.ROLLED_BACK)


def test_pods_that_break_before_they_serve_only_keep_it_from_beginning():
    world = World().run()
    world.canary = ready(V2, crash="pod x: CrashLoopBackOff", settled=False)
    world.run(100)
    assert (world.state.phase, world.state.halts, world.weight) == (Phase.PREPARING, (), 0)


@pytest.mark.parametrize("rules", [NO_DATA, NOT_ENOUGH, None])
def test_missing_data_rolls_nothing_back(rules):
    world = at_stage("second")
    world.rules = rules
    world.run(100_000, looks=20_000)
    assert (world.weight, world.state.halts) == (500, ())


def test_a_verdict_about_the_revision_before_condemns_nobody_else():
    world = at_stage("second")
    world.release(V3).look(evaluate=False)
    world.rules = FAIL
    world.look()
    assert world.state.halts == ()
    assert world.state.revision == V3


def test_a_verdict_on_samples_from_before_a_reset_counts_no_more():
    world = at_stage("second").say(Verb.RESET)
    world.look()
    late = replace(world.observe(), assessment=Assessment(world.now - 1, FAIL, ()))
    assert not decide(world.spec, world.state, late, world.now).latch


# -- pause and alert rules


def test_an_alert_is_told_once_and_blocks_nothing():
    world = at_stage("second")
    world.rules = (*PASS, *ALERT)
    world.look()
    assert world.events.count(Reason.RULE_ALERT) == 1
    world.failing_before = frozenset({"denials"})
    world.run(60).run()
    assert (world.events.count(Reason.RULE_ALERT), world.weight) == (1, 2500)


def test_a_pausing_rule_is_told_as_an_alert_once_promotion_has_begun():
    world = at_stage("all")
    world.spec = spec(workload={**world.spec.workload.model_dump(mode="json", by_alias=True), "promotion": "Manual"})
    world.run(60).run()
    world.rules = (verdict(Outcome.FAIL, rule="p99", action=Action.PAUSE),)
    world.look()
    assert (world.state.phase, world.state.pause) == (Phase.AWAITING_PROMOTION, None)
    assert world.events[-1] == Reason.RULE_ALERT


# -- the share really received


@pytest.mark.parametrize(
    ("share", "requests", "stopped"),
    [(0.16, 10_000, True), (0.14, 10_000, False), (0.9, 500, False), (0.05, 10_000, False)],
)
def test_a_share_far_above_the_weight_is_stopped_when_there_are_enough_requests(share, requests, stopped):
    world = at_stage("second")
    world.now += 60
    world.share = (share, requests)
    assert world.look().latch is stopped
    if stopped:
        assert world.state.halt_of(V2).reason is Reason.SHARE_EXCEEDED
        world.run(31)
        assert world.state.phase is Phase.HALTED
        assert "Halted revision" in world.message
        assert world.history[0].result == "Halted"


@pytest.mark.parametrize(
    "world",
    [
        lambda: at_stage("second", spec=spec(traffic=STICKY)),
        lambda: at_stage("second", spec=spec(stages=with_cohort())),
        lambda: at_stage("all"),
    ],
)
def test_the_share_is_not_judged_where_requests_are_not_split_by_weight(world):
    world = world()
    world.now += 59
    world.share = (1.0, 100_000)
    world.now += 2
    assert not world.look().latch


def with_cohort():
    raw = spec().model_dump(mode="json", by_alias=True)["stages"]
    for stage in raw:
        for name in ("maxHold", "cohort", "approval"):
            if stage.get(name) is None:
                stage.pop(name, None)
    raw[1]["cohort"] = COHORT
    return raw


def test_the_share_is_not_judged_while_the_window_reaches_back_to_another_weight():
    world = at_stage("second")
    world.now += 30
    world.share = (1.0, 100_000)
    assert not world.look().latch


# -- rollback while promoting


def promoting(**changes):
    world = at_stage("all", **changes)
    world.now += 60
    world.look()
    assert world.state.phase is Phase.PROMOTING
    return world


def test_a_rollback_while_promoting_gives_stable_its_own_template_back():
    world = promoting()
    world.look()
    world.stable = replace(world.stable, settled=False)
    world.rules = FAIL
    decision = world.look()
    assert decision.latch
    assert decision.actions[:2] == (decision.actions[0], RestoreStable(V1))
    assert world.weight == 0
    world.rules = PASS
    world.run(31)
    assert (world.state.phase, world.stable.revision) == (Phase.ROLLED_BACK, V1)


def test_a_rollback_while_promoting_gives_stable_the_template_it_got_by_hand_under_way():
    world = promoting()
    world.stable = ready(V3)  # a hotfix of stable
    world.look()
    assert (world.stable.revision, world.state.stable_revision) == (V3, V3), "known before it is written over"
    world.look()
    assert world.stable.revision == V2
    world.stable = replace(world.stable, settled=False)
    world.rules = FAIL
    world.look()
    assert world.stable.revision == V3, "not the template from before the hotfix"


def test_a_rollback_is_not_over_before_stable_has_its_own_template_back():
    world = promoting()
    world.look()
    world.rules = FAIL
    world.stable = ready(V2, settled=False)
    for _ in range(100):
        world.look()
        world.stable = ready(V2, settled=False)  # the write does not take
        world.now += 1
    assert (world.weight, world.state.phase) == (0, Phase.ROLLING_BACK)
    assert RestoreStable(V1) in world.last.actions
    assert "goes back to revision" in world.message
    assert ReleasePause() not in world.last.actions


def test_a_canary_somebody_unpauses_while_it_serves_is_held_again():
    world = at_stage("second")
    world.canary = replace(world.canary, paused=False, paused_by_us=False)
    decision = world.look(evaluate=False)
    assert decision.actions == (HoldPause(),)
    assert world.canary.paused_by_us
    assert world.weight == 500
