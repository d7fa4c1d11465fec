"""The fake API server behaves as the real one was measured to: whatever is built on it leans on these."""

import asyncio

import pytest
from fake_api import Answer, Before, Deployments, Drop, FakeApi, Hang, Killed, Slow, kill_points

from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    PODS,
    ConflictError,
    GoneError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)

pytestmark = [pytest.mark.looptime]


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def client(api):
    return api.client()


def config_map(name="a", **data):
    return {"metadata": {"name": name}, "data": data}


def rollout(name="shop", **spec):
    return {"metadata": {"name": name}, "spec": spec}


def deployment(name="web", *, replicas=2, image="v1", paused=False):
    labels = {"app": name}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "paused": paused,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": image}]}},
        },
    }


async def test_a_created_object_gets_what_the_server_fills_in(client):
    made = await client.create(CANARY_ROLLOUTS, "shop", rollout(paused=True))
    assert made["metadata"]["uid"]
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["namespace"] == "shop"
    assert int(made["metadata"]["resourceVersion"]) > 0
    assert made == await client.get(CANARY_ROLLOUTS, "shop", "shop")
    with pytest.raises(ConflictError):
        await client.create(CANARY_ROLLOUTS, "shop", rollout())


async def test_a_patch_that_changes_nothing_keeps_the_resource_version(client):
    made = await client.create(CONFIG_MAPS, "shop", config_map(a="1"))
    same = await client.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"a": "1"}})
    assert same == made
    other = await client.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"a": "2"}})
    assert int(other["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


async def test_a_stale_resource_version_is_a_conflict(client):
    made = await client.create(CONFIG_MAPS, "shop", config_map(a="1"))
    fence = {"resourceVersion": made["metadata"]["resourceVersion"]}
    await client.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"a": "2"}})
    with pytest.raises(ConflictError, match="has been modified"):
        await client.merge_patch(CONFIG_MAPS, "shop", "a", {"metadata": fence, "data": {"a": "3"}})
    with pytest.raises(ConflictError):
        await client.apply(CONFIG_MAPS, "shop", "a", {"metadata": fence, "data": {"a": "3"}})
    assert (await client.get(CONFIG_MAPS, "shop", "a"))["data"] == {"a": "2"}


async def test_a_json_patch_with_a_stale_test_is_a_conflict_and_changes_nothing(client):
    made = await client.create(CONFIG_MAPS, "shop", config_map(a="1"))
    await client.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"a": "2"}})
    version = made["metadata"]["resourceVersion"]
    with pytest.raises(ConflictError) as refused:
        await client.json_patch(
            CONFIG_MAPS,
            "shop",
            "a",
            [
                {"op": "test", "path": "/metadata/resourceVersion", "value": version},
                {"op": "replace", "path": "/data/a", "value": "3"},
            ],
        )
    assert refused.value.status == 422
    assert (await client.get(CONFIG_MAPS, "shop", "a"))["data"] == {"a": "2"}
    with pytest.raises(InvalidError):
        await client.json_patch(CONFIG_MAPS, "shop", "a", [{"op": "remove", "path": "/data/none"}])


async def test_a_dry_run_answers_and_stores_nothing(api, client):
    made = await client.create(CONFIG_MAPS, "shop", config_map(a="1"))
    replace = [{"op": "replace", "path": "/data/a", "value": "2"}]
    assert (await client.json_patch(CONFIG_MAPS, "shop", "a", replace, dry_run=True))["data"] == {"a": "2"}
    assert await client.get(CONFIG_MAPS, "shop", "a") == made


async def test_status_and_spec_are_written_apart(client):
    await client.create(CANARY_ROLLOUTS, "shop", rollout(paused=True) | {"status": {"phase": "Made up"}})
    status = await client.merge_patch(
        CANARY_ROLLOUTS, "shop", "shop", {"status": {"phase": "Idle"}, "spec": {"paused": False}}, subresource="status"
    )
    assert (status["spec"], status["status"]) == ({"paused": True}, {"phase": "Idle"})
    assert status["metadata"]["generation"] == 1
    spec = await client.merge_patch(
        CANARY_ROLLOUTS, "shop", "shop", {"spec": {"paused": False}, "status": {"phase": "Paused"}}
    )
    assert (spec["spec"], spec["status"]) == ({"paused": False}, {"phase": "Idle"})
    assert spec["metadata"]["generation"] == 2


