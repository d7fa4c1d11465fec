"""Commands as annotations: read back as written, refused with a sentence when they are none."""

import json

import pytest

from canary_rollout.model.commands import PREFIX, Command, CommandArgs, Verb, read_commands

GOOD = {"id": "0123456789abcdef", "revision": "a" * 10, "at": "2026-11-21T10:00:00Z"}


def test_a_command_reads_back_as_it_was_written():
    command = Command(verb=Verb.SET_WEIGHT, by="ada", args=CommandArgs(weight="10%"), **GOOD)
    key, value = command.annotation()
    assert key == f"{PREFIX}set-weight"
    assert read_commands({key: value, "kubectl.kubernetes.io/restartedAt": "x"}) == ([command], [])


def test_commands_come_oldest_first():
    old = {**GOOD, "at": "2026-11-20T10:00:00Z"}
    commands, _ = read_commands({f"{PREFIX}pause": json.dumps(GOOD), f"{PREFIX}resume": json.dumps(old)})
    assert [command.verb for command in commands] == [Verb.RESUME, Verb.PAUSE]


@pytest.mark.parametrize(
    ("verb", "value"),
    [
        ("pause", "not json"),
        ("pause", "[]"),
        ("pause", "null"),
        ("pause", json.dumps({**GOOD, "id": "x"})),
        ("pause", json.dumps({**GOOD, "revision": "../../etc"})),
        ("pause", json.dumps({**GOOD, "at": "soon"})),
        ("pause", json.dumps({**GOOD, "by": "a\nb"})),
        ("pause", json.dumps({**GOOD, "args": {"reason": "x" * 300}})),
        ("pause", json.dumps({**GOOD, "surprise": 1})),
        ("dance", json.dumps(GOOD)),
    ],
)
def test_what_is_no_command_is_refused_by_name(verb, value):
    commands, errors = read_commands({PREFIX + verb: value})
    assert commands == []
    assert f"annotation {PREFIX}{verb} is no command" in str(errors[0])
    assert "kubectl canary" in str(errors[0])
