"""``diff`` by a rollout's name: how its two Services are reached."""

import json
import os

import pytest
from two_versions import PRICES, versions, with_price

from canary_rollout.kube.port import SERVICES


@pytest.fixture
def forwarding(world, tmp_path, monkeypatch):
    """A ``kubectl`` on PATH that says what it was asked, and forwards as ``program`` (a shell script) says."""

    def put(program):
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        kubectl = tmp_path / "kubectl"
        kubectl.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{program}\n', encoding="utf-8")
        kubectl.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        for name in ("checkout", "checkout-canary"):
            world.api.put(
                SERVICES, {"metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}}
            )
        return tmp_path / "asked"

    return put


def test_by_name_the_two_services_are_reached_through_kubectl(world, forwarding, make):
    with versions(lambda _: PRICES, lambda _: with_price(500)) as (stable, canary):
        asked = forwarding(
            f'case "$*" in *canary*) port={canary.server_port};; *) port={stable.server_port};; esac\n'
            'echo "Forwarding from 127.0.0.1:$port -> 80"\nexec sleep 30'
        )
        result = world.run("diff", "checkout", "--path", "/a", "--context", "prod", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["outliers"][0]["canary"] == "500"
    lines = asked.read_text().splitlines()
    options = "--namespace=shop --context=prod port-forward --address=127.0.0.1"
    assert lines == [f"{options} service/checkout :80", f"{options} service/checkout-canary :80"]


def test_inside_the_cluster_the_services_are_asked_directly(world, monkeypatch):
    asked = []

    async def ask_both(requests, settings, rules):
        asked.append((settings.stable, settings.canary))
        return []

    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setattr("canary_rollout.cli.differ.run.ask_both", ask_both)
    for name in ("checkout", "checkout-canary"):
        world.api.put(SERVICES, {"metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": [{"port": 8080}]}})
    assert world.run("diff", "checkout", "--path", "/a").exit_code == 3
    assert asked == [("http://checkout.shop.svc:8080", "http://checkout-canary.shop.svc:8080")]


def test_what_kubectl_says_is_passed_on_when_it_cannot_forward(world, forwarding):
    forwarding("echo 'error: no pods' >&2; exit 1")
    result = world.run("diff", "checkout", "--path", "/a")
    assert (result.exit_code, "to Service checkout: error: no pods" in result.stderr) == (3, True)


@pytest.mark.parametrize(
    ("ports", "words", "said"),
    [
        ([], [], "there is no Service checkout in namespace shop"),
        ([80, 81], [], "has the ports [80, 81]: say which with --port"),
        ([80], ["--port", "81"], "has no port 81; it has 80"),
    ],
)
def test_a_service_or_port_that_is_not_there_is_named(world, ports, words, said):
    if ports:
        spec = {"ports": [{"port": port} for port in ports]}
        world.api.put(SERVICES, {"metadata": {"name": "checkout", "namespace": "shop"}, "spec": spec})
    result = world.run("diff", "checkout", "--path", "/a", *words)
    assert said in result.stderr
