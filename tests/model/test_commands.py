"""Commands as annotations: what is written is read back, and what is none is said to be none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary_rollout.model.commands import PREFIX, Command, CommandArgs, Verb, read_commands
from canary_rollout.model.units import UnitError, format_instant, parse_instant

REVISION = "0123456789"


def command(verb: Verb = Verb.PAUSE, at: float = 1000.0, **args) -> Command:
    return Command(
        verb=verb, id=f"id-{verb}-{at:.0f}", revision=REVISION, at=format_instant(at), args=CommandArgs(**args)
    )


@pytest.mark.parametrize("verb", Verb)
def test_a_command_is_read_back_as_it_was_written(verb):
    written = command(verb, weight="5%", reason="because")
    assert read_commands(dict([written.annotation()])) == ([written], [])


def test_commands_come_oldest_first_and_other_annotations_are_left_alone():
    late, early = command(Verb.RESUME, at=2000.0), command(Verb.PAUSE, at=1000.0)
    annotations = dict([late.annotation(), early.annotation(), ("team", "a")])
    assert read_commands(annotations) == ([early, late], [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pause", "no JSON"),
        ("pause", "[]"),
        ("pause", "null"),
        ("explode", '{"id": "12345678", "revision": "0123456789", "at": "2026-11-21T10:00:00Z"}'),
        ("pause", '{"id": "a b", "revision": "0123456789", "at": "2026-11-21T10:00:00Z"}'),
        ("pause", '{"id": "12345678", "revision": "x", "at": "2026-11-21T10:00:00Z"}'),
        ("pause", '{"id": "12345678", "revision": "0123456789", "at": "soon"}'),
        ("pause", '{"id": "12345678", "revision": "0123456789", "at": "2026-11-21T10:00:00Z", "more": 1}'),
        ("pause", '{"id": "12345678", "revision": "0123456789", "at": 1e400}'),
        ("pause", '{"id": "12345678", "revision": "0123456789", "at": NaN}'),
        ("pause", '{"id": "12345678", "revision": "0123456789", "at": "0001-01-01T00:00:00+14:00"}'),
        ("pause", "[" * 100_000),
        ("pause", '{"a":' * 40_000),
        ("pause", "1" * 5_000),
        ("pause", '"\\ud800"'),
    ],
)
def test_what_is_no_command_is_named_with_what_to_do(key, value):
    commands, (error,) = read_commands({PREFIX + key: value})
    assert commands == []
    assert f"annotation {PREFIX}{key} is no command" in str(error)
    assert "kubectl canary" in str(error)


def test_what_is_wrong_with_a_command_is_said_by_its_field():
    _, (error,) = read_commands({PREFIX + "pause": '{"id": "12345678", "revision": "x", "at": "2026-11-21T10:00:00Z"}'})
    assert "(revision: " in str(error)


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_whatever_an_annotation_says_reading_it_never_ends_in_anything_but_a_command_or_an_error(value):
    commands, errors = read_commands({PREFIX + "pause": value})
    assert len(commands) + len(errors) == 1


@given(st.integers(0, 4_102_444_800_000))
def test_an_instant_survives_being_written_and_read_to_the_millisecond(milliseconds):
    assert round(parse_instant(format_instant(milliseconds / 1000)) * 1000) == milliseconds


def test_an_instant_without_a_zone_is_utc():
    assert parse_instant("1970-01-01T00:01:00") == 60.0


@pytest.mark.parametrize("wrong", [3, None, "yesterday"])
def test_an_instant_that_is_none_is_refused(wrong):
    with pytest.raises(UnitError, match="RFC 3339"):
        parse_instant(wrong)


def test_an_annotation_is_small_and_plain_json():
    _, value = command().annotation()
    assert set(json.loads(value)) == {"id", "revision", "at"}
