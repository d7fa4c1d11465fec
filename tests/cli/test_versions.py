"""``versions``: both sides with numbers from a Prometheus, and a reason wherever there is no number."""

import json

import pytest
from prometheus_answers import prometheus

from canary_rollout.kube.port import DEPLOYMENTS, PODS, ForbiddenError

AGENT = {"source": "agent"}


def pod(name, replica_set, app, **metadata):
    owners = [{"kind": "ReplicaSet", "name": replica_set}]
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}, "ownerReferences": owners, **metadata}
    }


@pytest.fixture
def shop(world, make):
    world.put(make["rollout"](status=make["progressing"](), metrics={"prometheus": "http://127.0.0.1:9", **AGENT}))
    return world


def test_both_versions_are_shown_with_share_and_numbers(shop, make):
    with prometheus() as (_, url):
        result = shop.run("versions", "checkout", "--prometheus", url)
    text = make["words"](result.stdout)
    assert "VERSION REVISION SHARE REQUESTS ERRORS P50 P99" in text
    assert f"stable {make['stable']} 95% 19000 0.10% 20ms 200ms" in text
    assert "stable: checkout, 0 pods, shop/checkout:1.0" in text
    assert f"canary {make['revision']} 5% 1000 7.40% 25ms 12.5s" in text
    assert result.exit_code == 0
    assert result.stderr == ""
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_the_same_as_data(shop):
    with prometheus() as (_, url):
        data = json.loads(shop.run("versions", "checkout", "--prometheus", url, "-o", "json").stdout)
    assert [entry["version"] for entry in data] == ["stable", "canary"]
    assert data[1]["errorRate"] == pytest.approx(0.074)
    assert data[1]["latencyP99"] == pytest.approx(12.5)
    assert data[1]["share"] == "5%"


def test_the_share_is_what_the_data_plane_confirmed_not_what_is_wanted(shop, make):
    shop.put(make["rollout"](status=make["paused"](), metrics={"prometheus": "http://127.0.0.1:9", **AGENT}))
    with prometheus() as (_, url):
        data = json.loads(shop.run("versions", "checkout", "--prometheus", url, "-o", "json").stdout)
    assert [entry["share"] for entry in data] == ["99.5%", "0.5%"]


def test_the_window_can_be_chosen(shop):
    with prometheus() as (server, url):
        shop.run("versions", "checkout", "--prometheus", url, "--window", "90s")
    assert server.queries
    assert all("[90s]" in query or "[1m30s]" in query for query in server.queries)


def test_a_prometheus_out_of_reach_is_said_once_and_how_to_reach_it(shop, make):
    result = shop.run("versions", "checkout")
    assert result.exit_code == 0
    assert f"canary {make['revision']} 5% - - - -" in make["words"](result.stdout)
    notes = result.stderr.splitlines()
    assert len(notes) == 1
    assert "http://127.0.0.1:9 did not answer from here" in notes[0]
    assert "--prometheus" in notes[0]


def test_a_number_that_is_missing_says_why(shop, make):
    with prometheus(silent=("error",)) as (_, url):
        result = shop.run("versions", "checkout", "--prometheus", url)
    assert "no error-rate in this window" in result.stderr
    assert "1000 - 25ms" in make["words"](result.stdout)


def test_versions_told_apart_by_pod_are_found_by_their_replica_sets(world, make):
    for name, app in (("checkout", "stable"), ("checkout-canary", "canary")):
        found = world.api.objects[DEPLOYMENTS.plural, "shop", name]
        found["spec"]["selector"]["matchLabels"] = {"app": app}
        world.api.put(PODS, pod(f"{name}-abc-x1", f"{name}-abc", app))
        world.api.put(PODS, pod(f"{name}-old-x2", f"{name}-old", app, deletionTimestamp="2025-11-21T10:00:00Z"))
    labels = {"stable": {"cr_arm": "checkout-abc-"}, "canary": {"cr_arm": "checkout-canary-abc-"}}
    with prometheus(labels=labels) as (_, url):
        data = json.loads(world.run("versions", "checkout", "--prometheus", url, "-o", "json").stdout)
    assert [(entry["pods"], entry["requests"]) for entry in data] == [(1, 19_000), (1, 1_000)]


def test_a_deployment_that_is_gone_is_named(shop, make):
    del shop.api.objects[DEPLOYMENTS.plural, "shop", "checkout-canary"]
    with prometheus() as (_, url):
        result = shop.run("versions", "checkout", "--prometheus", url)
    assert "canary: Deployment checkout-canary does not exist" in result.stderr


def test_without_the_right_to_read_deployments_the_numbers_are_still_shown(shop, make):
    shop.api.fail["get", DEPLOYMENTS.plural] = ForbiddenError("get deployments: denied (403)", status=403)
    with prometheus() as (_, url):
        result = shop.run("versions", "checkout", "--prometheus", url)
    assert "denied" in result.stderr
    assert "1000 7.40%" in make["words"](result.stdout)


@pytest.mark.parametrize("url", ["not a url", "http://user:pass@host", "file:///etc/passwd"])
def test_an_address_that_is_none_is_not_asked(shop, url):
    result = shop.run("versions", "checkout", "--prometheus", url)
    assert "prometheus" in result.stderr
    assert "pass@" not in result.stderr


def test_a_spec_of_a_newer_operator_costs_the_numbers_not_the_table(shop, make):
    shop.rollout()["spec"]["moonPhase"] = "full"
    result = shop.run("versions", "checkout")
    assert result.exit_code == 0
    assert "moonPhase" in result.stderr
    assert f"canary {make['revision']} 5%" in make["words"](result.stdout)
