"""Which command counts: none counts twice, none of another revision, none that is too old."""

import pytest
from world import FAIL, PASS, V1, V3, World, at_stage

from canary_rollout.model.commands import EXPIRES_AFTER, Verb
from canary_rollout.model.conditions import Phase
from canary_rollout.model.status import MAX_HEARD, RolloutState


def test_a_command_meant_for_another_revision_is_refused():
    world = at_stage("second").say(Verb.PROMOTE, revision=V3).run()
    assert "meant for revision" in world.answers[-1]
    assert world.weight == 500


def test_an_expired_command_is_refused():
    world = at_stage("second")
    world.say(Verb.PAUSE, at=world.now - EXPIRES_AFTER).run()
    assert "expired" in world.answers[-1]


def test_a_command_is_consumed_once_however_often_it_is_seen():
    world = at_stage("second").say(Verb.PROMOTE)
    world.look()
    world.consumed.clear()
    for _ in range(5):
        world.look()
    assert world.weight == 2500
    assert len(world.answers) == 1


def test_an_older_command_of_the_same_kind_that_comes_back_is_ignored():
    world = at_stage("second").say(Verb.SET_WEIGHT, weight="10%").run()
    world.say(Verb.SET_WEIGHT, weight="1%").run()
    world.consumed.clear()
    world.commands = world.commands[:1]
    assert world.run().weight == 100


def test_commands_are_taken_one_at_a_time_oldest_first():
    world = at_stage("second").say(Verb.PAUSE).say(Verb.PROMOTE)
    world.look()
    assert len(world.answers) == 1
    world.run()
    assert (world.weight, world.state.pause) == (2500, None)


def test_what_is_remembered_of_commands_is_bounded():
    world = at_stage("second")
    for _ in range(MAX_HEARD + 5):
        world.say(Verb.RESUME).run()
    assert len(world.state.heard) == MAX_HEARD


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.SET_WEIGHT, Verb.RESUME])
def test_old_commands_raise_nothing_after_the_status_was_lost(verb):
    world = at_stage("second").say(verb, weight="100%", full=True)
    world.now += 100
    world.state = RolloutState()
    world.run().run(31)
    assert world.weight == 50
    assert "before revision" in world.answers[-1] or "meant for" in world.answers[-1]


def test_an_old_retry_does_not_wake_a_revision_whose_status_was_lost():
    world = at_stage("second").say(Verb.ROLLBACK).run(31)
    world.say(Verb.RETRY).run(10)
    world.rules = FAIL
    world.run().run(31)
    world.rules = PASS
    assert world.state.phase is Phase.ROLLED_BACK
    world.consumed.clear()
    world.state = RolloutState()
    world.run(1000)
    assert (world.weight, world.state.phase) == (0, Phase.ROLLED_BACK)
    assert world.weights[-1] == 0


def test_approve_is_refused_where_no_approval_is_asked():
    world = at_stage("second").say(Verb.APPROVE).run()
    assert world.answers == ["the next stage needs no approval"]


def test_pause_and_reset_are_refused_at_rest():
    world = World().run().say(Verb.PAUSE, revision=V1).say(Verb.RESET, revision=V1).run()
    assert len(world.answers) == 2
    assert all("the rollout is Idle" in answer for answer in world.answers)


def test_who_gave_a_command_is_told():
    world = at_stage("second").say(Verb.PAUSE)
    world.commands[-1] = world.commands[-1].model_copy(update={"by": "ada"})
    world.run()
    assert "paused by command of ada" in world.message
