"""``status`` and ``list``: what a person reads, and what a program reads."""

import io
import json

import pytest
import yaml

from canary_rollout.kube.port import GoneError
from canary_rollout.model.conditions import Phase


def test_status_says_where_why_and_what_next(world, make):
    text = make["words"](world.run("status", "checkout").stdout)
    assert "shop/checkout Progressing" in text
    assert "friendly is held at 5% for 24h; every rule passes; then beta (25%)" in text
    assert "Next in 21h (2025-11-22 07:00:00 UTC)" in text
    assert f"{make['revision']}, stable {make['stable']}" in text
    assert "nginx (njs)" in text


def test_the_stage_list_marks_where_it_is(world, make):
    lines = [make["words"](line).strip() for line in world.run("status", "checkout").stdout.splitlines()]
    assert "internal-test 0.5% 1h done cohort X-Cohort: qa" in lines
    assert "> friendly 5% 3h of 24h now 1 exit gate" in lines
    assert "beta 25% 48h needs approval" in lines
    assert "ga 100% 1h" in lines


def test_verdicts_come_with_their_numbers_and_the_reason_when_there_is_none(world, make):
    text = make["words"](world.run("status", "checkout").stdout)
    assert "error-rate pass 0.12% of 18432 requests, allowed 1%" in text
    assert "p99-latency no verdict: NotEnough 41 of 100 requests" in text


def test_a_rollback_is_told_in_words_not_only_in_colour(world, make):
    world.put(make["rollout"](status=make["rolled_back"]()))
    text = make["words"](world.run("status", "checkout").stdout)
    assert "RolledBack" in text
    assert "error-rate FAIL 7.4% of 1213 requests failed, allowed 1%, stable 0.1%" in text
    assert "RuleFailed, rule error-rate at 5% in friendly, 1m30s ago" in text
    assert "> friendly 5% 24h STOPPED" in text


def test_a_pause_and_an_unconfirmed_weight_are_shown(world, make):
    world.put(make["rollout"](status=make["paused"]()))
    text = make["words"](world.run("status", "checkout").stdout)
    assert "paused by command of anna: lunch PausedByCommand, 1m ago" in text
    assert "5% wanted, 0.5% confirmed" in text


def test_conditions_last_command_and_history_are_shown(world, make):
    world.operator.refusal = "no"
    world.run("pause", "checkout")
    world.rollout()["status"]["lastCommand"]["by"] = "anna"
    text = make["words"](world.run("status", "checkout").stdout)
    assert "Ready False StageHeld friendly is held (3h ago)" in text
    assert "pause by anna, 0s ago, refused: no" in text
    assert "ffee112233 RolledBack 1d ago too slow" in text


def test_stages_of_start_replace_those_of_the_spec(world, make):
    memory = world.rollout()["status"]["rollout"]
    memory["override"] = [
        {"name": "w10", "weight": "10%", "hold": "10m"},
        {"name": "w100", "weight": "100%", "hold": "10m"},
    ]
    memory["stage"] = "w10"
    text = make["words"](world.run("status", "checkout").stdout)
    assert "> w10 10% 3h of 10m (extended) now" in text
    assert "internal-test" not in text


def test_a_finished_rollout_has_done_all_its_stages(world):
    world.rollout()["status"]["phase"] = Phase.SUCCEEDED
    stages = json.loads(world.run("status", "checkout", "-o", "json").stdout)["stages"]
    assert [stage["state"] for stage in stages] == ["done"] * 4


def test_a_stage_that_is_switched_off_says_so(world):
    world.rollout()["spec"]["stages"][2]["enabled"] = False
    assert "beta" in world.run("status", "checkout").stdout
    stages = json.loads(world.run("status", "checkout", "-o", "json").stdout)["stages"]
    assert [stage["state"] for stage in stages] == ["done", "now", "off", "ahead"]


def test_a_rollout_no_operator_has_seen_says_that(world, make):
    world.put(make["rollout"](name="fresh"))
    text = make["words"](world.run("status", "fresh").stdout)
    assert "no operator has looked at this yet" in text
    assert "Verdicts" not in text


def test_an_edit_not_taken_up_yet_is_said(world):
    world.rollout()["metadata"]["generation"] = 2
    assert "has not been taken up" in world.run("status", "checkout").stdout


