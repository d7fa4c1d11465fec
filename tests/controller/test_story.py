"""Releases that go well, told as stories: the whole operator on the fake API server, in virtual time."""

import asyncio
from itertools import pairwise

import pytest
from fake_api import Failure
from operator_world import SHOP, World
from virtual_time import now

from canary_rollout.kube.port import CANARY_ROLLOUTS, CONFIG_MAPS, DEPLOYMENTS, PODS
from canary_rollout.model.commands import Verb

pytestmark = [pytest.mark.looptime]

MANUAL = {
    "stable": {"service": "checkout", "deployment": "checkout"},
    "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
    "drain": "30s",
    "promotion": "Manual",
}


async def test_a_good_release_goes_through_all_stages_and_becomes_stable():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        await world.rest("Succeeded")
        assert world.raised == [50, 500, 2500, 10000]
        times = [at for at, weight, _ in world.weights if weight]
        assert all(later - earlier >= 60 for earlier, later in pairwise(times))
        assert world.weight == 0
        assert world.image("checkout") == "app:v2"
        await world.until(lambda: not world.deployment()["spec"].get("paused"))
        assert not world.look(CANARY_ROLLOUTS, "checkout")["metadata"].get("finalizers")
        assert world.status["history"][0]["result"] == "Succeeded"
        assert world.condition("Ready")["status"] == "True"
    assert world.told.reasons().count("StageStarted") == 4


async def test_a_release_that_was_there_before_the_operator_is_noticed():
    world = await World().build()
    await world.release()
    async with world.run():
        await world.reach("first")


async def test_equal_templates_mean_nothing_to_do():
    world = await World().build()
    async with world.run():
        await world.rest("Idle")
        await asyncio.sleep(60)
        assert world.weight == 0
        assert not world.deployment()["spec"].get("paused")
        assert not world.look(CANARY_ROLLOUTS, "checkout")["metadata"].get("finalizers")


async def test_a_canary_that_is_not_ready_is_never_raised_and_said_to_be_late():
    world = await World().build()
    async with world.run():
        await world.rest("Idle")
        world.deployments.ready_after = None
        await world.release()
        await world.rest("Preparing")
        await asyncio.sleep(300)
        assert not world.raised
        assert "pods of Deployment checkout-canary are ready" in world.message
        await world.until(lambda: world.condition("Stalled"), within=600)
        assert world.condition("Stalled")["reason"] == "ProgressDeadlineExceeded"
        assert not world.raised
        world.deployments.ready(SHOP, "checkout-canary")
        await world.reach("first")


async def test_a_new_revision_gets_its_pods_only_when_the_data_plane_serves_stable_only():
    world = await World().build()
    made: list[tuple[float, int]] = []

    def pods_made(event):
        if (
            event.resource == PODS
            and event.before is None
            and event.after["spec"]["containers"][0]["image"] == "app:v3"
        ):
            made.append((now(), world.weight))

    world.api.store.listeners.append(pods_made)
    async with world.run():
        await world.serve("third")
        before = world.state["revision"]
        began = now()
        await world.release("v3")
        await world.until(lambda: world.state["revision"] != before)
        assert not made
        await world.reach("first")
        assert made
        assert all(weight == 0 for _, weight in made)
        empty = next(at for at, weight, _ in world.weights if at > began and weight == 0)
        assert made[0][0] >= empty + 30, "what was under way on the old pods had its time"
        order = [str(call) for call in world.writes(since=began)]
        cause = order.index("patch canaryrollouts shop/checkout/status")
        lowered = order.index("patch configmaps shop/checkout-nginx")
        released = order.index("patch deployments shop/checkout-canary")
        assert cause < lowered < released
    assert world.status["history"][0]["result"] == "Superseded"
    assert world.raised[-1] == 50


async def test_a_revert_takes_the_traffic_back_and_rests():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        await world.release("v1")
        await world.rest("Idle")
        assert world.weight == 0
        await world.until(lambda: not world.deployment()["spec"].get("paused"))
        assert world.raised == [50, 500]


async def test_traffic_stays_on_the_canary_until_stable_is_updated_on_all_its_pods():
    world = await World().build()
    async with world.run():
        await world.serve("all")
        world.deployments.ready_after = None
        await world.rest("Promoting")
        await world.until(lambda: world.image("checkout") == "app:v2")
        await asyncio.sleep(120)
        assert world.weight == 10000
        assert world.phase == "Promoting"
        world.deployments.ready(SHOP, "checkout")
        await world.rest("Succeeded")
        assert world.weight == 0


async def test_a_third_revision_waits_until_the_second_is_stable():
    world = await World().build()
    async with world.run():
        await world.serve("all")
        world.deployments.ready_after = 45.0
        await world.rest("Promoting")
        second = world.state["revision"]
        await world.release("v3")
        await asyncio.sleep(20)
        assert (world.weight, world.state["revision"]) == (10000, second)
        assert not [pod for pod in world.deployments.pods(SHOP, "checkout-canary") if _image(pod) == "app:v3"]
        await world.until(lambda: world.state["revision"] != second)
        assert world.image("checkout") == "app:v2"
        await world.reach("first")
        assert world.status["history"][0]["result"] == "Succeeded"


async def test_manual_promotion_waits_for_the_users_own_change():
    world = await World(workload=MANUAL).build()
    async with world.run():
        await world.serve("all")
        await world.rest("AwaitingPromotion")
        await asyncio.sleep(600)
        assert world.weight == 10000
        assert world.image("checkout") == "app:v1"
        await world.release("v2", "checkout")
        await world.rest("Succeeded")
        assert world.weight == 0


