"""``versions``: both sides with numbers from a Prometheus, and a reason wherever there is no number."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from canary_rollout.kube.port import DEPLOYMENTS, PODS, ForbiddenError

AGENT = {"source": "agent"}
VALUES = {
    "stable": {"requests": 19_000, "error": 0.001, "0.5": 0.02, "0.99": 0.2},
    "canary": {"requests": 1_000, "error": 0.074, "0.5": 0.025, "0.99": 12.5},
}


class Answers(BaseHTTPRequestHandler):
    """Answers every instant query of the agent's presets with one series per version."""

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)["query"][0]
        self.server.queries.append(query)
        result = [
            {
                "metric": {"namespace": "shop", "rollout": "checkout", "version": version}
                | self.server.labels.get(version, {}),
                "value": [0, str(values[self._what(query)])],
            }
            for version, values in VALUES.items()
            if self._what(query) not in self.server.silent
        ]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @staticmethod
    def _what(query):
        for quantile in ("0.99", "0.5"):
            if f"histogram_quantile({quantile}," in query:
                return quantile
        return "error" if "/" in query else "requests"

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def prometheus(silent=(), labels=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.queries, server.silent, server.labels = [], silent, labels or {}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
    assert len(notes) == 2
    assert all("http://127.0.0.1:9 did not answer from here" in note and "--prometheus" in note for note in notes)


def test_a_number_that_is_missing_says_why(shop, make):
    with prometheus(silent=("error",)) as (_, url):
        result = shop.run("versions", "checkout", "--prometheus", url)
    assert "canary: no error-rate in this window" in result.stderr
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
