"""Raises that wait: for a person's approval, for the moment they are allowed."""

from dataclasses import replace

from world import FAIL, V1, World, at_stage, ready, spec, stages

from canary_rollout.engine.decision import HoldPause
from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.status import RolloutState

# -- approval


APPROVED_SECOND = stages(("second", {"approval": "required"}))


def test_a_stage_that_needs_approval_waits_for_a_person_and_tells_it_once():
    world = at_stage("first", spec=spec(stages=APPROVED_SECOND))
    assert "once approved" in world.message
    world.run(60).run(10_000)
    for _ in range(5):
        world.look(evaluate=False)
        world.look()
    assert (world.weight, world.state.phase) == (50, Phase.AWAITING_APPROVAL)
    assert world.events.count(Reason.AWAITING_APPROVAL) == 1
    world.say(Verb.APPROVE).run()
    assert (world.weight, world.state.approval) == (500, None)


def test_an_approval_given_in_advance_counts_when_the_hold_is_over():
    world = at_stage("first", spec=spec(stages=APPROVED_SECOND))
    world.say(Verb.APPROVE).run()
    assert world.weight == 50
    assert world.run(60).run().weight == 500


def test_an_approval_expires():
    world = at_stage(
        "first", spec=spec(stages=stages(("second", {"approval": "required"}), ("first", {"hold": "25h"})))
    )
    world.say(Verb.APPROVE).run(25 * 3600).run()
    assert (world.weight, world.state.phase) == (50, Phase.AWAITING_APPROVAL)


def test_an_approval_dated_in_the_future_expires_all_the_same():
    world = at_stage(
        "first", spec=spec(stages=stages(("second", {"approval": "required"}), ("first", {"hold": "25h"})))
    )
    world.say(Verb.APPROVE, at=world.now + 1e6).run(25 * 3600).run()
    assert world.weight == 50


def test_the_first_stage_can_need_approval_too():
    world = World(spec=spec(stages=stages(("first", {"approval": "required"})))).run().release().run()
    assert (world.weight, world.state.phase, world.state.stage) == (0, Phase.AWAITING_APPROVAL, "")
    world.confirm(yes=False).run()
    world.confirm().run()
    assert world.events.count(Reason.AWAITING_APPROVAL) == 1
    world.canary = replace(world.canary, paused=False)
    world.look()
    assert HoldPause() in world.last.actions
    world.say(Verb.APPROVE).run()
    assert world.weight == 50


# -- raises that must wait


def test_no_raise_blocks_the_way_up_and_is_looked_at_again():
    world = at_stage("second")
    world.no_raise = "the clock is 3 s off"
    world.run(61)
    assert (world.weight, world.last.reason) == (500, Reason.CLOCK_SKEW)
    assert world.look().wake_at == world.now + 2
    world.no_raise = ""
    assert world.run().weight == 2500


def test_no_raise_blocks_a_raise_that_is_already_wanted():
    world = at_stage("second")
    world.say(Verb.PROMOTE).look()
    world.no_raise = "the Lease may have run out"
    world.look()
    assert (world.weight, world.state.wanted, world.last.reason) == (500, 2500, Reason.CLOCK_SKEW)
    assert world.last.wake_at == world.now + 2
    world.no_raise = ""
    assert world.run().weight == 2500


def test_no_raise_blocks_no_lowering():
    world = at_stage("second", no_raise="")
    world.no_raise = "the clock is 3 s off"
    world.rules = FAIL
    world.look()
    assert world.weight == 0


def test_problems_block_raises_and_are_said_first():
    world = at_stage("second")
    world.problems = ("Service shop-canary does not exist; create it",)
    world.run(100)
    assert (world.weight, world.last.stalled, world.message) == (500, True, world.problems[0])
    world.rules = FAIL
    assert world.run().weight == 0


def test_problems_let_nothing_begin():
    world = World(problems=("Deployment shop does not exist",), stable=replace(ready(V1), exists=False))
    world.run()
    assert (world.route, world.last.reason) == (None, Reason.WORKLOAD_MISSING)


def test_spec_paused_stops_a_raise_that_was_decided_and_not_written():
    world = at_stage("second")
    world.say(Verb.PROMOTE).look()
    world.spec = spec(paused=True)
    world.run(100)
    assert (world.weight, world.last.reason) == (500, Reason.PAUSED_BY_SPEC)
    world.spec = spec()
    assert world.run().weight == 2500


def test_a_decision_is_made_on_what_is_persisted_to_the_millisecond():
    world = World(now=1_000_000.000_4).run().release().run()
    raw = world.state.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert RolloutState.model_validate(raw) == world.state
