"""The command line against the real engine: what is written is understood, and the answers are the engine's own."""

import json

from engine_operator import BAD


def status(world):
    return json.loads(world.run("status", "checkout", "-o", "json").stdout)


NEW = ("start", "checkout", "--image", "shop/checkout:2.0")


def test_start_begins_with_the_first_stage(shop):
    assert shop.run(*NEW).exit_code == 0
    shop.later(1)
    assert (status(shop)["phase"], status(shop)["weight"]) == ("Progressing", "0.5%")
    shop.later(3601)
    assert status(shop)["weight"] == "5%"


def test_start_with_a_weight_goes_there_and_pauses(shop):
    result = shop.run(*NEW, "--weight", "10%")
    assert result.exit_code == 0, result.output
    shop.later(86_400)
    assert (status(shop)["phase"], status(shop)["confirmedWeight"]) == ("Paused", "10%")


def test_start_with_stages_uses_them_for_this_revision(shop):
    assert shop.run(*NEW, "--stages", "10,100", "--interval", "20m").exit_code == 0
    shop.later(1)
    assert [stage["weight"] for stage in status(shop)["stages"]] == ["10%", "100%"]
    assert status(shop)["weight"] == "10%"


def test_a_failed_verdict_cannot_be_raised_past_without_retry(shop):
    shop.run(*NEW)
    shop.later(3700)
    shop.engine.canary_numbers = BAD
    shop.later(400, step=10)
    assert (status(shop)["weight"], status(shop)["halt"]["rule"]) == ("0%", "error-rate")
    refused = shop.run("set-weight", "checkout", "10%")
    assert refused.exit_code == 1
    assert "retry" in refused.stderr
    shop.later(60)
    shop.engine.canary_numbers = {**BAD, "error-rate": 0.001}
    assert shop.run("retry", "checkout").exit_code == 0
    shop.later(1)
    assert status(shop)["weight"] == "0.5%"


def test_pause_holds_and_resume_goes_on(shop):
    shop.run(*NEW)
    shop.later(60)
    assert shop.run("pause", "checkout", "--reason", "lunch").exit_code == 0
    shop.later(86_400)
    assert (status(shop)["phase"], status(shop)["weight"]) == ("Paused", "0.5%")
    assert "lunch" in status(shop)["pause"]["message"]
    assert shop.run("resume", "checkout").exit_code == 0
    shop.later(3700)
    assert status(shop)["weight"] == "5%"


def test_promote_goes_to_the_next_stage_and_full_to_the_last(shop):
    shop.run(*NEW)
    shop.later(60)
    assert shop.run("promote", "checkout").exit_code == 0
    assert status(shop)["weight"] == "5%"
    assert shop.run("promote", "checkout", "--full", "--yes").exit_code == 0
    assert status(shop)["weight"] == "100%"


def test_approval_is_asked_for_and_given(shop):
    shop.run(*NEW)
    shop.later(3700)
    shop.later(86_400)
    assert (status(shop)["phase"], status(shop)["weight"]) == ("AwaitingApproval", "5%")
    assert shop.run("approve", "checkout").exit_code == 0
    shop.later(1)
    assert status(shop)["weight"] == "25%"


def test_rollback_says_who_and_why(shop):
    shop.run(*NEW)
    shop.later(60)
    assert shop.run("rollback", "checkout", "--reason", "orders are lost").exit_code == 0
    shop.later(60)
    found = status(shop)
    assert (found["phase"], found["weight"]) == ("RolledBack", "0%")
    assert "anna@example.com: orders are lost" in found["halt"]["message"]


def test_a_command_that_makes_no_sense_now_is_refused_with_the_phase(shop):
    shop.run(*NEW)
    shop.later(60)
    shop.run("rollback", "checkout")
    shop.later(60)
    refused = shop.run("pause", "checkout")
    assert refused.exit_code == 1
    assert "pause refused" in refused.stderr
