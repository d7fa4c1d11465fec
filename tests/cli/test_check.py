"""``check`` and ``health``: a stage's rules and gates now, from a real Prometheus."""

import json

import pytest
from past_metrics import TURNS_BAD
from past_rollout import under_way

from canary_rollout.kube.port import DEPLOYMENTS, HALT_RULE_SETS, PODS, SECRETS

pytestmark = pytest.mark.prometheus
RULES = [{"name": "errors", "preset": "error-rate", "above": "1%", "for": "1m"}]
STAGES = [
    {"name": "few", "weight": "5%", "hold": "8m", "exit": [{"preset": "latency-p75", "maxRatio": "1.10"}]},
    {
        "name": "all",
        "weight": "100%",
        "hold": "5m",
        "entry": [{"preset": "error-rate", "max": "0.05%", "name": "clean"}],
    },
]


@pytest.fixture
def shop(world, past, make):
    """Put a rollout of a namespace into the cluster, ``age`` seconds before the end of the past."""

    def put(namespace="shop", age=0, status=None, **spec):
        world.now = past.end - age
        raw = make["rollout"](namespace=namespace, status=status)
        raw["spec"] |= {
            "stages": STAGES,
            "metrics": {"prometheus": past.url, "interval": "15s", "window": "2m", "history": "15m"},
            "haltRules": RULES,
            "defaultHaltRules": False,
            **spec,
        }
        world.put(raw)
        for name, replica_set, pods in (
            ("checkout", "checkout-6b7f9c", ("aaaaa", "bbbbb", "ccccc")),
            ("checkout-canary", "checkout-canary-7d8e9f", ("ddddd",)),
        ):
            world.api.put(DEPLOYMENTS, make["deployment"](name, namespace=namespace))
            for pod in pods:
                metadata = {
                    "name": f"{replica_set}-{pod}",
                    "namespace": namespace,
                    "labels": {"app": name},
                    "creationTimestamp": "2025-11-21T10:00:00Z",
                    "ownerReferences": [{"kind": "ReplicaSet", "name": replica_set}],
                }
                world.api.put(PODS, {"metadata": metadata})
        return world

    return put


def checks(world, *words, namespace="shop"):
    result = world.run("check", "checkout", "-n", namespace, "-o", "json", *words)
    data = json.loads(result.stdout)
    return result.exit_code, data, {entry["name"]: entry for entry in data["checks"]}


def test_a_good_canary_passes_with_the_numbers(shop):
    world = shop("good", analysis={"enabled": False})
    code, data, found = checks(world, "--stage", "few", namespace="good")
    assert found["errors"]["word"] == found["latency-p75"]["word"] == "pass"
    assert found["errors"]["canary"] == pytest.approx(0.001, rel=0.01)
    assert found["clean"]["kind"] == "entry gate of all"
    assert (found["clean"]["verdict"], code, data["verdict"]) == ("fail", 1, "fail")
    code, data, _ = checks(world, "--stage", "all", namespace="good")
    assert (code, data["verdict"]) == (0, "pass")


def test_a_breach_that_has_only_begun_is_a_breach(shop):
    code, data, found = checks(shop(analysis={"enabled": False}))
    assert (code, data["verdict"], found["errors"]["word"]) == (1, "fail", "BREACHED")
    assert "fails at" in found["errors"]["message"]


def test_what_only_tells_does_not_decide(shop):
    quiet = [{**RULES[0], "action": "Alert"}, {**RULES[0], "name": "trial", "dryRun": True}]
    world = shop(analysis={"enabled": False}, haltRules=quiet)
    code, _, found = checks(world, "--stage", "all")
    assert found["errors"]["word"] == found["trial"]["word"] == "BREACHED"
    assert not found["errors"]["decides"]
    assert code == 3  # nothing is left that could decide
    assert "BREACHED (only told)" in " ".join(world.run("check", "checkout", "--stage", "all").stdout.split())


@pytest.mark.parametrize(("namespace", "verdict"), [("shop", "fail"), ("good", "pass")])
def test_the_comparison_goes_on_from_what_the_operator_remembers(shop, past, namespace, verdict):
    world = shop(namespace)
    world.rollout(namespace=namespace)["status"] = under_way(
        past.end, world.rollout(namespace=namespace)["spec"]
    ).to_dict()
    _, _, found = checks(world, namespace=namespace)
    assert (found["error-comparison"]["kind"], found["error-comparison"]["verdict"]) == ("test", verdict)
    assert found["promotion"]["kind"] == "promotion"


def test_what_is_asked_of_a_canary_that_serves_nothing_says_so(shop):
    world = shop("good", age=60)
    world.rollout(namespace="good")["status"] = {"phase": "RolledBack"}
    for words in (("check", "checkout"), ("health", "checkout", "--once")):
        result = world.run(*words, "-n", "good")
        assert "The rollout is RolledBack: its canary serves nothing" in result.stdout


def test_without_a_rollout_under_way_the_comparison_has_no_verdict(shop):
    _, _, found = checks(shop("good"), namespace="good")
    assert found["error-comparison"]["word"] == "no verdict"


def test_too_few_requests_are_no_verdict(shop):
    few = [{**RULES[0], "minRequests": 1_000_000}]
    code, data, found = checks(shop(analysis={"enabled": False}, haltRules=few), "--stage", "all")
    assert (code, data["verdict"], found["errors"]["reason"]) == (3, "none", "NotEnough")


