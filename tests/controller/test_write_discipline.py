"""What the operator writes, and above all what it does not."""

import asyncio

import pytest
from operator_world import SHOP, World
from virtual_time import now

from canary_rollout.kube.port import CANARY_ROLLOUTS, CONFIG_MAPS, DEPLOYMENTS, LEASES, PODS
from canary_rollout.model.commands import Verb

pytestmark = [pytest.mark.looptime]

LONG = [{"name": "long", "weight": "5%", "hold": "2h"}, {"name": "all", "weight": "100%", "hold": "1h"}]


def fence(call):
    return ((call.body or {}).get("metadata") or {}).get("resourceVersion")


@pytest.mark.thorough
async def test_a_held_rollout_makes_no_call_but_checkpoints():
    world = await World(stages=LONG).build()
    async with world.run():
        await world.serve("long")
        await asyncio.sleep(30)
        began, asked = now(), world.numbers.asked
        for _ in range(1800):
            world.numbers.canary["error-rate"] = 0.001 + 0.0001 * (now() % 7)
            await asyncio.sleep(1)
        calls = [call for call in world.api.calls_of("operator") if call.at >= began]
        assert world.numbers.asked - asked == 180
        others = [call for call in calls if not (call.resource == LEASES and call.name == "operator")]
        sweeps = [call for call in others if call.verb == "list" and call.resource != PODS]
        assert len(sweeps) <= 8 * 7, (
            "every kind every five minutes; here two of them twice, since kopf is played as well"
        )
        rest = [call for call in others if call not in sweeps]
        assert {str(call) for call in rest} == {"patch canaryrollouts shop/checkout/status"}
        assert len(rest) == 6, "a checkpoint of the evidence every five minutes"
        assert set(rest[0].body["status"]) <= {"evaluatedThrough", "evidence", "verdicts"}


async def test_a_rollout_at_rest_makes_no_call_at_all():
    world = await World().build()
    async with world.run():
        await world.rest("Idle")
        await asyncio.sleep(5)
        began = now()
        await asyncio.sleep(1800)
        calls = [call for call in world.api.calls_of("operator") if call.at >= began]
        assert {call.resource for call in calls if call.verb == "patch"} == {LEASES}
        assert world.numbers.asked == 0


async def test_a_raise_is_two_looks_the_intent_and_then_the_route_with_its_fence():
    world = await World(latency=0.01).build()
    async with world.run():
        await world.serve("first")
        version = world.look(CONFIG_MAPS, "checkout-nginx")["metadata"]["resourceVersion"]
        began = now()
        await world.until(lambda: world.weight == 500)
        writes = [call for call in world.writes(since=began) if call.resource in {CANARY_ROLLOUTS, CONFIG_MAPS}]
        kinds = [call.resource.plural for call in writes]
        raised = kinds.index("configmaps")
        assert kinds[raised - 1] == "canaryrollouts"
        assert writes[raised - 1].body["status"]["rollout"]["wanted"] == "5%"
        assert writes[raised].at >= writes[raised - 1].at + 0.02, "the intent was answered first"
        assert fence(writes[raised]) == version


async def test_a_lowering_to_nothing_carries_no_fence_and_every_raise_does():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        await world.say(Verb.ROLLBACK)
        await world.rest("RolledBack")
    weights = []
    for call in world.writes(CONFIG_MAPS):
        weight = int(call.body["data"]["weights.json"].replace(" ", "").split('"weight":')[1].split(",")[0].rstrip("}"))
        weights.append(weight)
        assert (fence(call) is not None) == (weight > 0)
    assert weights in ([0, 50, 500, 0], [0, 0, 50, 500, 0])


async def test_every_status_write_but_the_latch_is_fenced_and_changes_something():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.numbers.canary["error-rate"] = 0.2
        await world.rest("RolledBack")
    writes = [call for call in world.writes(CANARY_ROLLOUTS) if call.subresource == "status"]
    unfenced = [call for call in writes if fence(call) is None]
    assert len(unfenced) == 1
    assert unfenced[0].body["status"]["rollout"]["halts"]
    assert all(call.body["status"] for call in writes)


async def test_a_whole_release_takes_few_writes():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        await world.rest("Succeeded")
    count = {kind: len(world.writes(kind)) for kind in (CANARY_ROLLOUTS, CONFIG_MAPS, DEPLOYMENTS)}
    assert count[CANARY_ROLLOUTS] <= 32
    assert count[CONFIG_MAPS] <= 7
    assert count[DEPLOYMENTS] <= 3


async def test_events_are_few():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        await world.rest("Succeeded")
    assert len(world.told.notes) <= 10


async def test_what_is_remembered_of_a_rollout_does_not_grow_and_goes_with_it():
    world = await World().build()
    async with world.run() as replica:
        for number in range(2, 6):
            await world.release(f"v{number}")
            await world.reach("first")
        reconciler, checks = replica.operator.reconciler, replica.operator.checks
        memory = reconciler.memories[(SHOP, "checkout")]
        assert len(memory.pods) <= 2
        assert len(memory.revisions) <= 2
        await world.delete()
        await world.until(lambda: not world.exists)
        await asyncio.sleep(1)
        assert not reconciler.memories
        assert not checks._followed
        assert not world.numbers.requests
        assert not replica.operator.owners.keys(SHOP, "checkout")
