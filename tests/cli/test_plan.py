"""``plan``: what a rollout will see and can find out, from a real Prometheus or from a number that is told."""

import json

import pytest
import yaml
from past_metrics import CANARY_RATE, STABLE_RATE, USUAL

from canary_rollout.analysis.power import NORMAL_90, Setting, detection_time


@pytest.fixture
def plan(world, tmp_path, make):
    """Plan a manifest; the result with its report as ``data``."""

    def run(*words, namespace="shop", metrics=None, **spec):
        raw = make["rollout"](namespace=namespace)
        raw["spec"] |= {"metrics": {"prometheus": "http://127.0.0.1:9", "interval": "15s", **(metrics or {})}, **spec}
        file = tmp_path / "rollout.yaml"
        file.write_text(yaml.safe_dump(raw), encoding="utf-8")
        result = world.run("plan", str(file), *words)
        result.data = json.loads(result.stdout) if "json" in words else None
        return result

    return run


def test_without_prometheus_it_reckons_with_the_traffic_it_is_told(plan):
    result = plan("--rps", "50", "--error-rate", "0.1%", "-o", "json")
    assert result.exit_code == 0, result.output
    stages = {stage["name"]: stage for stage in result.data["stages"]}
    assert stages["internal-test"]["canaryRequests"] == 900
    assert stages["friendly"]["canaryRequests"] == 216_000
    setting = Setting(50, 0.005, 0.001, interval=15)
    finds = stages["internal-test"]["smallestRegression"]
    assert detection_time(setting, finds, NORMAL_90) == pytest.approx(3600, rel=1e-3)
    assert stages["internal-test"]["secondsToFind"]["1"] < 90
    assert "smallestRegression" not in stages["ga"]
    assert stages["internal-test"]["excludesAbove"] == pytest.approx(0.0085, abs=0.001)
    assert result.data["seconds"] == (1 + 24 + 48 + 1) * 3600


def test_more_traffic_finds_smaller_regressions(plan):
    def finds(rps):
        return plan("--rps", rps, "--error-rate", "0.1%", "-o", "json").data["stages"][0].get("smallestRegression", 1)

    assert finds("5") > finds("50") > finds("5000")


def test_rules_that_get_too_few_requests_in_a_stage_are_named(plan):
    data = plan("--rps", "50", "-o", "json").data
    few = {(entry["rule"], entry["stage"]) for entry in data["tooFewRequests"]}
    assert ("error-rate", "internal-test") in few
    assert ("error-rate", "friendly") not in few
    # The comparison needs no minimum, so a rule that asks it is not among them.
    assert ("error-rate-vs-stable", "internal-test") not in few
    text = " ".join(plan("--rps", "50").stdout.split())
    assert "too few requests for a verdict in internal-test (75), needed are 100 in 5m: error-rate" in text
    assert "else they are silent there, and the stage goes on without them" in text


def test_too_few_requests_hold_a_stage_for_its_gates_and_without_a_comparison(plan):
    few = plan("--rps", "0.5").stdout
    assert "promotion. Widen" in " ".join(few.split())
    assert "the hold is extended, and at maxHold a person is asked" in " ".join(few.split())
    alone = " ".join(plan("--rps", "50", analysis={"enabled": False}).stdout.split())
    assert "the hold is extended, and at maxHold a person is asked" in alone


def test_a_sticky_rollout_is_told_what_its_share_means(plan):
    sticky = {"nginx": {"service": "edge"}, "sticky": {"header": "X-Tenant-ID"}}
    text = " ".join(plan("--rps", "50", traffic=sticky).stdout.split())
    assert "the share is one of tenants" in text
    assert "Source app does not count by tenant (metrics.source: agent does): the comparison pauses" in text


def test_a_weight_the_router_cannot_express_ends_with_one(plan):
    result = plan("--rps", "50", traffic={"ingressNginx": {"ingress": "checkout"}})
    assert result.exit_code == 1
    assert "stage internal-test: 0.5% is no whole per cent" in " ".join(result.stdout.split())


def test_eighty_columns_are_enough(plan):
    assert max(len(line) for line in plan("--rps", "50", "--error-rate", "0.1%").stdout.splitlines()) <= 80


def test_a_prometheus_out_of_reach_says_how_to_reach_it(plan):
    result = plan()
    assert result.exit_code == 3
    assert "forward a port to it" in result.stderr
    assert "--prometheus http://127.0.0.1:9090" in result.stderr


def test_credentials_that_only_the_cluster_has_are_asked_for(plan):
    access = {"bearerTokenSecretRef": {"name": "prometheus", "key": "token"}}
    result = plan(metrics={"access": access})
    assert (result.exit_code, "--bearer-token-file" in result.stderr) == (2, True)


@pytest.mark.prometheus
def test_the_traffic_is_what_prometheus_saw_of_both_versions(plan, past, world):
    world.now = past.end
    result = plan("--prometheus", past.url, "--lookback", "25m", "-o", "json")
    assert result.exit_code == 0, result.output
    traffic = result.data["traffic"]
    assert traffic["requestsPerSecond"] == pytest.approx(3 * STABLE_RATE + CANARY_RATE, rel=0.02)
    assert traffic["errorRate"] == pytest.approx(USUAL, rel=0.1)
    assert 1 <= traffic["burst"] < 10


@pytest.mark.prometheus
def test_rules_without_data_today_are_inactive_and_the_others_are_not(plan, past, world):
    world.now = past.end
    rules = [
        {"name": "own", "query": 'sum(rate(nothing_total{pod=~"$pods"}[5m]))', "above": "1"},
        {"name": "broken", "query": 'sum(rate(x{pod=~"$pods"}[5m])) +', "above": "1"},
    ]
    result = plan("--prometheus", past.url, "--lookback", "25m", "-o", "json", haltRules=rules)
    states = {rule["rule"]: rule["state"] for rule in result.data["rules"]}
    assert states["error-rate"] == states["p99-latency"] == states["latency-p75"] == "ok"
    assert states["security-alert"] == "ok"
    assert states["lcp"] == states["own"] == states["memory"] == "inactive"
    assert states["broken"] == "problem"
    text = " ".join(plan("--prometheus", past.url, "--lookback", "25m", haltRules=rules).stdout.split())
    assert "inactive, since Prometheus has no data for them today: " in text
    assert "- broken: " in text


@pytest.mark.prometheus
def test_an_application_that_prometheus_does_not_know_is_said_so(plan, past, world):
    world.now = past.end
    result = plan("--prometheus", past.url, "--lookback", "25m", namespace="elsewhere")
    assert (result.exit_code, "saw no request of elsewhere/checkout" in result.stderr) == (3, True)