def test_rules_of_a_set_are_checked_too(shop):
    world = shop("good", analysis={"enabled": False}, haltRuleSets=[{"name": "shared"}])
    rule_set = {
        "metadata": {"name": "shared", "namespace": "good"},
        "spec": {"haltRules": [{"name": "shared-errors", "preset": "error-rate", "above": "0.01%"}]},
    }
    world.api.put(HALT_RULE_SETS, rule_set)
    _, _, found = checks(world, "--stage", "all", namespace="good")
    assert "shared-errors" in found
    del world.api.objects[HALT_RULE_SETS.plural, "good", "shared"]
    assert "HaltRuleSet shared" in world.run("check", "checkout", "-n", "good").stderr


def test_credentials_come_from_the_clusters_secrets_or_from_the_command_line(shop, past, tmp_path):
    access = {"bearerTokenSecretRef": {"name": "prometheus", "key": "token"}}
    metrics = {"prometheus": past.url, "interval": "15s", "window": "2m", "access": access}
    world = shop("good", analysis={"enabled": False}, metrics=metrics)
    code, data, _ = checks(world, "--stage", "all", namespace="good")
    assert (code, "Secret prometheus does not exist" in json.dumps(data)) == (3, True)
    (tmp_path / "token").write_text("s3cret\n", encoding="utf-8")
    code, data, _ = checks(world, "--stage", "all", "--bearer-token-file", str(tmp_path / "token"), namespace="good")
    assert (code, "s3cret" in json.dumps(data)) == (0, False)
    world.api.put(SECRETS, {"metadata": {"name": "prometheus", "namespace": "good"}, "data": {"token": "czNjcmV0"}})
    assert checks(world, "--stage", "all", namespace="good")[0] == 0


def test_people_get_a_table_within_eighty_columns_and_nothing_of_the_operators_log(shop, make):
    result = shop("good").run("check", "checkout", "-n", "good", "--stage", "all")
    text = make["words"](result.stdout)
    assert text.startswith("good/checkout, stage all: ")
    assert "rule errors pass 0.1 % of" in text
    assert "replaying" not in result.output
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["checkout", "--stage", "nope"], 2, "there is no stage nope: there are few, all"),
        (["nobody"], 1, "there is no CanaryRollout"),
        (["checkout", "--header", "x"], 2, "is no header"),
    ],
)
def test_what_cannot_be_checked_says_why(shop, words, code, said):
    result = shop().run("check", *words)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output


def test_a_prometheus_that_is_away_is_no_verdict(shop):
    world = shop(analysis={"enabled": False}, metrics={"prometheus": "http://127.0.0.1:9"})
    code, data, found = checks(world, "--stage", "all")
    assert (code, data["verdict"], found["errors"]["reason"]) == (3, "none", "NoData")


# -- health ------------------------------------------------------------------------------------------------------------


def test_one_look_shows_both_versions_their_trend_and_what_is_out_of_the_ordinary(shop, make):
    world = shop(age=TURNS_BAD - 120, analysis={"enabled": False})
    result = world.run("health", "checkout", "--once")
    text = make["words"](result.stdout)
    assert result.exit_code == 1
    assert text.startswith("shop/checkout, stage few: NOT HEALTHY")
    assert "request-rate stable 60/s" in text
    assert "! error-rate of canary is " in text
    assert "! error-rate of the canary is " in text
    assert "errors BREACHED" in text
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_a_healthy_canary_has_no_anomalies(shop):
    world = shop("good", analysis={"enabled": False})
    result = world.run("health", "checkout", "-n", "good", "--once", "--stage", "all", "-o", "json")
    data = json.loads(result.stdout)
    assert (result.exit_code, data["verdict"], data["anomalies"]) == (0, "pass", [])
    rate = {entry["version"]: entry for entry in data["metrics"] if entry["metric"] == "request-rate"}
    assert rate["canary"]["now"] == pytest.approx(10, rel=0.02)
    assert rate["canary"]["trend"] == pytest.approx(1, rel=0.05)
    assert len(rate["stable"]["values"]) == 61


def test_it_watches_until_the_time_is_over(shop):
    world = shop(age=TURNS_BAD + 60, analysis={"enabled": False})
    result = world.run("health", "checkout", "--duration", "4m", "--stage", "all")
    assert result.exit_code == 1
    assert world.slept == pytest.approx(240, abs=15)
    lines = [line for line in result.stdout.splitlines() if "Z " in line[:12]]
    assert " pass: canary 10/s, 0.10% failed" in lines[0]
    assert " fail: canary " in lines[-1]


def test_on_a_terminal_it_draws_in_place(shop):
    import io

    world = shop("good", age=60, analysis={"enabled": False})
    world.terminal = io.StringIO()
    assert world.run("health", "checkout", "-n", "good", "--duration", "60s", "--stage", "all").exit_code == 0
    assert "healthy" in world.terminal.getvalue()


def test_data_is_printed_for_one_look_only(shop):
    result = shop().run("health", "checkout", "-o", "json")
    assert (result.exit_code, "add --once" in result.stderr) == (2, True)


def test_a_prometheus_that_is_away_says_how_to_reach_it(shop):
    result = shop(metrics={"prometheus": "http://127.0.0.1:9"}).run("health", "checkout", "--once")
    assert (result.exit_code, "forward a port" in result.stderr) == (3, True)