async def test_finalizers_hold_an_object_until_they_are_gone(client):
    body = rollout()
    body["metadata"]["finalizers"] = ["x/y"]
    await client.create(CANARY_ROLLOUTS, "shop", body)
    await client.delete(CANARY_ROLLOUTS, "shop", "shop")
    held = await client.get(CANARY_ROLLOUTS, "shop", "shop")
    assert held["metadata"]["deletionTimestamp"]
    await client.merge_patch(CANARY_ROLLOUTS, "shop", "shop", {"metadata": {"finalizers": None}})
    with pytest.raises(NotFoundError):
        await client.get(CANARY_ROLLOUTS, "shop", "shop")
    await client.delete(CANARY_ROLLOUTS, "shop", "shop")  # gone is fine


async def test_server_side_apply_owns_its_fields_and_takes_back_what_it_no_longer_applies(client):
    await client.apply(CONFIG_MAPS, "shop", "a", {"data": {"a": "1", "b": "1"}}, manager="one")
    await client.apply(CONFIG_MAPS, "shop", "a", {"data": {"c": "1"}}, manager="two")
    after = await client.apply(CONFIG_MAPS, "shop", "a", {"data": {"a": "1"}}, manager="one")
    assert after["data"] == {"a": "1", "c": "1"}
    managers = {(entry["manager"], entry["operation"]) for entry in after["metadata"]["managedFields"]}
    assert managers == {("one", "Apply"), ("two", "Apply")}


async def test_server_side_apply_conflicts_with_other_owners_unless_forced(client):
    await client.apply(CONFIG_MAPS, "shop", "a", {"data": {"a": "1"}}, manager="one")
    with pytest.raises(ConflictError, match='conflict with "one"'):
        await client.apply(CONFIG_MAPS, "shop", "a", {"data": {"a": "2"}}, manager="two", force=False)
    taken = await client.apply(CONFIG_MAPS, "shop", "a", {"data": {"a": "2"}}, manager="two")
    [entry] = taken["metadata"]["managedFields"]
    assert (entry["manager"], entry["fieldsV1"]) == ("two", {"f:data": {"f:a": {}}})


