"""A spec that names another place while a revision serves: nobody gets the canary by the old one, whoever looks and when."""

import asyncio
import json

import pytest
from operator_world import ROLLOUT, SHOP, World, _deployment, _service
from weighted_objects import virtual_service

from canary_rollout.controller.place import place_of, spec_of_place
from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    ROLLOUT_LABEL,
    SERVICES,
    VIRTUAL_SERVICES,
)
from canary_rollout.model.spec import CanaryRolloutSpec

pytestmark = [pytest.mark.looptime]

EDGE = {"nginx": {"service": "proxy", "configMap": "edge"}}
ELSEWHERE = {"nginx": None, "ingressNginx": {"ingress": "shop", "controllerVersion": "1.12.1"}}


def written(world, name="checkout-nginx"):
    """Basis points that a ConfigMap says."""
    return json.loads(world.look(CONFIG_MAPS, name)["data"]["weights.json"])["weight"]


async def at_five_percent(**changes):
    world = await World(**changes).build()
    world.start()
    await world.serve("second")
    return world


async def test_a_route_that_is_moved_while_no_operator_runs_is_left_by_the_next_one():
    world = await at_five_percent()
    try:
        assert world.status["place"]["traffic"] == {"nginx": {"service": "proxy"}}
        await world.replicas[-1].end(kill=True)
        await world.edit(traffic=EDGE)
        world.start()
        await world.until(lambda: written(world) == 0, 60)
        await world.until(lambda: world.status["place"]["traffic"] == EDGE, 60)
        assert "halt" not in world.status, "it is moved, and no verdict was lost"
        await world.until(lambda: world.look(CONFIG_MAPS, "edge") and written(world, "edge") == 500, 60)
    finally:
        await world.stop()


async def test_a_verdict_that_was_lost_at_a_place_that_is_left_still_counts():
    world = await at_five_percent()
    try:
        await world.replicas[-1].end(kill=True)
        lowered = world.look(CONFIG_MAPS, "checkout-nginx")["data"]
        text = json.dumps({**json.loads(lowered["weights.json"]), "weight": 0})
        world.api.store.merge_patch(
            CONFIG_MAPS, SHOP, "checkout-nginx", {"data": {"weights.json": text}}, manager="canary-rollout"
        )
        await world.edit(traffic=EDGE)
        world.start()
        await world.until(lambda: "halt" in world.status, 60)
        assert world.status["halt"]["reason"] == "RouteLoweredByOthers"
    finally:
        await world.stop()


async def test_a_route_is_left_although_the_new_ones_kind_is_not_installed():
    world = World()
    world.api.store.unregister(INGRESSES)
    await world.build()
    async with world.run():
        await world.serve("second")
        await world.edit(traffic=ELSEWHERE)
        await world.until(lambda: written(world) == 0, 30)
        await world.until(lambda: "does not know Ingress" in world.message, 30)
        await world.edit(traffic={"nginx": {"service": "proxy"}, "ingressNginx": None})
        await world.reach("third")


async def shoes(world):
    """A second rollout, whose proxies follow the ConfigMap of the first."""
    for track in ("stable", "canary"):
        labels = {"app": "shoes", "track": track}
        await world.user.create(SERVICES, SHOP, _service(f"shoes-{track}", labels))
        await world.user.create(DEPLOYMENTS, SHOP, _deployment(f"shoes-{track}", labels, "v1"))
    versions = {track: {"service": f"shoes-{track}", "deployment": f"shoes-{track}"} for track in ("stable", "canary")}
    traffic = {"nginx": {"service": "proxy", "configMap": "checkout-nginx"}}
    spec = {**ROLLOUT["spec"], "workload": versions, "traffic": traffic}
    metadata = {"name": "shoes", "namespace": SHOP}
    await world.user.create(CANARY_ROLLOUTS, SHOP, {**ROLLOUT, "metadata": metadata, "spec": spec})


async def test_a_config_map_that_was_left_may_be_named_by_another_rollout():
    world = await at_five_percent()
    try:
        await world.edit(traffic=EDGE)
        await world.until(lambda: written(world) == 0, 60)
        await shoes(world)
        labels = world.look(CONFIG_MAPS, "checkout-nginx")["metadata"]["labels"]
        assert labels[ROLLOUT_LABEL] == "checkout"
        await world.until(
            lambda: world.look(CONFIG_MAPS, "checkout-nginx")["metadata"]["labels"][ROLLOUT_LABEL] == "shoes", 60
        )
    finally:
        await world.stop()


