"""The nginx router on the fake API server: what it writes, what it sees, what it refuses."""

import json

import pytest
from fake_api import Drop, FakeApi
from proxies import NAMESPACE, StoreReader, World, endpoint_slice, service, spec_of

from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    LEASES,
    SERVICES,
    ConflictError,
    UnavailableError,
)
from canary_rollout.model.spec import Cohort
from canary_rollout.traffic.nginx import NginxRouter
from canary_rollout.traffic.nginx.ack import Ack, to_lease
from canary_rollout.traffic.nginx.document import parse
from canary_rollout.traffic.port import Latch, Proof, Rejected, Route, Written
from canary_rollout.traffic.registry import router_for

INTERNAL = Cohort(header="X-Cohort", values=("internal",))
LATCH = Latch("v2", "error-rate", "5 % of 200 requests failed", 1_000_000.0)


@pytest.fixture
async def world():
    made = World()
    for name, address in (("checkout", "10.96.0.1"), ("checkout-canary", "10.96.0.2"), ("edge", "10.96.0.3")):
        await made.put(SERVICES, service(name, address, 80))
    await made.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
    return made


def document(world):
    return parse(world.config_map()["data"]["weights.json"])


async def acknowledge(world, identity=None, pod="edge-1", renewed=None):
    found = document(world)
    now = 2_000_000_000.0 if renewed is None else renewed
    ack = Ack(
        pod=pod, config_map="checkout-nginx", rollout="checkout", applied=identity or found.identity, applied_at=now,
        config=found.config, mode="njs", weight=found.weight, error="", nginx_version="1.31.3", renewed=now, duration=120,
    )  # fmt: skip
    await world.put(LEASES, to_lease(ack, NAMESPACE, ""))


async def test_the_registry_finds_the_router_that_the_spec_names(world):
    router = world.router()
    assert isinstance(router_for(router._context), NginxRouter)
    assert router.capabilities().proof is Proof.ACKED
    assert router.capabilities().step == 1
    assert router.problems() == []


async def test_before_the_first_write_there_is_no_route(world):
    assert world.router().observe() is None


async def test_a_config_map_that_somebody_made_beforehand_is_no_route_yet(world):
    await world.put(CONFIG_MAPS, {"metadata": {"name": "checkout-nginx", "namespace": NAMESPACE}, "data": {"a": "b"}})
    assert world.router().observe() is None
    await world.route(0)
    assert world.view().weight == 0


async def test_what_is_written_is_seen_and_counts_once_every_proxy_has_said_so(world):
    await world.route(50, cohort=INTERNAL)
    view = world.view()
    assert (view.weight, view.revision, view.cohort, view.confirmed) == (50, "v2", INTERNAL, False)
    assert "edge-1 has no agent that reports" in view.pending
    await acknowledge(world)
    view = world.view()
    assert (view.confirmed, view.confirmed_at, view.pending, view.mode) == (True, 2_000_000_000.0, "", "njs")
    await world.route(500)
    assert not world.view().confirmed


async def test_the_config_map_outlives_the_canaryrollout(world):
    await world.route(50)
    await world.router().release()
    metadata = world.config_map()["metadata"]
    assert "ownerReferences" not in metadata
    assert metadata["labels"]["canaryrollout.dev/rollout"] == "checkout"


async def test_repeating_a_route_asks_the_api_nothing(world):
    route = Route(50, "v2", "v1", INTERNAL, LATCH)
    first = await world.router().ensure(route, fence=None)
    calls = len(world.api.calls)
    again = await world.router().ensure(route, fence=None)
    assert first.changed
    assert again == Written(first.resource_version, changed=False)
    assert len(world.api.calls) == calls


async def test_weights_change_nothing_in_nginx_conf(world):
    await world.route(50)
    before = world.config_map()["data"]["nginx.conf"]
    await world.route(10_000, revision="v3", cohort=INTERNAL)
    assert world.config_map()["data"]["nginx.conf"] == before
    assert document(world).sequence == 2


async def test_weight_zero_has_no_cohort_whatever_is_asked(world):
    await world.route(0, cohort=INTERNAL)
    assert world.view().cohort is None


async def test_a_raise_is_refused_when_the_object_moved_since(world):
    await world.route(50)
    stale = world.view().resource_version
    await world.route(0)
    with pytest.raises(ConflictError):
        await world.router().ensure(Route(500, "v2", "v1"), fence=stale)
    assert world.view().weight == 0


