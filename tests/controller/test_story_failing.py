"""A reconcile that fails again and again is seen in the resource: one condition, one write, one Event; a success takes it away."""

import asyncio

import pytest
from fake_api import Answer, Hang
from operator_world import ROLLOUT, SHOP, World
from virtual_time import now

from canary_rollout.controller.failures import GOES_ON, IN_A_ROW, LONGEST_LOOK
from canary_rollout.kube.port import CANARY_ROLLOUTS, CONFIG_MAPS, DEPLOYMENTS
from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Reason

pytestmark = [pytest.mark.looptime]

SICK = {"client": "operator", "verb": "patch", "resource": CONFIG_MAPS}
HOOK = Answer(500, 'failed calling webhook "lint.example": no endpoints available', "InternalError")


def status_writes(world, since=0.0):
    return [call for call in world.writes(CANARY_ROLLOUTS, since=since) if call.subresource == "status"]


def told(world):
    return [note for note in world.told.notes if note.reason is Reason.RECONCILE_FAILED]


async def sick(world, fault=HOOK, **match):
    """Release while every write of the route fails; the time at which the first one did."""
    await world.rest("Idle")
    world.api.fault(fault, times=None, **(match or SICK))
    began = now()
    await world.release()
    return began


async def test_what_goes_on_is_a_condition_with_a_sentence_and_goes_with_the_next_success(capsys):
    world = await World().build()
    async with world.run():
        began = await sick(world)
        await asyncio.sleep(GOES_ON - 5)
        assert not world.condition("ReconcileFailing")
        await world.until(lambda: world.condition("ReconcileFailing"))
        assert now() - began <= 3 * GOES_ON
        found, stalled = world.condition("ReconcileFailing"), world.condition("Stalled")
        assert (found["status"], found["reason"]) == ("True", "ReconcileFailed")
        assert 'failed calling webhook "lint.example"' in found["message"]
        assert "nothing new is decided meanwhile" in found["message"]
        assert (stalled["status"], stalled["message"]) == ("True", found["message"])
        assert world.condition("Ready")["reason"] != "ReconcileFailed"
        writes, calls = len(status_writes(world)), len(world.api.calls_of("operator"))
        await asyncio.sleep(400)
        assert len(status_writes(world)) == writes, "written once"
        assert len(world.api.calls_of("operator")) - calls < 400
        assert [note.warning for note in told(world)] == [True], "told once"
        assert told(world)[0].message == found["message"]
        world.api.clear_faults()
        await world.until(lambda: not world.condition("ReconcileFailing"), 120)
        assert not world.condition("Stalled")
        await world.rest("Succeeded", 900)
        assert world.raised == [50, 500, 2500, 10000]
        assert len(told(world)) == 1
    assert "Traceback" not in capsys.readouterr().out


async def test_what_a_repeat_mends_is_not_said():
    world = await World().build()
    async with world.run():
        await world.rest("Idle")
        world.api.fault(HOOK, times=IN_A_ROW + 2, **SICK)
        await world.release()
        await world.rest("Succeeded", 900)
    assert not told(world)
    assert not [call for call in status_writes(world) if "ReconcileFailing" in str(call.body)]


@pytest.mark.parametrize("fault", [Answer(500, "etcd is full", "InternalError"), Answer(403, "no", "Forbidden")])
async def test_where_the_status_itself_cannot_be_written_nothing_is_and_nobody_is_flooded(fault):
    world = await World().build()
    async with world.run():
        await sick(world, fault, client="operator", verb="patch", resource=CANARY_ROLLOUTS, subresource="status")
        await asyncio.sleep(60)
        began = now()
        await asyncio.sleep(1800)
        tried = [call for call in status_writes(world, since=began) if "ReconcileFailing" in str(call.body)]
        others = [call for call in status_writes(world, since=began) if call not in tried]
        assert len(tried) <= 6, "after 1 min, 2 min, 4 min …"
        assert len(others) <= 1800 / 20
        assert not told(world)
        assert not world.condition("ReconcileFailing")
        world.api.clear_faults()
        await world.rest("Succeeded", 900)
        assert not told(world)


