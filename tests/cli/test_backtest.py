"""``backtest``: the past of a real Prometheus through the real engine."""

import json
import re

import pytest
import yaml
from past_metrics import APPEARS, TURNS_BAD

from canary_rollout.model.units import parse_instant

pytestmark = pytest.mark.prometheus
COMPARISON = {"error-comparison", "error-rate-vs-stable"}
"""The test itself, and the standard rule that asks it."""
STAGES = [
    {"name": "few", "weight": "5%", "hold": "8m"},
    {"name": "more", "weight": "25%", "hold": "10m"},
    {"name": "all", "weight": "100%", "hold": "5m"},
]


@pytest.fixture
def backtest(world, past, tmp_path, make):
    """Run it over the past of a namespace; the result with its report as ``data``."""

    def run(*words, namespace="shop", age=APPEARS, **spec):
        raw = make["rollout"](namespace=namespace)
        raw["spec"] |= {
            "stages": STAGES,
            "metrics": {"prometheus": past.url, "interval": "15s", "window": "2m", "history": "15m"},
            **spec,
        }
        file = tmp_path / "rollout.yaml"
        file.write_text(yaml.safe_dump(raw), encoding="utf-8")
        world.now = past.end
        result = world.run("backtest", str(file), "--from", f"{age}s", "--to", "now", *words)
        result.data = json.loads(result.stdout) if "json" in words else None
        return result

    return run


def age(past, instant):
    """Seconds before the end."""
    return past.end - parse_instant(instant)


def test_a_canary_that_turns_bad_is_rolled_back_within_a_minute_by_the_comparison(backtest, past):
    result = backtest("-o", "json")
    data = result.data
    assert result.exit_code == 1, result.output
    assert data["verdict"] == "rolled back"
    assert data["rule"] in COMPARISON
    assert 0 <= TURNS_BAD - age(past, data["endedAt"]) <= 60
    weights = [
        (event["weight"], round(age(past, event["at"]))) for event in data["events"] if event["kind"] == "weight"
    ]
    assert [weight for weight, _ in weights] == ["5%", "25%", "0%"]
    assert 0 <= APPEARS - weights[0][1] <= 30
    assert abs(weights[1][1] - (APPEARS - 480)) <= 30


def test_the_rollout_begins_with_the_canarys_first_request_however_early_the_past_begins(backtest, past):
    data = backtest("-o", "json", age=APPEARS + 600).data
    assert abs(age(past, data["from"]) - APPEARS) <= 30
    assert data["verdict"] == "rolled back"
    assert abs(TURNS_BAD - age(past, data["endedAt"])) <= 60


def test_without_the_comparison_the_threshold_stops_it_when_its_time_is_over(backtest, past):
    rules = [{"name": "errors", "preset": "error-rate", "above": "1%", "for": "2m", "minRequests": 100}]
    data = backtest("-o", "json", analysis={"enabled": False}, defaultHaltRules=False, haltRules=rules).data
    assert (data["verdict"], data["rule"]) == ("rolled back", "errors")
    # Two minutes of breach, which begins as soon as the two-minute window holds 1 % of failures.
    assert 120 <= TURNS_BAD - age(past, data["endedAt"]) <= 165
    (tally,) = [tally for tally in data["rules"] if tally["rule"] == "errors"]
    assert tally["evaluations"]["fail"] > 0
    assert tally["longestBreachSeconds"] >= 120
    assert "% of" in tally["worst"]


def test_a_good_canary_goes_through_all_stages(backtest, past):
    result = backtest("-o", "json", namespace="good")
    assert result.exit_code == 0, result.output
    assert result.data["verdict"] == "succeeded", result.data
    weights = [event["weight"] for event in result.data["events"] if event["kind"] == "weight"]
    assert weights == ["5%", "25%", "100%"]
    assert abs(age(past, result.data["endedAt"]) - (APPEARS - 23 * 60)) <= 60


