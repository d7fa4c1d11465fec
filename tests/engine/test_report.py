"""The status people read: what it says, and when it is worth writing."""

import re
from dataclasses import replace

import pytest
from reported import Reported, held
from world import FAIL, NO_DATA, PASS, V1, V2, at_stage, spec, stages, verdict

from canary_rollout.analysis.verdict import Assessment, Lack, Outcome
from canary_rollout.engine.draft import stage_of, stages_of
from canary_rollout.engine.report import CHECKPOINT, Facts, report, worth_writing
from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action, stages_from_weights
from canary_rollout.model.status import (
    MAX_HISTORY,
    CanaryRolloutStatus,
    HistoryEntry,
    RolloutState,
)


@pytest.mark.parametrize(
    "rules",
    [
        PASS,
        NO_DATA,
        (verdict(Outcome.NONE, since=1_700_000_000.123_456_7),),
        (*PASS, verdict(Outcome.FAIL, rule="denials")),
    ],
)
def test_a_held_rollout_writes_nothing_between_checkpoints(rules):
    world = held(spec=spec(stages=stages(("second", {"hold": "30h"})), onNoData={"holdFor": "48h"}))
    if rules[-1].rule == "denials":
        rules = (*PASS, replace(rules[-1], action=None))
    world.rules = rules
    world.now += 0.777_7
    world.look()
    world.look()
    writes, began = world.writes, world.now
    while world.now < began + CHECKPOINT * 10:
        world.now += 7.3
        world.look()
        world.look(evaluate=False)
    assert world.writes - writes <= 10
    assert world.state.phase is Phase.PROGRESSING


@pytest.mark.parametrize(
    "arrange",
    [
        lambda world: world.say(Verb.PAUSE),
        lambda world: world.say(Verb.ROLLBACK),
        lambda world: setattr(world, "problems", ("Service x does not exist",)),
        lambda world: setattr(world, "no_raise", "clock"),
        lambda world: world.confirm(yes=False),
    ],
)
def test_a_rollout_at_rest_writes_nothing_however_often_it_is_looked_at(arrange):
    world = held()
    arrange(world)
    world.run(600, looks=1000)
    writes = world.writes
    for _ in range(100):
        world.look(evaluate=False)
    assert world.writes == writes


def test_an_extended_hold_keeps_its_words_between_evaluations():
    world = held(spec=spec(stages=stages(("second", {"hold": "60s", "maxHold": "10h"}))))
    world.rules = (verdict(Outcome.NONE, lack=None, since=world.now),)
    world.run(100)
    words, writes = world.status.message, world.writes
    for _ in range(20):
        world.now += 5
        world.look(evaluate=False)
        world.look()
    assert world.status.message == words
    assert "beyond its time" in words
    assert world.writes == writes


# -- what it says


def test_kstatus_reads_ready_at_rest():
    world = Reported().start().run()
    assert world.condition("Ready").status == "True"
    assert world.condition("Reconciling") is None
    assert world.condition("Stalled") is None
    assert world.status.observed_generation == 7


def test_kstatus_reads_reconciling_while_a_revision_is_under_way():
    world = held()
    assert (world.condition("Ready").status, world.condition("Reconciling").status) == ("False", "True")
    assert world.condition("Ready").reason == Reason.STAGE_HELD == world.condition("Reconciling").reason
    assert world.status.stage == "second (2/4)"
    assert (world.status.weight, world.status.revision, world.status.router) == ("5%", V2, "nginx (njs)")


def test_kstatus_reads_stalled_once_a_revision_was_stopped():
    world = held()
    world.rules = FAIL
    world.run(31)
    assert (world.condition("Ready").status, world.condition("Stalled").status) == ("False", "True")
    assert world.condition("Reconciling") is None
    assert world.status.halt.rule == "error-rate"
    assert world.status.history[0].result == "RolledBack"


def test_kstatus_reads_stalled_when_a_person_must_mend_something():
    world = held()
    world.problems = ("Service shop-canary does not exist; create it",)
    world.run()
    assert world.condition("Stalled").message == world.problems[0]
    world.problems = ()
    world.run()
    assert world.condition("Stalled") is None


def test_a_contested_route_has_its_condition_while_it_is():
    world = held()
    world.foreign(0)
    world.reassert_at = world.now + 100
    world.run(1)
    contested = world.condition("RouteContested")
    assert (contested.status, contested.reason) == ("True", Reason.ROUTE_CONTESTED)
    assert "kubectl-edit wrote 0% over the wanted 5%" in contested.message
    world.run(101)
    world.look()
    assert world.condition("RouteContested") is None


def test_a_transition_time_moves_only_with_the_status_of_its_condition():
    world = held()
    began = world.condition("Ready").last_transition_time
    world.run(60).run()
    assert world.status.stage.startswith("third")
    assert world.condition("Ready").last_transition_time == began
    world.run(60).run(60).run(60)
    world.run(60)
    assert world.condition("Ready").status == "True"
    assert world.condition("Ready").last_transition_time > began


