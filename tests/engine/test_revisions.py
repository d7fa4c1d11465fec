"""New revisions at any time: while serving, while promoting, back to stable's; and how a promotion goes home."""

from dataclasses import replace

from world import V1, V2, V3, World, at_stage, ready, spec

from canary_rollout.engine.decision import CopyTemplate, HoldPause, Lower, ReleasePause
from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.status import RolloutState

MANUAL = {
    "stable": {"service": "shop", "deployment": "shop"},
    "canary": {"service": "shop-canary", "deployment": "shop-canary"},
    "drain": "30s",
    "promotion": "Manual",
}


def promoting(**changes) -> World:
    world = at_stage("all", **changes)
    world.now += 60
    world.look()
    return world


# -- superseded


def test_a_new_revision_while_serving_waits_for_a_confirmed_zero_before_its_pods_are_made():
    world = at_stage("second").release(V3)
    world.look()
    assert (world.state.wanted, world.weight, world.state.lowering.reason) == (0, 500, Reason.NEW_REVISION)
    world.confirm(yes=False)
    world.run(100)
    assert (world.weight, world.canary.paused) == (0, True)
    world.confirm().run(29)
    assert world.canary.paused, "requests under way on the old pods end first"
    world.run(2)
    assert (world.weight, world.state.revision, world.canary.revision) == (50, V3, V3)
    assert world.weights[-3:] == [500, 0, 50]


def test_a_revision_that_is_replaced_leaves_a_line_in_the_history():
    world = at_stage("second").release(V3).run()
    assert (world.history[0].result, world.history[0].revision) == ("Superseded", V2)
    assert f"revision {V3} took its place at 5%" in world.history[0].message


def test_a_third_revision_during_the_drain_waits_for_it_too():
    world = at_stage("second").release(V3).run(20)
    world.release("d" * 10).run(29)
    assert world.canary.paused
    world.run(2)
    assert world.state.revision == "d" * 10
    assert world.weight == 50


def test_a_template_changed_and_unpaused_by_somebody_is_held_at_once():
    world = at_stage("second")
    world.canary = replace(world.canary, revision=V3, paused=False, paused_by_us=False, settled=False)
    assert HoldPause() in world.look().actions
    world.run()
    assert world.weight == 0


def test_a_revert_to_stables_template_drains_and_ends_idle():
    world = at_stage("second").release(V1)
    world.run(20)
    assert (world.weight, world.state.phase, world.last.reason) == (0, Phase.RETURNING, Reason.DRAINING)
    assert world.canary.paused
    world.run(11)
    assert (world.state.phase, world.canary.paused, world.state.lowering) == (Phase.IDLE, False, None)
    assert world.events[-1] == Reason.NEW_REVISION


def test_a_revert_before_anything_served_ends_idle_at_once():
    world = World().run().release()
    world.look()
    world.release(V1).run()
    assert world.state.phase is Phase.IDLE


def test_a_revision_that_is_replaced_before_it_served_needs_no_drain():
    world = World().run()
    world.canary = ready(V2, settled=False, available=1)
    world.run()
    world.canary = ready(V3)
    world.run()
    assert (world.weight, world.state.revision) == (50, V3)


def test_the_pause_is_only_given_back_once_the_route_names_the_new_revision():
    """A raise for the old one that is still on its way is then refused by its fence."""
    world = at_stage("second").say(Verb.SET_WEIGHT, weight="0%").run(100)
    world.release(V3)
    seen = []
    for _ in range(6):
        world.look()
        seen += [type(action) for action in world.last.actions]
        world.now += 20
        if ReleasePause in seen:
            break
    assert seen.index(Lower) < seen.index(ReleasePause)
    assert world.route.revision == V3


# -- only stable changes


def test_a_change_of_stable_alone_rolls_nothing_out():
    world = World().run()
    world.stable = ready(V3)
    world.run(1000)
    assert (world.weight, world.state.phase) == (0, Phase.IDLE)
    assert f"Somebody changed it to revision {V3}" in world.message
    world.release(V2).run()
    assert world.weight == 50


def test_stable_changed_by_somebody_after_a_success_is_said_and_rolls_nothing_out():
    world = promoting().run(31)
    assert world.state.phase is Phase.SUCCEEDED
    world.stable = ready(V1)
    world.run(1000)
    assert (world.weight, world.state.phase) == (0, Phase.SUCCEEDED)
    assert f"Somebody changed it to revision {V1}" in world.message


