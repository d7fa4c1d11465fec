"""Logs: one JSON object per line, from our own loggers and from the libraries', and no secrets."""

import io
import json
import logging

import pytest
import structlog

from canary_rollout.controller.logs import HIDDEN, configure


@pytest.fixture
def lines():
    """Configure for the test, give back what was logged, and leave logging as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in ("kopf", "kubernetes")}
    config = structlog.get_config()
    stream = io.StringIO()

    def start(**options):
        configure(stream=stream, **options)
        return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    start.stream = stream
    yield start
    root.handlers[:], root.level = before[0], before[1]
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)
    structlog.reset_defaults()
    structlog.configure(**config)


def test_a_line_is_one_object_with_time_level_logger_and_fields(lines):
    read = lines(fmt="json")
    structlog.get_logger("canary_rollout.test").info("weight raised", rollout="checkout", weight="5%")
    [line] = read()
    assert (line["event"], line["rollout"], line["weight"]) == ("weight raised", "checkout", "5%")
    assert (line["level"], line["logger"]) == ("info", "canary_rollout.test")
    assert line["timestamp"].endswith("Z")


def test_the_libraries_take_the_same_way_and_their_chatter_is_dropped(lines):
    read = lines(fmt="json")
    logging.getLogger("kopf.objects").info("Handler 'on_event' succeeded.")
    logging.getLogger("kopf.activities").warning("watch of %s broke", "deployments")
    [line] = read()
    assert (line["event"], line["logger"], line["level"]) == (
        "watch of deployments broke",
        "kopf.activities",
        "warning",
    )


def test_secrets_are_hidden_by_name_and_inside_texts(lines):
    read = lines(fmt="json")
    log = structlog.get_logger("canary_rollout.test")
    log.warning(
        "login refused: Authorization: Bearer abcdefgh12345678",
        token="abc",
        authorization="x",
        url="https://me:hunter2@prometheus:9090/api",
        slack_secret="s",
    )
    try:
        raise ValueError("sent Bearer eyJhbGciOiJSUzI1NiJ9")  # noqa: TRY301 - the raise is what is tested
    except ValueError:
        log.exception("failed")
    text = json.dumps(read())
    for secret in ("abcdefgh12345678", "hunter2", "eyJhbGciOiJSUzI1NiJ9", '"abc"'):
        assert secret not in text
    assert HIDDEN in text
    assert "prometheus:9090/api" in text
    assert "ValueError" in text


def test_the_level_is_kept(lines):
    read = lines(fmt="json", level="warning")
    log = structlog.get_logger("canary_rollout.test")
    log.info("quiet")
    log.warning("loud")
    assert [line["event"] for line in read()] == ["loud"]


def test_a_terminal_gets_text_and_a_pipe_gets_json(lines):
    read = lines(fmt="auto")
    structlog.get_logger("canary_rollout.test").info("to a pipe")
    assert read()[0]["event"] == "to a pipe"
    lines.stream.isatty = lambda: True
    lines(fmt="auto")
    structlog.get_logger("canary_rollout.test").info("to a person", rollout="checkout")
    assert "to a person" in lines.stream.getvalue()
    assert not lines.stream.getvalue().splitlines()[-1].startswith("{")