async def test_a_weight_patch_owns_the_whole_list(client):
    rules = [{"host": "a", "weight": 1}]
    await client.apply(INGRESSES, "shop", "web", {"spec": {"rules": rules}}, manager="kubectl")
    after = await client.json_patch(
        INGRESSES, "shop", "web", [{"op": "replace", "path": "/spec/rules/0/weight", "value": 2}], manager="canary"
    )
    [entry] = after["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("canary", "Update")
    assert entry["fieldsV1"] == {"f:spec": {"f:rules": {}}}
    with pytest.raises(ConflictError, match=r"\.spec\.rules"):
        await client.apply(INGRESSES, "shop", "web", {"spec": {"rules": rules}}, manager="kubectl", force=False)


async def test_lists_are_selected_by_labels_and_fields(client):
    for name, tier in (("a", "x"), ("b", "y"), ("c", None)):
        body = config_map(name)
        body["metadata"]["labels"] = {"tier": tier} if tier else {}
        await client.create(CONFIG_MAPS, "shop", body)

    async def names(**selectors):
        items, _ = await client.list_all(CONFIG_MAPS, "shop", **selectors)
        return [item["metadata"]["name"] for item in items]

    assert await names(labels="tier=x") == ["a"]
    assert await names(labels="tier in (x, y)") == ["a", "b"]
    assert await names(labels="tier notin (x)") == ["b", "c"]
    assert await names(labels="!tier") == ["c"]
    assert await names(labels="tier,tier!=x") == ["b"]
    assert await names(fields="metadata.name=b") == ["b"]


async def watched(client, resource, version, *, count, **selectors):
    seen = []
    async for kind, obj in client.watch(resource, "shop", resource_version=version, **selectors):
        seen.append((kind, obj["metadata"].get("name")))
        if len(seen) == count:
            break
    return seen


async def test_a_watch_replays_what_came_after_its_version(client):
    await client.create(CONFIG_MAPS, "shop", config_map("a"))
    _, version = await client.list_all(CONFIG_MAPS, "shop")
    await client.create(CONFIG_MAPS, "shop", config_map("b"))
    await client.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"x": "1"}})
    await client.delete(CONFIG_MAPS, "shop", "b")
    assert await watched(client, CONFIG_MAPS, version, count=3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


async def test_an_object_that_leaves_the_selector_is_deleted_for_the_watch(client):
    body = config_map("a")
    body["metadata"]["labels"] = {"mine": "yes"}
    _, version = await client.list_all(CONFIG_MAPS, "shop")
    await client.create(CONFIG_MAPS, "shop", body)
    await client.merge_patch(CONFIG_MAPS, "shop", "a", {"metadata": {"labels": {"mine": "no"}}})
    seen = await watched(client, CONFIG_MAPS, version, count=2, labels="mine=yes")
    assert seen == [("ADDED", "a"), ("DELETED", "a")]


async def test_a_watch_sends_bookmarks_and_ends_at_its_timeout(client, looptime):
    kinds = [kind async for kind, _ in client.watch(CONFIG_MAPS, "shop", resource_version="100", timeout=150)]
    assert kinds == ["BOOKMARK"] * 3
    assert looptime == 150


async def test_a_watch_from_before_the_compaction_is_gone(api, client):
    await client.create(CONFIG_MAPS, "shop", config_map("a"))
    api.store.compact()
    with pytest.raises(GoneError):
        await watched(client, CONFIG_MAPS, "100", count=1)


async def test_faults_answer_hang_drop_and_delay(api, client, looptime):
    await client.create(CONFIG_MAPS, "shop", config_map("a", x="1"))
    api.fault(Answer(429, retry_after=7), verb="get")
    with pytest.raises(UnavailableError) as slow_down:
        await client.get(CONFIG_MAPS, "shop", "a")
    assert (slow_down.value.status, slow_down.value.retry_after) == (429, 7)
    api.fault(Hang(), verb="get")
    with pytest.raises(UnavailableError, match="within 10 s"):
        await client.get(CONFIG_MAPS, "shop", "a")
    assert looptime == 10
    api.fault(Drop(), verb="patch")
    with pytest.raises(UnavailableError):
        await client.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"x": "2"}})
    assert api.store.get(CONFIG_MAPS, "shop", "a")["data"] == {"x": "1"}
    api.fault(Drop(after_effect=True), verb="patch")
    with pytest.raises(UnavailableError):
        await client.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"x": "2"}})
    assert api.store.get(CONFIG_MAPS, "shop", "a")["data"] == {"x": "2"}
    api.fault(Slow(3), verb="get")
    assert (await client.get(CONFIG_MAPS, "shop", "a"))["data"] == {"x": "2"}
    assert looptime == 13


async def test_somebody_else_can_be_made_to_write_in_between(api, client):
    made = await client.create(CONFIG_MAPS, "shop", config_map("a"))
    api.fault(Before(lambda: api.store.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"x": "theirs"}})), verb="patch")
    fence = {"resourceVersion": made["metadata"]["resourceVersion"]}
    with pytest.raises(ConflictError):
        await client.merge_patch(CONFIG_MAPS, "shop", "a", {"metadata": fence, "data": {"x": "ours"}})


async def two_writes(client):
    await client.create(CONFIG_MAPS, "shop", config_map("a"))
    await client.get(CONFIG_MAPS, "shop", "a")
    await client.merge_patch(CONFIG_MAPS, "shop", "a", {"data": {"x": "1"}})


