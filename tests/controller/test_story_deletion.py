"""Deleting a CanaryRollout at any time leaves traffic on stable and nothing of ours behind."""

import asyncio

import pytest
from fake_api import Answer, Hang
from operator_world import SHOP, World
from virtual_time import now

from canary_rollout.controller.persist import FINALIZER
from canary_rollout.kube.port import CANARY_ROLLOUTS, CONFIG_MAPS, SERVICES
from canary_rollout.model.commands import Verb
from canary_rollout.traffic.latch import LATCH

pytestmark = [pytest.mark.looptime]

MANUAL = {
    "stable": {"service": "checkout", "deployment": "checkout"},
    "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
    "promotion": "Manual",
}


async def gone(world, within=90.0):
    await world.until(lambda: not world.exists, within)
    assert not world.deployment()["spec"].get("paused")


async def preparing(world):
    world.deployments.ready_after = None
    await world.rest("Idle")
    await world.release()
    await world.rest("Preparing")


async def stage(world, name):
    await world.serve(name)


async def paused(world):
    await world.serve("second")
    await world.say(Verb.PAUSE)
    await world.rest("Paused")


async def rolling_back(world):
    await world.serve("second")
    await world.say(Verb.ROLLBACK)
    await world.rest("RollingBack")


async def rolled_back(world):
    await rolling_back(world)
    await world.rest("RolledBack")


async def returning(world):
    await world.serve("all")
    await world.rest("Returning")


PHASES = {
    "idle": lambda world: world.rest("Idle"),
    "preparing": preparing,
    "first": lambda world: stage(world, "first"),
    "third": lambda world: stage(world, "third"),
    "all": lambda world: stage(world, "all"),
    "paused": paused,
    "rolling back": rolling_back,
    "rolled back": rolled_back,
    "returning": returning,
    "succeeded": lambda world: world.rest("Succeeded") if world.raised else _succeeded(world),
}


async def _succeeded(world):
    await world.serve("all")
    await world.rest("Succeeded")


@pytest.mark.parametrize("phase", PHASES)
async def test_traffic_is_on_stable_when_it_is_gone(phase):
    world = await World().build()
    async with world.run():
        await PHASES[phase](world)
        began = now()
        await world.delete()
        await gone(world)
        assert now() - began < 2
        assert world.weight == 0
        await asyncio.sleep(30)
        assert world.weight == 0
        assert (SHOP, "checkout") in world.told.forgotten
        assert (SHOP, "checkout") not in world.operator.reconciler.memories
    if phase.startswith("roll"):
        assert LATCH in world.look(CONFIG_MAPS, "checkout-nginx")["metadata"]["annotations"], "still condemned"


async def test_at_100_percent_awaiting_promotion_the_traffic_stays_and_that_is_said():
    world = await World(workload=MANUAL).build()
    async with world.run():
        await world.serve("all")
        await world.rest("AwaitingPromotion")
        await world.delete()
        await gone(world, 5)
        await asyncio.sleep(30)
        assert world.weight == 10000
    assert "all traffic stays on the canary" in world.told.notes[-1].message


async def test_a_queued_revision_is_not_let_loose_on_all_traffic_by_a_deletion():
    world = await World(workload=MANUAL).build()
    async with world.run():
        await world.serve("all")
        await world.rest("AwaitingPromotion")
        await world.release("v3")
        await world.until(lambda: "queued" in world.message)
        await world.delete()
        await world.until(lambda: not world.exists, 5)
        await asyncio.sleep(30)
        assert world.weight == 10000
        assert world.deployment()["spec"]["paused"]
    assert "stays paused" in world.told.notes[-1].message


async def test_a_data_plane_that_does_not_confirm_holds_a_deletion_up_for_a_minute_only():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.agent_follows = False
        began = now()
        await world.delete()
        await gone(world)
        assert 55 <= now() - began <= 65
        assert '"weight": 0' in world.look(CONFIG_MAPS, "checkout-nginx")["data"]["weights.json"].replace(
            ":", ": "
        ).replace(":  ", ": ")
    assert "has not confirmed" in world.told.notes[-1].message


async def test_a_route_that_may_not_be_written_holds_a_deletion_up_for_a_minute_only():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.api.fault(
            Answer(403, reason="Forbidden"), times=None, client="operator", verb="patch", resource=CONFIG_MAPS
        )
        began = now()
        await world.delete()
        await gone(world)
        assert 55 <= now() - began <= 65
    assert "could not be set to stable" in world.told.notes[-1].message


async def test_a_deletion_waits_for_an_api_server_that_does_not_answer():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.api.fault(Hang(), times=2, client="operator", verb="patch", resource=CONFIG_MAPS)
        world.api.fault(Answer(503), times=3, client="operator", verb="patch", resource=CONFIG_MAPS)
        await world.delete()
        await gone(world, 120)
        assert world.weight == 0


async def test_a_deletion_takes_the_traffic_back_even_where_the_spec_is_not_valid_any_more():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        await world.replicas[-1].end(kill=True)
        await world.edit(stages=[])
        await world.delete()
        world.start()
        await gone(world, 10)
        assert world.weight == 0


async def test_a_deletion_of_something_unreadable_ends_after_a_minute():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        await world.replicas[-1].end(kill=True)
        await world.edit(workload={"stable": None, "canary": None})
        await world.delete()
        world.start()
        await world.until(lambda: not world.exists, 90)
    assert "spec is not valid" in world.told.notes[-1].message


async def test_somebody_elses_finalizer_is_left_alone():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        finalizers = [FINALIZER, "example.com/theirs"]
        await world.user.merge_patch(CANARY_ROLLOUTS, SHOP, "checkout", {"metadata": {"finalizers": finalizers}})
        await world.delete()
        rollout = lambda: world.look(CANARY_ROLLOUTS, "checkout")  # noqa: E731
        await world.until(lambda: rollout()["metadata"].get("finalizers") == ["example.com/theirs"])
        assert world.weight == 0
        writes = len(world.writes())
        await asyncio.sleep(300)
        assert len(world.writes()) == writes


async def test_services_may_be_deleted_with_it():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        for name in ("checkout", "checkout-canary", "proxy"):
            await world.user.delete(SERVICES, SHOP, name)
        await world.delete()
        await gone(world, 90)
        assert world.weight == 0


async def test_a_rollout_that_is_created_again_under_its_name_at_once_begins_anew_and_is_evaluated():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        old = world.operator.reconciler.memories[(SHOP, "checkout")]
        await world.user.delete(CANARY_ROLLOUTS, SHOP, "checkout")
        await world.user.merge_patch(CANARY_ROLLOUTS, SHOP, "checkout", {"metadata": {"finalizers": []}})
        await world.user.create(CANARY_ROLLOUTS, SHOP, world.rollout)
        await world.until(lambda: world.phase == "Succeeded")
        assert world.operator.reconciler.memories[(SHOP, "checkout")] is not old