async def test_a_lowering_needs_no_resource_version(world):
    await world.route(500)
    router = world.router()
    await world.api.client("else").merge_patch(
        CONFIG_MAPS, NAMESPACE, "checkout-nginx", {"metadata": {"labels": {"touched": "yes"}}}
    )
    assert isinstance(await router.ensure(Route(0, "v2", "v1"), fence=None), Written)
    assert world.view().weight == 0


async def test_a_verdict_is_written_beside_the_weight_and_survives_until_it_is_taken_back(world):
    await world.route(0, latch=LATCH)
    assert world.view().latch == LATCH
    await world.router().release()
    assert world.view().latch == LATCH
    await world.route(0)
    assert world.view().latch is None


async def test_a_mangled_verdict_still_condemns(world):
    await world.route(0, latch=LATCH)
    await world.api.client("x").merge_patch(
        CONFIG_MAPS, NAMESPACE, "checkout-nginx", {"metadata": {"annotations": {"canaryrollout.dev/latch": "{"}}}
    )
    assert world.view().latch.rule == "unreadable"


async def test_somebody_elses_overwrite_is_named_and_taken_back(world):
    await world.route(50)
    await acknowledge(world)
    text = world.config_map()["data"]["weights.json"].replace('"weight": 50', '"weight": 9000')
    patch = {"data": {"weights.json": text}}
    await world.api.client("x").merge_patch(CONFIG_MAPS, NAMESPACE, "checkout-nginx", patch, manager="kubectl-edit")
    view = world.view()
    assert (view.weight, view.contested_by, view.confirmed) == (9000, "kubectl-edit", False)
    await world.route(50)
    assert world.view().contested_by == ""
    assert world.view().weight == 50


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weight": 3}', "null"])
async def test_a_weight_that_nobody_can_read_is_contested_and_taken_back(world, text):
    await world.route(50)
    await world.api.client("x").merge_patch(
        CONFIG_MAPS, NAMESPACE, "checkout-nginx", {"data": {"weights.json": text}}, manager="vandal"
    )
    view = world.view()
    assert (view.contested_by, view.confirmed, view.outdated) == ("vandal", False, True)
    assert "weights.json" in view.pending
    await world.route(50)
    assert world.view().weight == 50


async def test_a_changed_nginx_conf_is_contested_too(world):
    await world.route(50)
    await world.api.client("x").merge_patch(
        CONFIG_MAPS, NAMESPACE, "checkout-nginx", {"data": {"nginx.conf": "evil"}}, manager="vandal"
    )
    assert world.view().contested_by
    await world.route(50)
    assert "evil" not in world.config_map()["data"]["nginx.conf"]


async def test_a_moved_service_or_a_changed_spec_makes_the_route_outdated(world):
    await world.route(50)
    await acknowledge(world)
    assert not world.view().outdated
    await world.put(SERVICES, service("checkout-canary", "10.96.0.99", 80))
    assert (world.view().outdated, world.view().confirmed) == (True, False)
    await world.route(50)
    assert not world.view().outdated
    world.spec = spec_of(nginx={"service": "edge", "staleAfter": "30s"})
    assert world.view().outdated


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "ExternalName", "externalName": "evil.example"}, "ExternalName"),
        ({"clusterIP": "None", "ports": [{"port": 80}]}, "headless"),
        ({"clusterIP": "10.96.0.1", "ports": []}, "no TCP port"),
        ({"clusterIP": "10.96.0.1", "ports": [{"port": 1}, {"port": 2}]}, "name one of them http"),
        ({"clusterIP": "169.254.169.254", "ports": [{"port": 80}]}, "link-local"),
    ],
)
async def test_a_service_that_cannot_be_routed_to_is_said_and_nothing_is_raised_on_it(world, change, said):
    await world.api.client("cluster").delete(SERVICES, NAMESPACE, "checkout-canary")
    await world.put(SERVICES, {"metadata": {"name": "checkout-canary", "namespace": NAMESPACE}, "spec": change})
    assert any(said in problem for problem in world.router().problems())
    answer = await world.router().ensure(Route(50, "v2", "v1"), fence=None)
    assert isinstance(answer, Rejected)
    assert said in answer.reason
    assert StoreReader(world.api).get(CONFIG_MAPS, NAMESPACE, "checkout-nginx") is None