async def test_a_copied_template_keeps_stables_labels_and_identity():
    workload = {**MANUAL, "promotion": "CopyTemplate", "identityPaths": ["/spec/containers/0/env/TRACK"]}
    world = await World(workload=workload).build()
    for name, track in (("checkout", "stable"), ("checkout-canary", "canary")):
        container = {"name": "app", "image": "app:v1", "env": [{"name": "TRACK", "value": track}]}
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await world.user.merge_patch(DEPLOYMENTS, SHOP, name, body)
    async with world.run():
        await world.rest("Idle")
        container = {"name": "app", "image": "app:v2", "env": [{"name": "TRACK", "value": "canary"}]}
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await world.user.merge_patch(DEPLOYMENTS, SHOP, "checkout-canary", body)
        await world.rest("Succeeded")
    template = world.deployment("checkout")["spec"]["template"]
    assert template["spec"]["containers"][0] == {
        "name": "app",
        "image": "app:v2",
        "env": [{"name": "TRACK", "value": "stable"}],
    }
    assert template["metadata"]["labels"] == {"app": "checkout", "track": "stable"}


async def test_the_canary_is_scaled_up_for_a_rollout_and_down_after_the_drain():
    workload = {**MANUAL, "promotion": "CopyTemplate"}
    workload["canary"] = {**workload["canary"], "scaling": {"replicas": 3, "idleReplicas": 0}}
    world = await World(workload=workload).build()
    async with world.run():
        await world.until(lambda: world.deployment()["spec"]["replicas"] == 0)
        await world.serve("first")
        assert world.deployment()["spec"]["replicas"] == 3
        await world.rest("Returning")
        emptied = await world.until(lambda: world.weight == 0)
        scaled = await world.until(lambda: world.deployment()["spec"]["replicas"] == 0)
        assert scaled - emptied >= 30
        await world.rest("Succeeded")


async def test_a_stage_that_needs_approval_waits_for_it():
    stages = [
        {"name": "first", "weight": "5%", "hold": "20s"},
        {"name": "all", "weight": "100%", "hold": "20s", "approval": "required"},
    ]
    world = await World(stages=stages).build()
    async with world.run():
        await world.serve("first")
        await world.rest("AwaitingApproval")
        await asyncio.sleep(300)
        assert world.weight == 500
        await world.say(Verb.APPROVE)
        await world.rest("Succeeded")
        assert world.raised == [500, 10000]


async def test_prometheus_that_is_down_holds_the_weight_says_so_and_lets_it_go_on():
    world = await World().build()
    async with world.run():
        entered = await world.serve("second")
        await asyncio.sleep(5)
        world.numbers.down = True
        await world.until(lambda: world.condition("Ready").get("reason") == "NoData")
        await asyncio.sleep(120)
        assert (world.weight, world.phase) == (500, "Progressing")
        assert "no data since" in world.message
        world.numbers.down = False
        await world.reach("third")
        assert now() - entered >= 60 + 115, "time without data does not count"
        await world.rest("Succeeded")
    assert world.raised == [50, 500, 2500, 10000]
    assert {"NoData", "Resumed"} <= set(world.told.reasons())


async def test_an_operator_of_one_namespace_lists_and_watches_nothing_else():
    world = await World(namespaces=(SHOP,)).build()
    async with world.run():
        await world.serve("first")
        await world.rest("Succeeded")
        asked = world.api.calls_of("operator", "list", "watch")
        assert {call.namespace for call in asked} == {SHOP}


async def test_an_edit_of_the_spec_does_not_raise_the_weight():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        stages = [{**stage} for stage in world.rollout["spec"]["stages"]]
        stages[1]["weight"] = "20%"
        await world.edit(stages=stages)
        await world.until(lambda: world.status["observedGeneration"] == 2)
        await asyncio.sleep(5)
        assert world.weight == 500
        await world.reach("third")


async def test_the_router_may_be_moved_and_leaves_the_old_route_at_stable():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        await world.edit(traffic={"nginx": {"service": "proxy", "configMap": "edge"}})
        await world.until(lambda: world.look(CONFIG_MAPS, "edge"))
        await world.until(lambda: '"weight": 0' in _weights(world, "checkout-nginx"))


async def test_another_canary_deployment_gives_the_old_one_back():
    world = await World().build()
    body = {**world.deployment("checkout-canary")}
    twin = {"metadata": {"name": "checkout-next"}, "apiVersion": "apps/v1", "kind": "Deployment"}
    labels = {"app": "checkout", "track": "next"}
    template = {**body["spec"]["template"], "metadata": {"labels": labels}}
    twin["spec"] = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    await world.user.create(DEPLOYMENTS, SHOP, twin)
    async with world.run():
        await world.serve("second")
        assert world.deployment()["spec"]["paused"]
        workload = {**world.rollout["spec"]["workload"]}
        workload["canary"] = {"service": "checkout-canary", "deployment": "checkout-next"}
        await world.edit(workload=workload)
        await world.until(lambda: not world.deployment("checkout-canary")["spec"].get("paused"))
        await world.until(lambda: world.weight == 0)


async def test_a_release_survives_watches_that_are_gone():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        world.api.gone_watches()
        await world.reach("second")
        world.api.end_watches(Failure(500, "InternalError", "etcdserver: leader changed"))
        await world.rest("Succeeded")
    assert world.raised == [50, 500, 2500, 10000]


def _image(pod):
    return pod["spec"]["containers"][0]["image"]


def _weights(world, name):
    return world.look(CONFIG_MAPS, name).get("data", {}).get("weights.json", "")