async def test_a_process_can_be_killed_around_every_one_of_its_calls():
    whole = FakeApi()
    await two_writes(whole.client())
    points = list(kill_points(whole.calls_of()))
    assert points == [(1, False), (1, True), (2, False), (3, False), (3, True)]
    left = []
    for n, after in points:
        api = FakeApi()
        client = api.client()
        api.kill_at(n, after=after)
        with pytest.raises(Killed):
            await two_writes(client)
        assert api.killed.is_set()
        with pytest.raises(Killed):
            await client.get(CONFIG_MAPS, "shop", "a")
        found = api.store.peek(CONFIG_MAPS, "shop", "a")
        left.append(None if found is None else found.get("data"))
        if found is not None:
            await api.client().get(CONFIG_MAPS, "shop", "a")  # the next process lives
    assert left == [None, {}, {}, {}, {"x": "1"}]


async def test_a_deployment_becomes_available(api, client, looptime):
    Deployments(api, ready_after=5)
    await client.create(DEPLOYMENTS, "shop", deployment())
    await asyncio.sleep(1)
    early = await client.get(DEPLOYMENTS, "shop", "web")
    assert (early["status"]["replicas"], early["status"]["availableReplicas"]) == (2, 0)
    await asyncio.sleep(5)
    late = await client.get(DEPLOYMENTS, "shop", "web")
    assert late["status"]["availableReplicas"] == 2
    assert late["status"]["observedGeneration"] == late["metadata"]["generation"]
    pods, _ = await client.list_all(PODS, "shop", labels="app=web")
    assert len(pods) == 2
    assert len({pod["metadata"]["labels"]["pod-template-hash"] for pod in pods}) == 1


async def test_a_changed_template_replaces_the_pods_once_the_new_ones_are_ready(api, client):
    simulated = Deployments(api, ready_after=5)
    await client.create(DEPLOYMENTS, "shop", deployment())
    await asyncio.sleep(6)
    old = {pod["metadata"]["name"] for pod in simulated.pods("shop", "web")}
    await client.merge_patch(DEPLOYMENTS, "shop", "web", {"spec": deployment(image="v2")["spec"]})
    await asyncio.sleep(1)
    assert len(simulated.pods("shop", "web")) == 4
    await asyncio.sleep(5)
    assert not old & {pod["metadata"]["name"] for pod in simulated.pods("shop", "web")}
    status = (await client.get(DEPLOYMENTS, "shop", "web"))["status"]
    assert (status["replicas"], status["updatedReplicas"], status["availableReplicas"]) == (2, 2, 2)


async def test_a_paused_deployment_makes_no_new_pods_but_still_scales(api, client):
    simulated = Deployments(api)
    await client.create(DEPLOYMENTS, "shop", deployment())
    await asyncio.sleep(1)
    before = {pod["metadata"]["name"] for pod in simulated.pods("shop", "web")}
    spec = deployment(image="v2", paused=True, replicas=3)["spec"]
    await client.merge_patch(DEPLOYMENTS, "shop", "web", {"spec": spec})
    await asyncio.sleep(1)
    after = simulated.pods("shop", "web")
    assert before < {pod["metadata"]["name"] for pod in after}
    assert len(after) == 3
    status = (await client.get(DEPLOYMENTS, "shop", "web"))["status"]
    assert (status["updatedReplicas"], status["readyReplicas"]) == (0, 3)
    await client.merge_patch(DEPLOYMENTS, "shop", "web", {"spec": {"paused": False}})
    await asyncio.sleep(1)
    assert (await client.get(DEPLOYMENTS, "shop", "web"))["status"]["updatedReplicas"] == 3


async def test_pods_crash_and_recover_on_command(api, client):
    simulated = Deployments(api)
    await client.create(DEPLOYMENTS, "shop", deployment())
    await asyncio.sleep(1)
    simulated.crash("shop", "web", reason="OOMKilled")
    [pod, _] = simulated.pods("shop", "web")
    [container] = pod["status"]["containerStatuses"]
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["reason"] == "OOMKilled"
    assert (await client.get(DEPLOYMENTS, "shop", "web"))["status"]["readyReplicas"] == 0
    simulated.ready("shop", "web")
    assert (await client.get(DEPLOYMENTS, "shop", "web"))["status"]["readyReplicas"] == 2