@pytest.mark.parametrize("state", ["progressing", "rolled_back", "paused"])
def test_every_line_fits_into_80_columns(world, make, state):
    status = make[state]().model_copy(update={"message": "word " * 60})
    world.put(make["rollout"](status=status))
    for words in (["status", "checkout"], ["list"], ["list", "-A"]):
        lines = world.run(*words).stdout.splitlines()
        assert max(len(line) for line in lines) <= 80


def test_there_are_no_escape_codes_where_there_is_no_terminal(world):
    assert "\x1b" not in world.run("status", "checkout").stdout


def test_what_stands_in_the_object_cannot_drive_the_terminal_nor_be_read_as_markup(world):
    world.rollout()["status"]["message"] = "[bold]evil[/bold] \x1b[2J"
    text = world.run("status", "checkout").stdout
    assert "[bold]evil[/bold]" in text
    assert "\x1b" not in text


def test_a_status_of_a_newer_operator_is_still_shown(world, make):
    status = world.rollout()["status"]
    status |= {"phase": "Levitating", "halt": {"reason": "MoonPhase", "message": "full moon"}, "verdicts": "?"}
    status["rollout"]["clock"] = {"since": "soon"}
    text = make["words"](world.run("status", "checkout").stdout)
    assert "Levitating" in text
    assert "full moon" in text


def test_json_is_for_programs(world, make):
    data = json.loads(world.run("status", "checkout", "-o", "json").stdout)
    assert data["phase"] == "Progressing"
    assert data["weight"] == data["confirmedWeight"] == "5%"
    assert data["revision"] == make["revision"]
    assert data["stages"][1] == {
        "name": "friendly",
        "weight": "5%",
        "hold": "24h",
        "state": "now",
        "held": 10_800.0,
        "notes": ["1 exit gate"],
    }
    assert data["verdicts"][0]["verdict"] == "pass"
    assert "halt" not in data


def test_yaml_says_the_same_as_json(world):
    as_json = json.loads(world.run("status", "checkout", "-o", "json").stdout)
    assert yaml.safe_load(world.run("status", "checkout", "-o", "yaml").stdout) == as_json


def test_list_has_a_line_for_each_rollout_of_the_namespace(world, make):
    world.columns = 140
    world.put(make["rollout"](name="cart", status=make["rolled_back"]()))
    world.put(make["rollout"](name="other", namespace="bank", status=make["progressing"]()))
    text = make["words"](world.run("list").stdout)
    assert "NAME PHASE STAGE WEIGHT NEXT MESSAGE" in text
    assert "cart RolledBack" in text
    assert "checkout Progressing friendly (2/4) 5% in 21h" in text
    assert "other" not in text
    assert "bank other Progressing" in make["words"](world.run("list", "-A").stdout)


def test_list_gives_a_message_lines_of_its_own_where_it_would_have_a_sliver_of_the_terminal(world, make):
    world.put(make["rollout"](name="a-long-name-of-a-rollout", status=make["rolled_back"]()))
    lines = [line.rstrip() for line in world.run("list", "-A").stdout.splitlines()]
    assert lines[0] == "NAMESPACE  NAME                      PHASE        STAGE           WEIGHT  NEXT"
    assert lines[1].split() == ["shop", "a-long-name-of-a-rollout", "RolledBack", "friendly", "(2/4)", "0%", "-"]
    assert lines[2] == "    rolled back: 7.4% of 1213 requests failed; `retry` starts it again"
    assert lines[3].index("Progressing") == lines[0].index("PHASE")
    assert len(lines) == 5


def test_a_command_that_nobody_has_taken_up_is_shown(world, make):
    world.operator.tick = lambda: None
    assert world.run("rollback", "checkout", "--wait", "1").exit_code == 3
    world.now += 90
    text = make["words"](world.run("status", "checkout").stdout)
    assert "Waiting rollback by anna@example.com, sent 1m31s ago, not taken up yet" in text
    assert (
        json.loads(world.run("status", "checkout", "-o", "json").stdout)["waitingCommands"][0]["command"] == "rollback"
    )


def test_a_command_that_was_taken_up_or_has_expired_waits_no_more(world):
    world.run("pause", "checkout")
    assert "not taken up" not in world.run("status", "checkout").stdout
    world.operator.tick = lambda: None
    world.run("rollback", "checkout", "--no-wait")
    world.now += 86_400
    assert "not taken up" not in world.run("status", "checkout").stdout