async def test_a_lowering_is_written_although_the_service_is_gone(world):
    await world.route(500)
    await world.api.client("cluster").delete(SERVICES, NAMESPACE, "checkout-canary")
    await world.route(0)
    assert world.view().weight == 0
    answer = await world.router().ensure(Route(5000, "v2", "v1"), fence=world.view().resource_version)
    assert isinstance(answer, Rejected)


async def test_a_fenced_lowering_is_written_although_the_service_is_gone(world):
    await world.route(5000)
    await world.api.client("cluster").delete(SERVICES, NAMESPACE, "checkout-canary")
    answer = await world.router().ensure(Route(500, "v2", "v1"), fence=world.view().resource_version)
    assert isinstance(answer, Written)
    assert world.view().weight == 500


async def test_a_service_with_several_ports_is_called_on_the_one_named_http(world):
    ports = [
        {"name": "grpc", "port": 9000},
        {"name": "http", "port": 8081},
        {"name": "http", "port": 1, "protocol": "UDP"},
    ]
    await world.api.client("cluster").delete(SERVICES, NAMESPACE, "checkout")
    await world.put(
        SERVICES,
        {"metadata": {"name": "checkout", "namespace": NAMESPACE}, "spec": {"clusterIP": "10.96.0.1", "ports": ports}},
    )
    await world.route(0)
    assert "server 10.96.0.1:8081 max_fails=0;" in world.config_map()["data"]["nginx.conf"]


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        ({"nginx": {"service": "nowhere"}}, "Service shop/nowhere does not exist"),
        ({"sticky": {"cookie": "tenant-id"}}, "cannot read"),
    ],
)
async def test_a_spec_that_nginx_cannot_serve_is_explained(world, traffic, said):
    world.spec = spec_of(**traffic)
    assert any(said in problem for problem in world.router().problems())


async def test_a_cohort_that_nginx_cannot_read_is_explained_before_its_stage_comes(world):
    stages = [
        {"name": "one", "weight": "5%", "hold": "1m", "cohort": {"cookie": "my-cohort", "values": ["a"]}},
        {"name": "all", "weight": "100%", "hold": "1m", "cohort": {"header": "X-A", "values": ["everyone"]}},
    ]
    world.spec = type(world.spec).model_validate(
        {**world.spec.model_dump(mode="json", by_alias=True), "stages": stages}
    )
    problems = world.router().problems()
    assert any("stage one" in problem for problem in problems)
    assert any("stage all" in problem for problem in problems)


async def test_values_that_are_one_for_a_proxy_are_explained(world):
    cohort = {"header": "X-A", "values": ["qa", "QA"]}
    stages = [{"name": "all", "weight": "100%", "hold": "1m", "cohort": cohort}]
    spec = world.spec.model_dump(mode="json", by_alias=True)
    world.spec = type(world.spec).model_validate({**spec, "stages": stages})
    assert world.router().problems() == ["stage all: cohort: values that differ only in case are one: keep one of them"]


async def test_what_the_router_reads_is_what_it_asks_to_be_watched(world):
    asked = {(w.resource, w.name, w.labels) for w in world.router().watched()}
    assert (CONFIG_MAPS, "checkout-nginx", ()) in asked
    assert (LEASES, None, (("canaryrollout.dev/rollout", "checkout"),)) in asked
    assert (ENDPOINT_SLICES, None, (("kubernetes.io/service-name", "edge"),)) in asked
    assert {name for resource, name, _ in asked if resource == SERVICES} == {"checkout", "checkout-canary", "edge"}


async def test_a_lost_answer_is_repeated_safely():
    api = FakeApi()
    world = World(api=api)
    for name, address in (("checkout", "10.96.0.1"), ("checkout-canary", "10.96.0.2"), ("edge", "10.96.0.3")):
        await world.put(SERVICES, service(name, address, 80))
    api.fault(Drop(after_effect=True), verb="patch", resource=CONFIG_MAPS)
    with pytest.raises(UnavailableError):
        await world.router().ensure(Route(0, "v2", "v1"), fence=None)
    await world.route(0)
    assert document(world).sequence == 1


