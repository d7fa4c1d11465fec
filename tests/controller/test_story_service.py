"""A whole rollout by the ratio of pods behind one Service: what is scaled when, and that somebody always answers."""

import asyncio

import pytest
from fake_api.rows import Event
from operator_world import SHOP, World
from virtual_time import EPOCH, now

from canary_rollout.controller.gather import FIRST_ENDPOINTS
from canary_rollout.kube.port import DEPLOYMENTS, ENDPOINT_SLICES, PODS, SERVICES
from canary_rollout.model.units import format_instant

pytestmark = [pytest.mark.looptime]

STAGES = [
    {"name": "first", "weight": "5%", "hold": "60s"},
    {"name": "second", "weight": "25%", "hold": "60s"},
    {"name": "all", "weight": "100%", "hold": "60s"},
]


class ByPods(World):
    """The app's two versions behind one Service, whose EndpointSlice follows the ready pods."""

    def __init__(self, **changes):
        super().__init__(**{"traffic": {"service": {"service": "shop", "replicas": 20}}, "stages": STAGES, **changes})
        self.fewest = 20
        """Ready pods at the worst moment since stable was complete."""
        self.shares: list[float] = []
        """The canary's shares of ready pods, whenever they changed."""
        self.complete = False

    async def build(self):
        selector = {"app": "checkout"}
        await self.user.create(
            SERVICES, SHOP, {"metadata": {"name": "shop"}, "spec": {"clusterIP": "10.96.0.9", "selector": selector}}
        )
        self.api.store.listeners.append(self._pods_changed)
        await super().build()
        for name, replicas in (("checkout", 20), ("checkout-canary", 0)):
            await self.user.merge_patch(DEPLOYMENTS, SHOP, name, {"spec": {"replicas": replicas}})
        return self

    def ready(self, name):
        conditions = (pod["status"]["conditions"] for pod in self.deployments.pods(SHOP, name) if pod.get("status"))
        return sum(one[0]["status"] == "True" for one in conditions)

    def asked(self):
        return tuple(self.look(DEPLOYMENTS, name)["spec"]["replicas"] for name in ("checkout", "checkout-canary"))

    def _pods_changed(self, event: Event):
        if event.resource != PODS:
            return
        stable, canary = self.ready("checkout"), self.ready("checkout-canary")
        self.complete = self.complete or stable == 20
        if self.complete:
            self.fewest = min(self.fewest, stable + canary)
            share = canary / max(1, stable + canary)
            if not self.shares or self.shares[-1] != share:
                self.shares.append(share)
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "shop-1",
                "labels": {"kubernetes.io/service-name": "shop"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": format_instant(EPOCH + now())},
            },
            "endpoints": [
                {"addresses": [f"10.0.0.{n}"], "conditions": {"ready": True}} for n in range(stable + canary)
            ],
        }
        self.api.store.apply(ENDPOINT_SLICES, SHOP, "shop-1", body, manager="endpointslice-controller", force=True)


@pytest.mark.thorough
async def test_a_whole_rollout_never_exceeds_the_weight_and_never_leaves_nobody_to_answer():
    world = await ByPods().build()
    async with world.run():
        await world.rest("Idle")
        assert world.asked() == (20, 0)
        await world.release()
        await world.reach("first")
        assert world.asked() == (19, 1)
        assert max(world.shares) == 0.05
        await world.reach("second")
        assert world.asked() == (15, 5)
        assert max(world.shares) == 0.25
        assert world.fewest >= 20, "stable gives way only to pods that are ready"
        await world.reach("all")
        assert world.asked() == (0, 20)
        await world.rest("Succeeded")
        assert world.asked() == (20, 0)
        assert world.fewest >= 19