async def test_another_kind_of_error_is_said_once_more():
    world = await World().build()
    async with world.run() as replica:
        await sick(world)
        await world.until(lambda: world.condition("ReconcileFailing"))

        async def broken(*_, **__):
            raise LookupError("secret words")

        replica.operator.reconciler._look = broken
        await world.until(
            lambda: "a fault of the operator's own" in world.condition("ReconcileFailing")["message"], 900
        )
        await asyncio.sleep(1)
        assert len(told(world)) == 2
        assert "secret words" not in str(world.status)
        assert "LookupError" in world.condition("ReconcileFailing")["message"]


async def test_a_look_that_hangs_is_a_failure_too():
    world = await World().build()
    async with world.run() as replica:
        await world.rest("Idle")
        stuck = asyncio.Event()

        async def never(*_args, **_options):
            await stuck.wait()

        look, replica.operator.reconciler._look = replica.operator.reconciler._look, never
        await world.release()
        await world.until(lambda: world.condition("ReconcileFailing"), 10 * LONGEST_LOOK)
        assert "it took longer than 55 s" in world.condition("ReconcileFailing")["message"]
        replica.operator.reconciler._look = look
        await world.rest("Succeeded", 900)
        assert not world.condition("ReconcileFailing")


async def test_an_api_server_that_does_not_answer_at_all_keeps_nothing_from_going_on_after_it():
    world = await World().build()
    async with world.run():
        await sick(world, Hang(), client="operator", verb="patch", resource=DEPLOYMENTS)
        await asyncio.sleep(600)
        world.api.clear_faults()
        await world.rest("Succeeded", 1200)
        assert not world.condition("ReconcileFailing")


async def test_at_rest_the_sentence_and_the_phase_stay_what_they_were():
    world = await World().build()
    async with world.run() as replica:
        await world.serve("first")
        await world.rest("Succeeded")
        before = (world.phase, world.message, world.condition("Ready"))

        async def broken(*_, **__):
            raise OSError("disk")

        replica.operator.reconciler._look = broken
        await world.edit(paused=True)
        await world.until(lambda: world.condition("ReconcileFailing"))
        assert (world.phase, world.message, world.condition("Ready")) == before


async def test_a_restarted_operator_neither_says_it_again_nor_leaves_it_there():
    world = await World().build()
    async with world.run():
        await sick(world)
        await world.until(lambda: world.condition("ReconcileFailing"))
        writes = len(status_writes(world))
        await asyncio.sleep(1)
        await world.restart()
        await asyncio.sleep(300)
        assert len(status_writes(world)) == writes
        assert len(told(world)) == 1
        world.api.clear_faults()
        await world.until(lambda: not world.condition("ReconcileFailing"), 120)


async def test_a_spec_that_is_not_valid_is_a_verdict_and_no_failure():
    world = await World().build()
    async with world.run():
        await sick(world)
        await world.until(lambda: world.condition("ReconcileFailing"))
        await world.restart()
        await world.edit(stages=[])
        await world.until(lambda: world.condition("Stalled")["reason"] == "InvalidSpec", 300)
        assert not world.condition("ReconcileFailing")
        world.api.clear_faults()
        await world.edit(stages=ROLLOUT["spec"]["stages"])
        await world.rest("Succeeded", 900)


async def test_a_rollout_that_is_deleted_meanwhile_is_forgotten():
    world = await World().build()
    async with world.run() as replica:
        await sick(world)
        await world.until(lambda: world.condition("ReconcileFailing"))
        world.api.clear_faults()
        await world.delete()
        await world.until(lambda: not world.exists)
        await asyncio.sleep(1)
        assert (SHOP, "checkout") not in replica.operator.failures._failing


@pytest.mark.parametrize(
    "answer", [Answer(403, "a policy says no"), Answer(500, "a policy says no")], ids=["no", "sick"]
)
@pytest.mark.parametrize("order", ["command", "release"])
async def test_what_cannot_be_written_to_a_deployment_keeps_no_weight_from_being_lowered(order, answer):
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.api.fault(answer, times=None, verb="patch", resource=DEPLOYMENTS, client="operator")
        await world.user.merge_patch(DEPLOYMENTS, SHOP, "checkout-canary", {"spec": {"paused": False}})
        await asyncio.sleep(10)
        if order == "command":
            await world.say(Verb.SET_WEIGHT, weight="0.5%")
        else:
            await world.release("v3")
        await world.until(lambda: world.weight == (50 if order == "command" else 0), 30)
        await world.until(lambda: "a policy says no" in str(world.status["conditions"]), 120)