def test_a_change_that_is_overdue_asks_whether_the_operator_runs(world, make):
    world.now += 21 * 3600 + 50
    assert "Warning" not in world.run("status", "checkout").stdout
    world.now += 250
    text = make["words"](world.run("status", "checkout").stdout)
    assert "Next 5m late" in text
    assert "Warning what was due 5m ago has not come: is the operator running? (kubectl get pods -A" in text
    assert " 5m late " in make["words"](world.run("list").stdout)


def test_old_numbers_ask_whether_the_operator_runs_but_not_at_rest(world, make):
    world.put(make["rollout"](status=make["progressing"]().model_copy(update={"evaluated_through": world.now - 3600})))
    text = make["words"](world.run("status", "checkout").stdout)
    assert "Warning the last numbers are 1h old: is the operator running?" in text
    world.put(make["rollout"](status=make["rolled_back"]().model_copy(update={"evaluated_through": world.now - 3600})))
    assert "Warning" not in world.run("status", "checkout").stdout


def test_notes_of_a_stage_name_everybody_in_its_cohort_and_all_its_gates(world, make):
    stage = world.rollout()["spec"]["stages"][1]
    stage["cohort"] = {
        "header": "X-Cohort",
        "values": ["qa"],
        "prefixes": ["beta-"],
        "regions": {"header": "X-Region", "weights": [{"value": "eu", "weight": "20%"}]},
    }
    stage["entry"] = [{"name": "calm", "alert": {"labels": {"severity": "1"}}}]
    stage["haltRules"] = [{"name": "error-rate", "above": "0.5%"}]
    text = make["words"](world.run("status", "checkout").stdout)
    assert "cohort X-Cohort: qa, beta-*, regions X-Region: eu 20%, 1 entry gate, 1 exit gate, 1 own halt rule" in text


def test_list_gives_data_too(world):
    assert [entry["name"] for entry in json.loads(world.run("list", "-o", "json").stdout)] == ["checkout"]
    assert yaml.safe_load(world.run("list", "-o", "yaml", "-n", "bank").stdout) == []


def test_an_empty_list_says_where_it_looked(world):
    result = world.run("list", "-n", "bank")
    assert result.exit_code == 0
    assert "no CanaryRollout in namespace bank" in result.stderr


def test_watching_without_a_terminal_prints_a_line_per_change(world, make):
    later = make["rollout"](status=make["rolled_back"]())
    later["metadata"]["resourceVersion"] = "200"
    world.api.events = [
        ("BOOKMARK", {"metadata": {"resourceVersion": "150"}}),
        ("MODIFIED", world.rollout()),
        ("MODIFIED", later),
        ("DELETED", later),
    ]
    result = world.run("status", "checkout", "-w")
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert "Progressing friendly (2/4) 5%" in lines[0]
    assert "RolledBack" in lines[1]
    assert result.exit_code == 1
    assert "checkout was deleted" in result.stderr


def test_watching_outlives_a_broken_connection_and_an_expired_version(world, make):
    world.api.events = [
        make["unavailable"](),
        GoneError("too old", status=410),
        ("DELETED", world.rollout()),
    ]
    result = world.run("status", "checkout", "-w")
    assert "lost sight of checkout" in result.stdout
    assert "Progressing" in result.stdout.splitlines()[-1]
    assert [verb for verb, _, _ in world.api.calls].count("watch") == 3


def test_watching_on_a_terminal_draws_the_whole_status(world, make):
    world.terminal = io.StringIO()
    world.api.events = [("DELETED", world.rollout())]
    result = world.run("status", "checkout", "-w")
    assert result.exit_code == 1
    drawn = world.terminal.getvalue()
    assert "friendly" in drawn
    assert "Ctrl-C ends the view" in drawn


@pytest.mark.parametrize("rows", [24, 16])
def test_watching_on_a_small_terminal_gives_up_what_matters_least_and_says_so(world, make, rows):
    world.terminal = io.StringIO()
    world.rows = rows
    world.put(make["rollout"](status=make["rolled_back"]()))
    world.api.events = [("DELETED", world.rollout())]
    world.run("status", "checkout", "-w")
    first = world.terminal.getvalue().partition("Ctrl-C ends the view")[0]
    assert 10 < len(first.splitlines()) < rows
    assert "7.4% of 1213 requests failed" in first
    assert "ffee112233" not in first
    assert "No room for the rest; all of it: kubectl canary status checkout" in first
    assert ("STOPPED" in first) == (rows == 24)


def test_watching_as_json_points_at_kubectl(world):
    result = world.run("status", "checkout", "-w", "-o", "json")
    assert result.exit_code == 2
    assert "kubectl get canaryrollout" in result.stderr
