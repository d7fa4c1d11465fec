"""Commands: the annotation that is written, the answer that is waited for, the exit code."""

import json

import pytest

from canary_rollout.kube.port import CANARY_ROLLOUTS, ForbiddenError
from canary_rollout.model.commands import PREFIX, CommandArgs, Verb

PLAIN = ["pause", "resume", "approve", "promote", "rollback", "retry", "reset"]


@pytest.mark.parametrize("verb", PLAIN)
def test_every_verb_writes_one_annotation_and_prints_the_operators_answer(world, make, verb):
    result = world.run(verb, "checkout")
    assert result.exit_code == 0
    assert f"{verb} accepted: done: {verb}" in result.stdout
    assert list(world.rollout()["metadata"]["annotations"]) == [PREFIX + verb]
    command = world.sent
    assert (command.verb, command.revision, command.by) == (Verb(verb), make["revision"], "anna@example.com")
    assert command.at == make["now"]
    assert command.args == CommandArgs()


@pytest.mark.parametrize("verb", PLAIN)
def test_a_refused_command_ends_with_one_and_the_operators_reason(world, verb):
    world.operator.refusal = "the rollout is RolledBack"
    result = world.run(verb, "checkout")
    assert result.exit_code == 1
    assert f"{verb} refused: the rollout is RolledBack" in result.stderr
    assert result.stdout == ""


def test_two_commands_have_two_ids(world):
    world.run("pause", "checkout")
    world.run("pause", "checkout")
    first, second = world.operator.seen
    assert first.id != second.id


def test_no_answer_within_the_wait_ends_with_three_and_says_so(world):
    world.operator.running = False
    result = world.run("pause", "checkout")
    assert result.exit_code == 3
    assert "the operator did not answer pause within 10 s" in result.stderr
    assert "kubectl canary status checkout" in result.stderr
    assert 9.9 < world.slept < 11
    assert PREFIX + "pause" in world.rollout()["metadata"]["annotations"]


def test_the_wait_is_as_long_as_asked(world):
    world.operator.running = False
    assert world.run("pause", "checkout", "--wait", "3").exit_code == 3
    assert 2.9 < world.slept < 4


def test_no_wait_sends_and_returns_at_once(world):
    world.operator.running = False
    result = world.run("pause", "checkout", "--no-wait")
    assert result.exit_code == 0
    assert "pause sent to checkout" in result.stdout
    assert world.slept == 0
    assert PREFIX + "pause" in world.rollout()["metadata"]["annotations"]


def test_an_answer_to_another_command_is_not_taken_for_ours(world):
    old = {"id": "f" * 32, "command": "pause", "accepted": False, "message": "old", "at": "2025-11-21T09:00:00.000Z"}
    world.rollout()["status"] |= {"lastCommand": old, "consumed": {"pause": "f" * 32}}
    result = world.run("pause", "checkout")
    assert result.exit_code == 0
    assert "old" not in result.output


def test_a_later_command_of_somebody_else_does_not_pass_for_the_answer(world):
    tick = world.operator.tick

    def tick_and_another():
        tick()
        world.rollout()["status"]["lastCommand"] = {
            "id": "e" * 32,
            "command": "reset",
            "accepted": False,
            "message": "x",
        }

    world.operator.tick = tick_and_another
    result = world.run("pause", "checkout")
    assert result.exit_code == 0
    assert "pause was taken up" in result.stdout


def test_the_operators_answer_cannot_drive_the_terminal(world):
    world.operator.refusal = "bad \x1b[31mthing\x07"
    assert "\x1b" not in world.run("pause", "checkout").output


@pytest.mark.parametrize(
    ("given", "sent"), [("10%", "10%"), ("0.5%", "0.5%"), ("0%", "0%"), ("100%", "100%"), ("12.50%", "12.5%")]
)
def test_set_weight_sends_the_weight(world, given, sent):
    assert world.run("set-weight", "checkout", given).exit_code == 0
    assert world.sent.args == CommandArgs(weight=sent)


@pytest.mark.parametrize("given", ["101%", "0.001%", "ten", "5 %", "%", "1e1%", "٣%", "100.01%"])
def test_set_weight_refuses_what_no_router_can_express(world, given):
    result = world.run("set-weight", "checkout", "--", given)
    assert result.exit_code == 2
    assert "two decimals" in result.stderr
    assert world.api.calls == []


