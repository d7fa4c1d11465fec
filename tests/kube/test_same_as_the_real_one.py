"""One list of behaviours, held against the fake API server and (e2e) against a real kube-apiserver: they must agree."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from fake_api import FakeApi, FakeServer

from canary_rollout.controller.clock import SystemClock
from canary_rollout.controller.instruments import Instruments
from canary_rollout.controller.lease import Lease
from canary_rollout.controller.recorder import Recorder
from canary_rollout.kube.cache import Cache
from canary_rollout.kube.client import Client
from canary_rollout.kube.port import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    INGRESSES,
    LEASES,
    SERVICES,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
)
from canary_rollout.model.conditions import Reason


def config_map(name="a", labels=None, **data):
    return {"metadata": {"name": name, "labels": labels or {}}, "data": data}


def fence(obj):
    return {"resourceVersion": obj["metadata"]["resourceVersion"]}


def deployment(name="web"):
    labels = {"app": name}
    container = {"name": "app", "image": "example.com/app:v1"}
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "paused": True,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def ingress():
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {"metadata": {"name": "web"}, "spec": {"rules": [{"host": "shop.example", "http": {"paths": [path]}}]}}


async def fences_hold(client, ns):
    made = await client.create(CONFIG_MAPS, ns, config_map(x="1"))
    with pytest.raises(ConflictError) as twice:
        await client.create(CONFIG_MAPS, ns, config_map())
    assert (twice.value.status, twice.value.reason) == (409, "AlreadyExists")
    same = await client.merge_patch(CONFIG_MAPS, ns, "a", {"data": {"x": "1"}})
    assert fence(same) == fence(made), "a patch that changes nothing keeps the resourceVersion"
    newer = await client.merge_patch(CONFIG_MAPS, ns, "a", {"metadata": fence(made), "data": {"x": "2"}})
    with pytest.raises(ConflictError) as stale:
        await client.merge_patch(CONFIG_MAPS, ns, "a", {"metadata": fence(made), "data": {"x": "3"}})
    assert (stale.value.status, stale.value.reason) == (409, "Conflict")
    with pytest.raises(ConflictError):
        await client.apply(CONFIG_MAPS, ns, "a", {"metadata": fence(made), "data": {"x": "3"}})
    assert (await client.get(CONFIG_MAPS, ns, "a"))["data"] == newer["data"]
    await client.delete(CONFIG_MAPS, ns, "a")
    await client.delete(CONFIG_MAPS, ns, "a")
    with pytest.raises(NotFoundError) as gone:
        await client.get(CONFIG_MAPS, ns, "a")
    assert gone.value.reason == "NotFound"


async def json_patches_are_refused_as_conflicts_when_their_test_does_not_hold(client, ns):
    made = await client.create(CONFIG_MAPS, ns, config_map(x="1"))
    await client.merge_patch(CONFIG_MAPS, ns, "a", {"data": {"x": "2"}})
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]}
    replace = {"op": "replace", "path": "/data/x", "value": "3"}
    with pytest.raises(ConflictError) as late:
        await client.json_patch(CONFIG_MAPS, ns, "a", [test, replace])
    assert (late.value.status, late.value.reason) == (422, "Invalid")
    with pytest.raises(InvalidError):
        await client.json_patch(CONFIG_MAPS, ns, "a", [{"op": "remove", "path": "/data/none"}])
    dry = await client.json_patch(CONFIG_MAPS, ns, "a", [replace], dry_run=True)
    assert dry["data"] == {"x": "3"}
    assert (await client.get(CONFIG_MAPS, ns, "a"))["data"] == {"x": "2"}


async def generation_counts_the_spec_and_status_is_apart(client, ns):
    await client.create(DEPLOYMENTS, ns, deployment())
    labelled = await client.merge_patch(DEPLOYMENTS, ns, "web", {"metadata": {"labels": {"a": "b"}}})
    before = labelled["metadata"]["generation"]
    annotated = await client.merge_patch(DEPLOYMENTS, ns, "web", {"metadata": {"annotations": {"a": "b"}}})
    assert annotated["metadata"]["generation"] == before + 1, "a Deployment's annotations count"
    again = await client.merge_patch(DEPLOYMENTS, ns, "web", {"metadata": {"labels": {"a": "c"}}})
    assert again["metadata"]["generation"] == before + 1, "its labels do not"
    patch = {"spec": {"minReadySeconds": 3}, "status": {"replicas": 7}}
    changed = await client.merge_patch(DEPLOYMENTS, ns, "web", patch)
    assert changed["metadata"]["generation"] == before + 2
    assert changed.get("status", {}).get("replicas", 0) == 0
    patch = {"spec": {"minReadySeconds": 4}, "status": {"collisionCount": 7}}
    status = await client.merge_patch(DEPLOYMENTS, ns, "web", patch, subresource="status")
    assert status["spec"]["minReadySeconds"] == 3
    assert status["status"]["collisionCount"] == 7
    assert status["metadata"]["generation"] == before + 2
    fields = [entry.get("subresource") for entry in status["metadata"]["managedFields"]]
    assert "status" in fields


async def applied_fields_have_owners(client, ns):
    await client.apply(CONFIG_MAPS, ns, "a", {"data": {"a": "1", "b": "1"}}, manager="one")
    await client.apply(CONFIG_MAPS, ns, "a", {"data": {"c": "1"}}, manager="two")
    kept = await client.apply(CONFIG_MAPS, ns, "a", {"data": {"a": "1"}}, manager="one")
    assert kept["data"] == {"a": "1", "c": "1"}
    again = await client.apply(CONFIG_MAPS, ns, "a", {"data": {"a": "1"}}, manager="one")
    assert fence(again) == fence(kept), "an apply that changes nothing keeps the resourceVersion"
    with pytest.raises(ConflictError, match="conflict") as refused:
        await client.apply(CONFIG_MAPS, ns, "a", {"data": {"a": "2"}}, manager="two", force=False)
    assert refused.value.status == 409
    taken = await client.apply(CONFIG_MAPS, ns, "a", {"data": {"a": "2", "c": "1"}}, manager="two")
    owners = {entry["manager"]: entry["fieldsV1"] for entry in taken["metadata"]["managedFields"]}
    assert set(owners) == {"two"}
    assert set(owners["two"]["f:data"]) == {"f:a", "f:c"}


async def a_patch_of_a_rule_owns_all_rules(client, ns):
    await client.apply(INGRESSES, ns, "web", ingress(), manager="kubectl")
    path = "/spec/rules/0/http/paths/0/backend/service/port/number"
    after = await client.json_patch(
        INGRESSES, ns, "web", [{"op": "replace", "path": path, "value": 81}], manager="canary"
    )
    owners = {entry["manager"]: entry["fieldsV1"] for entry in after["metadata"]["managedFields"]}
    assert owners["canary"] == {"f:spec": {"f:rules": {}}}
    with pytest.raises(ConflictError, match=r"\.spec\.rules"):
        await client.apply(INGRESSES, ns, "web", ingress(), manager="kubectl", force=False)


async def watches_replay_and_select(client, ns):
    _, version = await client.list_all(CONFIG_MAPS, ns, labels="mine=yes")
    await client.create(CONFIG_MAPS, ns, config_map("a", {"mine": "yes"}))
    await client.create(CONFIG_MAPS, ns, config_map("b", {"mine": "no"}))
    await client.merge_patch(CONFIG_MAPS, ns, "b", {"metadata": {"labels": {"mine": "yes"}}})
    await client.merge_patch(CONFIG_MAPS, ns, "a", {"metadata": {"labels": {"mine": "no"}}})
    last = await client.create(CONFIG_MAPS, ns, config_map("c", {"mine": "yes"}))
    await client.delete(CONFIG_MAPS, ns, "c")
    seen = []
    watch = client.watch(CONFIG_MAPS, ns, resource_version=version, labels="mine=yes", timeout=30)
    async for kind, obj in watch:
        if kind != "BOOKMARK":
            seen.append((kind, obj["metadata"]["name"]))
        if kind == "DELETED" and obj["metadata"]["name"] == "c":
            assert int(obj["metadata"]["resourceVersion"]) > int(last["metadata"]["resourceVersion"])
            break
    await watch.aclose()
    assert seen == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("ADDED", "c"), ("DELETED", "c")]


async def a_watch_ends_at_its_timeout(client, ns):
    _, version = await client.list_all(CONFIG_MAPS, ns)
    began = asyncio.get_running_loop().time()
    async for _ in client.watch(CONFIG_MAPS, ns, resource_version=version, timeout=1):
        pass
    assert 0.5 <= asyncio.get_running_loop().time() - began <= 100, "that is 1 s, not the 290 it takes by itself"


async def lists_are_paged(client, ns, monkeypatch):
    monkeypatch.setattr("canary_rollout.kube.client.PAGE", 3)
    for n in range(7):
        await client.create(CONFIG_MAPS, ns, config_map(f"c{n}", {"page": "yes"}))
    items, version = await client.list_all(CONFIG_MAPS, ns, labels="page=yes")
    assert [item["metadata"]["name"] for item in items] == [f"c{n}" for n in range(7)]
    assert int(version) >= max(int(item["metadata"]["resourceVersion"]) for item in items)
    assert {(item["apiVersion"], item["kind"]) for item in items} == {("v1", "ConfigMap")}
    cache = Cache()
    cache.replace(CONFIG_MAPS, ns, items, version)
    assert cache.count(CONFIG_MAPS) == 7


async def a_lease_is_taken_kept_and_released(client, ns):
    lost = []
    lease = Lease(client, namespace=ns, name="operator", identity="one", on_lost=lost.append)
    assert await lease.acquire() == 1
    keeping = asyncio.create_task(lease.keep())
    await asyncio.sleep(3)
    assert lease.valid()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    again = Lease(client, namespace=ns, name="operator", identity="one")
    assert await again.acquire() == 1
    stored = (await client.get(LEASES, ns, "operator"))["spec"]
    assert (stored["holderIdentity"], stored["leaseTransitions"]) == ("one", 0)
    await again.release()
    other = Lease(client, namespace=ns, name="operator", identity="two")
    assert await other.acquire() == 1
    assert (await client.get(LEASES, ns, "operator"))["spec"]["leaseTransitions"] == 1
    assert not lost


async def events_are_accepted(client, ns):
    instruments = Instruments()
    clock = SystemClock()
    recorder = Recorder(client, instruments, instance="one", clock=clock)
    service = await client.create(
        SERVICES, ns, {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}}
    )
    running = asyncio.create_task(recorder.run())
    for _ in range(3):
        recorder.event(service, Reason.STAGE_STARTED, "stage one began", warning=True)
    recorder._series.clear()
    await recorder.flush(10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    items, _ = await client.list_all(EVENTS, ns, fields="reason=StageStarted")
    assert [item["note"] for item in items] == ["stage one began"]
    patched = await client.merge_patch(
        EVENTS,
        ns,
        items[0]["metadata"]["name"],
        {"series": {"count": 3, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}},
    )
    assert patched["series"]["count"] == 3


CASES = [
    fences_hold,
    json_patches_are_refused_as_conflicts_when_their_test_does_not_hold,
    generation_counts_the_spec_and_status_is_apart,
    applied_fields_have_owners,
    a_patch_of_a_rule_owns_all_rules,
    watches_replay_and_select,
    a_watch_ends_at_its_timeout,
    a_lease_is_taken_kept_and_released,
    events_are_accepted,
]
NAMES = [case.__name__ for case in CASES]


@asynccontextmanager
async def connected(kubeconfig):
    client = await Client.from_kubeconfig(str(kubeconfig))
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
async def test_the_fake_one(case, tmp_path):
    api = FakeApi()
    api.store.version = 10_000
    api.store.compact()
    async with FakeServer(api) as server, connected(server.kubeconfig(tmp_path / "config")) as client:
        await case(client, "shop")


@pytest.mark.e2e
@pytest.mark.parametrize("case", CASES, ids=NAMES)
async def test_the_real_one(case, local_cluster, namespace):
    async with connected(local_cluster.kubeconfig) as client:
        await case(client, namespace)


@pytest.mark.e2e
async def test_the_real_one_pages(local_cluster, namespace, monkeypatch):
    async with connected(local_cluster.kubeconfig) as client:
        await lists_are_paged(client, namespace, monkeypatch)


@pytest.mark.e2e
async def test_the_real_one_says_which_right_is_missing(local_cluster, namespace):
    async with connected(await local_cluster.kubeconfig_for(namespace, "default")) as client:
        with pytest.raises(ForbiddenError, match="cannot list resource"):
            await client.list_all(DEPLOYMENTS)