async def test_the_documents_text_is_what_a_person_can_read(world):
    await world.route(50, cohort=INTERNAL)
    raw = json.loads(world.config_map()["data"]["weights.json"])
    assert raw["weight"] == 50
    assert raw["cohort"]["values"] == ["internal"]
    assert raw["schemaVersion"] == 1
    assert len(raw["checksum"]) == 64


async def test_proxies_outside_the_cluster_are_named_and_every_one_must_confirm(world):
    world.spec = spec_of(nginx={"proxies": ["vm-1", "vm-2"], "via": "loadBalancer"})
    for name, address in (("checkout", "203.0.113.1"), ("checkout-canary", "203.0.113.2")):
        await world.put(SERVICES, service(name, "10.96.0.1", 80))
        status = {"loadBalancer": {"ingress": [{"ip": address}]}}
        await world.api.client("cloud").merge_patch(SERVICES, NAMESPACE, name, {"status": status}, subresource="status")
    assert world.router().problems() == []
    await world.route(50)
    assert "server 203.0.113.2:80 max_fails=0;" in world.config_map()["data"]["nginx.conf"]
    assert "waiting for 2 of 2 nginx pods" in world.view().pending
    await acknowledge(world, pod="vm-1")
    assert "vm-2 has no agent that reports" in world.view().pending
    await acknowledge(world, pod="vm-2")
    assert world.view().confirmed
    assert not [watched for watched in world.router().watched() if watched.resource == ENDPOINT_SLICES]


async def test_pods_and_proxies_outside_are_counted_together(world):
    world.spec = spec_of(nginx={"service": "edge", "proxies": ["vm-1"]})
    await world.route(50)
    await acknowledge(world)
    assert "vm-1" in world.view().pending
    await acknowledge(world, pod="vm-1")
    assert world.view().confirmed


async def test_a_service_without_a_load_balancer_is_explained_to_proxies_outside(world):
    world.spec = spec_of(nginx={"proxies": ["vm-1"], "via": "loadBalancer"})
    assert any("no load balancer's IP address" in problem for problem in world.router().problems())


def test_a_router_without_any_proxy_is_refused():
    with pytest.raises(ValueError, match="name the proxies"):
        spec_of(nginx={})


async def test_a_config_map_that_another_rollout_writes_is_neither_read_as_ones_own_nor_overwritten(world):
    await world.route(2500)
    other = World(world.api, spec_of(nginx={"service": "edge", "configMap": "checkout-nginx"}), "cart")
    for name, settings in (("checkout", {}), ("cart", {"configMap": "checkout-nginx"})):
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"traffic": {"nginx": settings}}}
        await world.put(CANARY_ROLLOUTS, body)
    before = world.config_map()
    [problem] = other.router().problems()
    assert "ConfigMap checkout-nginx belongs to CanaryRollout checkout" in problem
    assert other.router().observe() is None
    for weight in (0, 500):
        answer = await other.router().ensure(Route(weight, "v2", "v1"), fence=None)
        assert isinstance(answer, Rejected)
        assert "belongs to CanaryRollout checkout" in answer.reason
    assert world.config_map() == before
    assert world.router().problems() == []
    await world.api.client("user").delete(CANARY_ROLLOUTS, NAMESPACE, "checkout")
    assert other.router().problems() == [], "what a rollout that is gone has left is taken over"
    await other.route(0)
    assert other.view().weight == 0


@pytest.mark.parametrize(
    ("spec", "place", "free"),
    [
        ({"nginx": {"configMap": "edge"}}, None, True),
        ({"gatewayAPI": {}}, {"envoy": {}}, True),
        ({"nginx": {"configMap": "edge"}}, {"nginx": {}}, False),  # it has not left it yet
        ({"nginx": {"configMap": "checkout-nginx"}}, None, False),
        ({"nginx": {"configMap": "edge"}}, [1], True),
        (None, {"nginx": None}, True),
    ],
)
async def test_a_config_map_is_free_once_its_rollout_names_another_and_has_left_it(world, spec, place, free):
    await world.route(0)
    other = World(world.api, spec_of(nginx={"service": "edge", "configMap": "checkout-nginx"}), "cart")
    owner = {"metadata": {"name": "checkout", "namespace": NAMESPACE}, "spec": {"traffic": spec}}
    await world.put(CANARY_ROLLOUTS, {**owner, "status": {"place": {"traffic": place}}})
    assert (other.router().problems() == []) is free