async def test_an_old_place_that_is_another_rollouts_by_now_holds_up_nobody():
    world = await at_five_percent()
    try:
        await world.replicas[-1].end(kill=True)
        await shoes(world)
        theirs = {"metadata": {"labels": {ROLLOUT_LABEL: "shoes"}}}
        world.api.store.merge_patch(CONFIG_MAPS, SHOP, "checkout-nginx", theirs, manager="canary-rollout")
        await world.edit(traffic=EDGE)
        world.start()
        await world.until(lambda: world.look(CONFIG_MAPS, "edge"), 60)
    finally:
        await world.stop()


async def test_an_old_place_that_is_gone_with_its_services_holds_up_nobody():
    world = await at_five_percent()
    try:
        await world.replicas[-1].end(kill=True)
        await world.user.delete(CONFIG_MAPS, SHOP, "checkout-nginx")
        await world.user.delete(SERVICES, SHOP, "checkout-canary")
        await world.user.create(SERVICES, SHOP, _service("checkout-next", {"app": "checkout", "track": "canary"}))
        versions = world.rollout["spec"]["workload"]
        canary = {"service": "checkout-next", "deployment": "checkout-canary"}
        await world.edit(traffic=EDGE, workload={**versions, "canary": canary})
        world.start()
        await world.until(lambda: world.look(CONFIG_MAPS, "edge"), 60)
    finally:
        await world.stop()


@pytest.mark.parametrize(
    "place", [{"workload": {}}, {"workload": None, "traffic": {"nginx": []}}, {"traffic": {"nobody": {}}}, {"spec": 1}]
)
async def test_a_place_that_somebody_mangled_is_none(place):
    world = await at_five_percent()
    try:
        await world.replicas[-1].end(kill=True)
        written_over = {"status": {"place": dict.fromkeys(world.status["place"]) | place}}
        world.api.store.merge_patch(
            CANARY_ROLLOUTS, SHOP, "checkout", written_over, subresource="status", manager="somebody"
        )
        world.start()
        await world.reach("third")
    finally:
        await world.stop()


def test_a_place_that_takes_too_much_room_is_remembered_by_the_process_alone():
    spec = CanaryRolloutSpec.model_validate(ROLLOUT["spec"])
    assert spec_of_place(place_of(spec)).workload.stable == spec.workload.stable
    proxies = [f"proxy-{number}-{'x' * 40}" for number in range(60)]
    wide = {**ROLLOUT["spec"], "traffic": {"nginx": {"proxies": proxies}}}
    assert place_of(CanaryRolloutSpec.model_validate(wide)) == {}


async def test_a_place_is_not_remembered_at_rest():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        assert world.status["place"]["workload"]["canary"] == {
            "service": "checkout-canary",
            "deployment": "checkout-canary",
        }
        await world.rest("Succeeded")
        assert not world.status["place"]


async def test_a_crd_that_drops_the_place_costs_no_write():
    world = await World().build()
    stored = world.api.store.merge_patch

    def pruned(resource, namespace, name, body, **more):
        (body.get("status") or {}).pop("place", None)
        return stored(resource, namespace, name, body, **more)

    world.api.store.merge_patch = pruned
    async with world.run():
        began = await world.serve("second")
        await asyncio.sleep(20)
        assert not [call for call in world.writes() if call.at > began + 2]


class Mesh(World):
    """A VirtualService of the user's instead of a proxy of ours."""

    async def build(self):
        await super().build()
        body = {"metadata": {"name": "shop"}, **virtual_service(100, 0)}
        await self.user.create(VIRTUAL_SERVICES, SHOP, body)
        await self.user.create(SERVICES, SHOP, _service("checkout-next", {"app": "checkout", "track": "canary"}))
        return self

    @property
    def share(self):
        """What the canary's old Service gets."""
        stable, canary = self.look(VIRTUAL_SERVICES, "shop")["spec"]["http"][1]["route"]
        return canary.get("weight", 0) * 10_000 // (stable["weight"] + canary["weight"])


@pytest.mark.parametrize("down", [False, True], ids=["while it looks", "while no operator runs"])
async def test_a_service_renamed_in_the_spec_alone_leaves_nobody_on_the_old_one(down):
    world = await Mesh(traffic={"istio": {"virtualService": "shop"}}).build()
    async with world.run():
        await world.serve("second")
        assert world.share == 500
        if down:
            await world.replicas[-1].end(kill=True)
        workload = {**world.rollout["spec"]["workload"]}
        workload["canary"] = {"service": "checkout-next", "deployment": "checkout-canary"}
        await world.edit(workload=workload)
        if down:
            world.start()
        await world.until(lambda: world.share == 0, 60)
        await world.until(lambda: "names both checkout and checkout-next" in world.message, 60)
