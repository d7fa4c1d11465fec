"""Commands of people: what each does, where each is refused, and that none counts twice."""

from dataclasses import replace

import pytest
from world import FAIL, NO_DATA, PASS, V1, V2, V3, World, at_stage, spec, verdict

from canary_rollout.analysis.verdict import Outcome
from canary_rollout.model.commands import EXPIRES_AFTER, Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action
from canary_rollout.model.status import MAX_HEARD, RolloutState

PAUSE_RULE = (verdict(Outcome.FAIL, rule="p99", action=Action.PAUSE),)


def preparing(**changes) -> World:
    """V2 has begun and its pods are not ready yet."""
    world = World(**changes).run()
    world.canary = replace(world.canary, revision=V2, settled=False, available=1)
    return world.run()


def rolled_back() -> World:
    world = at_stage("second")
    world.rules = FAIL
    world.run().run(31)
    assert world.state.phase is Phase.ROLLED_BACK
    world.rules = PASS
    return world


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


def test_a_condemned_revision_refuses_everything_but_retry():
    world = rolled_back()
    for verb in (Verb.PAUSE, Verb.PROMOTE, Verb.RESET, Verb.APPROVE, Verb.ROLLBACK, Verb.START):
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


# -- which command counts, and how often


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