async def test_a_rollback_takes_the_canary_away_at_once_and_makes_stable_meanwhile():
    world = await ByPods().build()
    async with world.run():
        await world.serve("second")
        world.deployments.ready_after = 30.0
        world.numbers.canary["error-rate"] = 0.2
        began = await world.until(lambda: world.asked() == (20, 0), 11)
        assert await world.until(lambda: world.ready("checkout-canary") == 0) - began < 1
        assert world.ready("checkout") == 15, "nothing waits for stable's new pods"
        await world.rest("RolledBack")
        assert world.ready("checkout") == 20


async def test_a_rollback_from_100_per_cent_waits_for_one_ready_pod_of_stable():
    world = await ByPods().build()
    async with world.run():
        await world.serve("all")
        world.deployments.ready_after = 30.0
        world.numbers.canary["error-rate"] = 0.2
        await world.until(lambda: world.asked() == (20, 20), 11)
        await world.until(lambda: world.asked() == (20, 0), 40)
        assert world.fewest >= 1
        await world.rest("RolledBack")


async def test_somebody_who_scales_the_canary_up_is_corrected_at_once():
    world = await ByPods().build()
    async with world.run():
        await world.serve("first")
        await world.user.merge_patch(DEPLOYMENTS, SHOP, "checkout-canary", {"spec": {"replicas": 9}}, manager="kubectl")
        await world.until(lambda: world.asked() == (19, 1), 1)
        await world.reach("second")


async def test_a_new_revision_in_the_middle_gets_no_pod_at_the_old_ones_weight():
    world = await ByPods().build()
    async with world.run():
        await world.serve("second")
        await world.release("v3")
        seen = set()
        while world.state["stage"] != "first" or "since" not in world.state["clock"]:
            images = {pod["spec"]["containers"][0]["image"] for pod in world.deployments.pods(SHOP, "checkout-canary")}
            if "app:v3" in images:
                assert images == {"app:v3"}
                seen.add(len(world.deployments.pods(SHOP, "checkout-canary")))
            world._something.clear()
            await world._something.wait()
        assert seen == {1}


async def test_pods_that_crash_while_they_are_made_halt_the_rollout():
    world = await ByPods().build()
    async with world.run():
        await world.rest("Idle")
        world.deployments.crashing.add((SHOP, "checkout-canary"))
        await world.release()
        await world.rest("RolledBack")
        assert "CrashLoopBackOff" in world.message
        assert world.asked() == (20, 0)
        await asyncio.sleep(60)
        assert world.asked() == (20, 0)


def slice_of_canary(ready):
    endpoint = {"addresses": ["10.244.0.7"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "c"}}
    metadata = {"name": "checkout-canary-1", "labels": {"kubernetes.io/service-name": "checkout-canary"}}
    found = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4"}
    return {**found, "endpoints": [endpoint] if ready else [], "ports": []}


async def test_endpoints_that_come_a_while_after_the_first_ready_pod_are_waited_for():
    """With a Service of its own the canary has an EndpointSlice without endpoints at weight 0."""
    world = await ByPods().build()
    await world.user.create(ENDPOINT_SLICES, SHOP, slice_of_canary(ready=False))
    async with world.run():
        await world.rest("Idle")
        await world.release()
        await world.until(lambda: world.ready("checkout-canary"))
        await asyncio.sleep(FIRST_ENDPOINTS - 3)
        await world.user.merge_patch(ENDPOINT_SLICES, SHOP, "checkout-canary-1", slice_of_canary(ready=True))
        await world.reach("all")
        assert "Halted" not in world.told.reasons()


async def test_first_endpoints_that_never_come_roll_back():
    world = await ByPods().build()
    await world.user.create(ENDPOINT_SLICES, SHOP, slice_of_canary(ready=False))
    async with world.run():
        await world.rest("Idle")
        await world.release()
        began = await world.until(lambda: world.ready("checkout-canary"))
        await world.rest("RolledBack", 120)
        assert now() - began < FIRST_ENDPOINTS + 45
        assert "Service checkout-canary has no ready endpoint" in world.status["message"]