def test_a_threshold_that_is_too_tight_shows_before_it_hurts(backtest):
    rules = [{"name": "tight", "preset": "error-rate", "above": "0.05%", "for": "1m", "unlessStableToo": False}]
    data = backtest("-o", "json", namespace="good", haltRules=rules).data
    assert (data["verdict"], data["rule"]) == ("rolled back", "tight")


def test_an_approval_is_given_unless_nobody_is_there(backtest):
    stages = [STAGES[0], {**STAGES[1], "approval": "required"}, STAGES[2]]
    assert backtest("-o", "json", namespace="good", stages=stages).data["verdict"] == "succeeded"
    waiting = backtest("--no-approve", "-o", "json", namespace="good", stages=stages).data
    assert waiting["verdict"] == "under way"
    assert [event["weight"] for event in waiting["events"] if event["kind"] == "weight"] == ["5%"]


def test_a_pause_ends_it_unless_a_person_is_to_say_resume(backtest):
    rules = [
        {
            "name": "slow",
            "preset": "latency-p99",
            "above": "0.01",
            "for": "1m",
            "unlessStableToo": False,
            "action": "Pause",
        }
    ]
    paused = backtest("-o", "json", namespace="good", haltRules=rules)
    assert (paused.exit_code, paused.data["verdict"], paused.data["rule"]) == (1, "paused", "slow")
    resumed = backtest("--resume", "-o", "json", namespace="good", haltRules=rules)
    assert len([event for event in resumed.data["events"] if event.get("rule") == "slow"]) > 1


def test_pods_of_stable_can_stand_in_for_a_canary_to_see_false_alarms(backtest):
    words = ("--canary-pods", "*-aaaaa", "--stable-pods", "checkout-6b7f9c-*", "-o", "json")
    data = backtest(*words, age=2700).data
    assert data["verdict"] == "succeeded", data
    assert any(tally["rule"] == "error-comparison" and tally["evaluations"]["pass"] for tally in data["rules"])


def test_a_revision_is_chosen_by_its_pod_template_hash(backtest):
    assert backtest("--revision", "7d8e9f", "-o", "json").data["verdict"] == "rolled back"
    result = backtest("--revision", "nope")
    assert (result.exit_code, "it had 7d8e9f" in result.stderr) == (2, True)


def test_versions_told_apart_by_a_label_are_replayed_too(backtest, past):
    arms = {"by": "label", "label": "track", "stable": "v1", "canary": "v2"}
    metrics = {"prometheus": past.url, "interval": "15s", "window": "2m", "history": "15m", "arms": arms}
    data = backtest("-o", "json", metrics=metrics).data
    assert (data["verdict"], data["rule"] in COMPARISON) == ("rolled back", True)
    assert 0 <= TURNS_BAD - age(past, data["endedAt"]) <= 60
    result = backtest("--canary-pods", "x-*", metrics={**metrics, "arms": {"by": "service"}})
    assert (result.exit_code, "do not name pods" in result.stderr) == (2, True)


def test_people_get_the_end_first_and_every_step_with_its_time(backtest, make):
    result = backtest()
    text = make["words"](result.stdout)
    assert re.match(r"shop/checkout would have been rolled back by error-(comparison|rate-vs-stable) at ", text)
    assert "5% -> 25%" in text
    assert "Rules, gates and tests over the whole time" in text
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--to", "31m"], 2, "nothing is in between"),
        (["--from", "yesterday"], 2, "or how long ago, as in 24h"),
        (["--from", "2900s", "--to", "2400s"], 3, "no request of the canary in this time"),
        (["--canary-pods", "nobody-*"], 2, "leave 0 pods to the canary"),
        (["--prometheus", "http://127.0.0.1:9"], 3, "forward a port"),
        (["--interval", "1s", "--from", "300h"], 2, "choose less time"),
        (["--bearer-token-file", "missing"], 2, "missing cannot be read"),
    ],
)
def test_what_cannot_be_replayed_says_why(backtest, words, code, said):
    result = backtest(*words)
    assert (result.exit_code, said in result.stderr.replace("\n", " ")) == (code, True), result.output