def test_a_weight_without_its_sign_is_asked_about_with_both_readings(world):
    result = world.run("set-weight", "checkout", "10")
    assert result.exit_code == 2
    assert '"10%"' in result.stderr
    assert '"0.1%"' in result.stderr
    assert world.api.calls == []


def test_a_bare_500_can_only_be_basis_points(world):
    result = world.run("set-weight", "checkout", "500")
    assert '"5%"' in result.stderr
    assert "500%" not in result.stderr


def test_rollback_carries_its_reason(world):
    assert world.run("rollback", "checkout", "--reason", "orders are lost").exit_code == 0
    assert world.sent.args.reason == "orders are lost"


@pytest.mark.parametrize("reason", ["a\nb", "x" * 257, "\x1b[2J"])
def test_a_reason_that_cannot_be_kept_is_refused_before_it_is_sent(world, reason):
    result = world.run("rollback", "checkout", "--reason", reason)
    assert result.exit_code == 2
    assert "256 characters" in result.stderr
    assert world.api.calls == []


def test_promote_full_goes_only_after_the_name_was_typed(world):
    world.interactive = True
    result = world.run("promote", "checkout", "--full", stdin="checkout\n")
    assert result.exit_code == 0
    assert world.sent.args.full is True


def test_promote_full_with_another_name_sends_nothing(world):
    world.interactive = True
    result = world.run("promote", "checkout", "--full", stdin="check\n")
    assert result.exit_code == 1
    assert "nothing was sent" in result.stderr
    assert world.api.calls == []


def test_promote_full_without_anybody_to_ask_is_refused(world):
    result = world.run("promote", "checkout", "--full", stdin="checkout\n")
    assert result.exit_code == 1
    assert "--yes" in result.stderr
    assert world.api.calls == []


def test_promote_full_with_yes_asks_nobody(world):
    assert world.run("promote", "checkout", "--full", "--yes").exit_code == 0
    assert world.sent.args.full is True


def test_yes_without_full_is_a_mistake(world):
    assert world.run("promote", "checkout", "--yes").exit_code == 2


def test_the_present_revision_is_the_one_in_the_engines_memory(world, make):
    world.rollout()["status"]["revision"] = "9999999999"
    world.run("pause", "checkout")
    assert world.sent.revision == make["revision"]


def test_without_a_rollout_there_is_nothing_to_command(world, make):
    world.put(make["rollout"](name="fresh"))
    result = world.run("pause", "fresh")
    assert result.exit_code == 1
    assert "no rollout yet" in result.stderr
    assert "annotations" not in world.rollout("fresh")["metadata"]


def test_a_server_that_does_not_say_who_we_are_is_no_obstacle(world):
    world.api.fail["create"] = ForbiddenError("no", status=403)
    assert world.run("pause", "checkout").exit_code == 0
    assert world.sent.by == ""


def test_without_the_right_to_patch_nothing_is_claimed(world):
    world.api.fail["patch", CANARY_ROLLOUTS.plural] = ForbiddenError("patch canaryrollouts: no (403)", status=403)
    result = world.run("pause", "checkout")
    assert result.exit_code == 1
    assert "lacks a right" in result.stderr


def test_an_api_server_that_goes_away_while_we_wait_is_asked_again(world, make):
    calls, away = 0, make["unavailable"]()
    real = world.api.get

    async def flaky(resource, namespace, name):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise away
        return await real(resource, namespace, name)

    world.api.get = flaky
    assert world.run("pause", "checkout").exit_code == 0


def test_an_api_server_that_stays_away_ends_with_three(world, make):
    world.api.fail["get"] = make["unavailable"]()
    result = world.run("pause", "checkout")
    assert result.exit_code == 3
    assert "did not answer" in result.stderr


def test_the_annotation_is_what_plain_kubectl_could_have_written(world):
    world.run("set-weight", "checkout", "10%")
    body = json.loads(world.rollout()["metadata"]["annotations"][PREFIX + "set-weight"])
    assert set(body) == {"id", "revision", "at", "by", "args"}
    assert body["at"] == "2025-11-21T10:00:00.000Z"
    assert body["args"] == {"weight": "10%"}