def test_words_that_are_kept_keep_reason_and_next_change_too():
    world = held()
    before = world.status
    decision = replace(world.last, message=None, reason=Reason.IDLE, next_change=None)
    after = report(before, decision, Facts(world.spec, 7, world.route, None, {}, world.now))
    assert (after.message, after.next_change) == (before.message, before.next_change)
    assert after.conditions == before.conditions


def test_a_reason_of_a_newer_version_does_not_break_what_is_kept():
    world = held()
    strange = world.status.conditions[0].model_copy(update={"reason": "FromTheFuture"})
    old = world.status.model_copy(update={"conditions": (strange,)})
    after = report(old, replace(world.last, message=None), Facts(world.spec, 7, None, None, {}, world.now))
    assert after.conditions[0].reason == Reason.IDLE
    nothing = report(
        CanaryRolloutStatus(), replace(world.last, message=None), Facts(world.spec, 7, None, None, {}, 0.0)
    )
    assert nothing.conditions[0].reason == Reason.IDLE
    assert nothing.router == "nginx"


def test_verdicts_are_shown_kept_and_forgotten_with_the_evidence():
    world = held()
    world.rules = (*PASS, verdict(Outcome.NONE, rule="p99"))
    world.look()
    assert [item.rule for item in world.status.verdicts] == ["error-rate", "p99"]
    world.look(evaluate=False)
    assert len(world.status.verdicts) == 2
    world.say(Verb.RESET)
    world.look()
    assert world.status.verdicts == ()


def test_verdicts_are_gone_once_a_revision_has_succeeded_and_stay_after_a_rollback():
    world = held("all")
    world.run(60).run(60)
    world.look(evaluate=False)
    assert (world.state.phase, world.status.verdicts) == (Phase.SUCCEEDED, ())
    world = held()
    world.rules = FAIL
    world.run(31)
    world.look(evaluate=False)
    assert [item.verdict for item in world.status.verdicts] == ["fail"]


def test_a_command_leaves_its_answer():
    world = held().say(Verb.PAUSE)
    world.look()
    assert world.status.last_command.accepted
    assert world.status.consumed == {"pause": world.commands[0].id}


def test_the_history_is_bounded_newest_first():
    entry = HistoryEntry(revision=V1, result="Succeeded", ended_at=1.0)
    world = held()
    old = world.status.model_copy(update={"history": (entry,) * MAX_HISTORY})
    ended = entry.model_copy(update={"revision": V2})
    after = report(old, replace(world.last, ended=ended), Facts(world.spec, 7, None, None, {}, world.now))
    assert len(after.history) == MAX_HISTORY
    assert after.history[0].revision == V2


def test_a_stage_that_is_not_in_the_list_is_shown_without_a_place():
    world = held()
    gone = replace(world.last, state=world.state.model_copy(update={"stage": "gone"}))
    assert report(world.status, gone, Facts(world.spec, 7, None, None, {}, world.now)).stage == "gone"


def test_there_is_something_to_say_at_every_moment_of_a_journey():
    world = Reported().start()
    said = []
    for step in range(120):
        if step == 3:
            world.release()
        world.look()
        assert world.status.message
        assert (world.condition("Ready").reason == Reason.IDLE) is (world.state.phase is Phase.IDLE)
        said.append(world.status.message)
        world.now += 4
    assert world.state.phase is Phase.SUCCEEDED
    assert len(set(said)) > 12


def test_causes_are_cut_where_they_are_remembered():
    world = at_stage("second")
    world.rules = (replace(FAIL[0], message="x" * 10_000),)
    world.run(31)
    assert len(world.state.halt_of(V2).message) == 300
    assert re.fullmatch(r"x{99}…", world.history[0].message)


def test_stages_given_at_the_start_count_before_those_of_the_spec():
    override = stages_from_weights(("10%", "100%"), "5m")
    state = RolloutState(stage="w10", wanted=1000, override=override)
    assert stages_of(spec(), state) == override
    assert stage_of(spec(), state) == override[0]
    assert stage_of(spec(), RolloutState()).name == "first"


def test_what_a_rule_that_only_alerts_says_on_its_way_is_not_worth_a_write():
    world = held()
    calm = verdict(rule="p75-latency", action=Action.ALERT)
    breached = verdict(Outcome.NONE, rule="p75-latency", action=Action.ALERT, lack=Lack.NOT_ENOUGH, since=world.now)
    failed = verdict(Outcome.FAIL, rule="p75-latency", action=Action.ALERT, since=world.now)

    def status(*rules):
        return report(
            world.status, world.last, Facts(world.spec, 1, world.route, Assessment(world.now, rules, ()), {}, world.now)
        )

    assert not worth_writing(status(calm), status(breached), world.now)
    assert worth_writing(status(calm), status(failed), world.now)
    assert worth_writing(status(calm), status(replace(breached, action=Action.PAUSE)), world.now)


def test_rules_of_series_the_app_never_had_are_listed_by_name_alone():
    world = held()
    inactive = replace(verdict(Outcome.NONE, rule="lcp", lack=Lack.NOT_APPLICABLE), inactive=True)
    world.rules = (verdict(), inactive)
    world.look()
    assert [found.rule for found in world.status.verdicts] == ["error-rate"]
    assert world.status.inactive_rules == ("lcp",)
    world.look(evaluate=False)
    assert world.status.inactive_rules == ("lcp",)