def test_both_changed_together_means_idle_at_the_new_revision():
    world = promoting().run(31)
    world.stable, world.canary = ready(V3), replace(world.canary, revision=V3)
    world.run()
    assert (world.state.phase, world.state.revision) == (Phase.IDLE, V3)


def test_a_rollout_created_with_a_new_canary_begins():
    world = World(canary=ready(V2)).run()
    assert world.weight == 50


# -- promotion


def test_copying_the_template_is_persisted_as_intent_before_it_is_done():
    world = at_stage("all")
    world.now += 60
    assert not any(isinstance(action, CopyTemplate) for action in world.look().actions)
    assert world.state.phase is Phase.PROMOTING
    assert CopyTemplate(V2) in world.look().actions


def test_traffic_stays_on_the_canary_until_stable_is_updated_on_all_pods():
    world = promoting()
    world.stable = ready(V2, settled=False)
    world.run(500)
    assert (world.weight, world.state.phase) == (10_000, Phase.PROMOTING)
    assert "until all are ready" in world.message
    world.run(200)
    assert world.last.stalled
    assert world.last.reason is Reason.PROGRESS_DEADLINE
    assert world.weight == 10_000
    world.stable = ready(V2)
    world.run(10)
    assert (world.weight, world.state.phase, world.canary.paused) == (0, Phase.RETURNING, True)
    world.run(21)
    assert (world.state.phase, world.canary.paused) == (Phase.SUCCEEDED, False)
    assert world.history[0].result == "Succeeded"


def test_the_last_requests_of_a_promoted_canary_drain_although_it_was_prepared_over_a_drain():
    world = at_stage("second").release(V3).run(31)
    world.say(Verb.PROMOTE, full=True).run(60)
    world.run(20)
    assert (world.state.phase, world.canary.paused) == (Phase.RETURNING, True)
    world.run(11)
    assert world.state.phase is Phase.SUCCEEDED


def test_manual_promotion_waits_for_the_users_own_change():
    world = promoting(spec=spec(workload=MANUAL))
    world.run(10_000)
    assert (world.weight, world.state.phase, world.stable.revision) == (10_000, Phase.AWAITING_PROMOTION, V1)
    assert "bring Deployment shop to the same template" in world.message
    assert not world.last.stalled
    world.stable = ready(V2, settled=False)
    world.run(10)
    assert (world.weight, world.state.phase) == (10_000, Phase.PROMOTING)
    world.stable = ready(V1)
    world.run()
    assert world.state.phase is Phase.AWAITING_PROMOTION
    world.stable = ready(V2)
    world.run(31)
    assert world.state.phase is Phase.SUCCEEDED


def test_promotion_changed_from_manual_to_copy_goes_on_by_itself():
    world = promoting(spec=spec(workload=MANUAL))
    world.run(100)
    world.spec = spec(workload={**MANUAL, "promotion": "CopyTemplate"})
    world.run(31)
    assert (world.state.phase, world.stable.revision) == (Phase.SUCCEEDED, V2)


def test_a_revision_that_appears_during_promotion_is_queued_and_begins_after_it():
    world = promoting(spec=spec(workload=MANUAL)).release(V3).run(1000)
    assert (world.weight, world.state.revision, world.state.phase) == (10_000, V2, Phase.AWAITING_PROMOTION)
    assert f"Revision {V3} is queued" in world.message
    assert world.canary.paused
    world.stable = ready(V2)
    world.run(20)
    assert (world.weight, world.canary.paused) == (0, True)
    world.run(11)
    assert (world.state.revision, world.weight) == (V3, 50)
    assert world.history[0].revision == V2


def test_a_queued_revision_does_not_keep_a_lowered_route_from_being_written_again():
    world = promoting(spec=spec(workload=MANUAL)).release(V3).run()
    world.foreign(5000)
    world.run()
    assert world.weight == 10_000


def test_promotion_survives_a_crash_of_the_canary_by_rolling_back():
    world = promoting(spec=spec(workload=MANUAL))
    world.canary = replace(world.canary, crash="pod x: OOMKilled")
    assert world.look().latch
    world.run(31)
    assert (world.state.phase, world.weight, world.stable.revision) == (Phase.ROLLED_BACK, 0, V1)


def test_the_confirmation_of_100_percent_during_promotion_is_remembered():
    world = promoting(spec=spec(workload=MANUAL))
    world.state = world.state.model_copy(update={"confirmed": 2500})
    world.look()
    assert world.state.confirmed == 10_000


def test_a_status_that_is_lost_at_rest_costs_nothing():
    world = World().run()
    world.state = RolloutState()
    world.run()
    assert (world.state.phase, world.weights) == (Phase.IDLE, [0])
