"""Flags and environment variables; what is wrong with them is said before anything begins."""

import pytest

from canary_rollout.controller.settings import parse


def test_defaults_suit_a_pod():
    settings = parse([], {"POD_NAMESPACE": "canary-system", "POD_NAME": "operator-0"})
    assert (settings.namespace, settings.identity, settings.lease) == (
        "canary-system",
        "operator-0",
        "canary-rollout-operator",
    )
    assert (settings.host, settings.port, settings.log_level, settings.log_format) == ("0.0.0.0", 8080, "info", "auto")
    assert settings.watch_namespaces == ()


def test_flags_go_before_the_environment():
    settings = parse(["--port", "9000", "--lease", "mine"], {"PORT": "1", "LEASE_NAME": "theirs"})
    assert (settings.port, settings.lease) == (9000, "mine")


def test_namespaces_are_a_list():
    assert parse(["--watch-namespaces", "shop, ,cart,"], {}).watch_namespaces == ("shop", "cart")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PORT": "eighty"}, "invalid int value: 'eighty'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL (--log-level) is 'loud': choose one of debug, info, warning, error"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT (--log-format) is 'xml': choose one of auto, json, console"),
    ],
)
def test_a_wrong_value_from_the_environment_is_a_sentence(environment, words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse([], environment)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
