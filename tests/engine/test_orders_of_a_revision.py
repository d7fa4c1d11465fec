"""Commands that end a revision or begin it: rollback, retry, reset, start."""

from dataclasses import replace

import pytest
from world import V1, V2, V3, World, at_stage, preparing, rolled_back

from canary_rollout.model.commands import EXPIRES_AFTER, Verb
from canary_rollout.model.conditions import Phase, Reason

# -- rollback and retry


@pytest.mark.parametrize("stage", ["first", "second", "all"])
def test_rollback_by_command_takes_everything_away_at_once(stage):
    world = at_stage(stage).say(Verb.ROLLBACK, reason="customers call")
    decision = world.look()
    assert (world.weight, decision.latch) == (0, True)
    assert "customers call" in world.message
    world.run(31)
    assert (world.state.phase, world.history[0].result) == (Phase.ROLLED_BACK, "RolledBack")


def test_a_rollback_while_preparing_ends_the_revision_before_it_serves():
    world = preparing().say(Verb.ROLLBACK).run()
    assert (world.state.phase, world.weight) == (Phase.ROLLED_BACK, 0)


def test_rollback_is_refused_where_there_is_nothing_to_roll_back():
    world = World().run().say(Verb.ROLLBACK, revision=V1).run()
    assert "there is nothing to roll back" in world.answers[0]


def test_a_rollback_of_a_stopped_revision_says_that_it_is_done_and_changes_nothing():
    world = rolled_back()
    before = (world.state.halts, world.state.phase, world.weight)
    world.say(Verb.ROLLBACK).run()
    assert "stopped already" in world.answers[-1]
    assert (world.state.halts, world.state.phase, world.weight) == before


def test_a_condemned_revision_refuses_everything_but_rollback_and_retry():
    world = rolled_back()
    for verb in (Verb.PAUSE, Verb.PROMOTE, Verb.RESET, Verb.APPROVE, Verb.START):
        world.say(verb).run()
        assert "`retry`" in world.answers[-1] or "was stopped" in world.answers[-1], verb
    assert world.run(10_000).weight == 0


def test_retry_begins_again_from_the_first_stage():
    world = rolled_back().say(Verb.RETRY)
    assert world.look().restart_evidence
    world.run()
    assert (world.weight, world.state.stage, world.state.halts) == (50, "first", ())
    assert world.route.latch is None


def test_a_retry_keeps_the_stages_it_was_started_with():
    world = World().run().release()
    world.look()
    world.say(Verb.START, stages=["10%", "100%"], interval="1h").run()
    world.say(Verb.ROLLBACK).run(31)
    world.say(Verb.RETRY).run()
    assert world.weight == 1000


def test_retry_is_refused_while_the_rollback_is_under_way_and_where_nothing_was_stopped():
    world = at_stage("second").say(Verb.ROLLBACK).run()
    world.say(Verb.RETRY).run()
    assert "once the rollback is done" in world.answers[-1]
    world = World().run().say(Verb.RETRY, revision=V1).run()
    assert "was not stopped" in world.answers[-1]


def test_a_retry_that_is_older_than_the_verdict_is_refused():
    world = rolled_back()
    world.say(Verb.RETRY, at=world.now - 3600).run()
    assert "before revision" in world.answers[-1]
    assert world.weight == 0


def test_a_stopped_revision_without_a_verdict_can_be_retried():
    """Two operators' status writes crossed; nobody must be locked out because of it."""
    world = rolled_back()
    world.state = world.state.model_copy(update={"halts": ()})
    world.run()
    assert (world.state.phase, world.weight) == (Phase.ROLLED_BACK, 0)
    assert world.say(Verb.RETRY).run().weight == 50


# -- reset


def test_reset_forgets_the_evidence_and_holds_the_stage_for_its_whole_time():
    world = at_stage("second").run(50).say(Verb.RESET)
    assert world.look().restart_evidence
    world.run()
    assert world.run(59).weight == 500
    assert world.run(1).run().weight == 2500


# -- start


def test_start_with_a_weight_goes_there_first_and_pauses():
    world = preparing().say(Verb.START, weight="10%").run()
    world.canary = replace(world.canary, settled=True, available=2)
    world.run(1000)
    assert (world.weight, world.state.phase, world.state.stage) == (1000, Phase.PAUSED, "second")
    assert "resume" in world.message
    world.say(Verb.RESUME).run()
    assert world.run(60).run().weight == 2500


def test_start_with_a_weight_below_the_first_stage_works_too():
    world = preparing().say(Verb.START, weight="0.1%").run()
    world.canary = replace(world.canary, settled=True, available=2)
    world.run()
    assert (world.weight, world.state.stage) == (10, "first")


def test_a_pin_waits_for_what_every_raise_waits_for():
    world = preparing().say(Verb.START, weight="10%").run()
    world.canary = replace(world.canary, settled=True, available=2)
    world.no_raise = "the clock is 3 s off"
    world.run(5)
    assert (world.weight, world.last.reason) == (0, Reason.CLOCK_SKEW)


def test_start_with_stages_replaces_them_for_this_revision_only():
    world = preparing().say(Verb.START, stages=["10%", "50%", "100%"], interval="5m").run()
    world.canary = replace(world.canary, settled=True, available=2)
    assert world.run().weight == 1000
    assert world.run(300).run().weight == 5000
    world.release(V3).run(31).run()
    assert (world.state.override, world.weight) == ((), 50)


def test_start_without_arguments_goes_through_the_stages_of_the_spec():
    world = preparing().say(Verb.START).run()
    assert world.answers == ["goes through the stages of the spec"]


@pytest.mark.parametrize(
    "args",
    [
        {"stages": ["50%", "10%", "100%"]},
        {"stages": ["10%", "50%"]},
        {"stages": ["0%", "100%"]},
        {"stages": ["10", "100%"]},
        {"stages": ["10%", "100%"], "interval": "soon"},
        {"stages": ["10%", "100%"], "weight": "200%"},
        {"stages": ["2.5%", "100%"]},
    ],
)
def test_start_refuses_what_cannot_be_and_changes_nothing(args):
    world = preparing(step=100).say(Verb.START, **args).run()
    assert world.events[-1] == Reason.COMMAND_REFUSED
    assert "\n" not in world.answers[-1]
    assert "http" not in world.answers[-1]
    assert (world.state.override, world.state.pin) == ((), None)


def test_start_sent_before_the_image_changes_waits_for_its_revision():
    world = World().run().say(Verb.START, revision=V2, weight="10%").run()
    assert world.answers == []
    assert world.last.wake_at == world.now + EXPIRES_AFTER
    assert world.release().run().weight == 1000


def test_start_is_refused_once_the_revision_serves():
    world = at_stage("first").say(Verb.START, weight="10%").run()
    assert "only before the revision serves" in world.answers[-1]


def test_a_start_whose_revision_never_comes_expires():
    world = World().run().say(Verb.START, revision=V3).run(EXPIRES_AFTER + 1)
    assert "expired" in world.answers[-1]
