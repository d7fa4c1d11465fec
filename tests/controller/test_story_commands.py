"""What people say with kubectl canary, and what becomes of it."""

import asyncio

import pytest
from operator_world import World
from virtual_time import now

from canary_rollout.kube.port import CANARY_ROLLOUTS
from canary_rollout.model.commands import PREFIX, Verb

pytestmark = [pytest.mark.looptime]


def answer(world):
    return world.status.get("lastCommand", {})


async def test_pause_holds_and_resume_goes_on():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        await world.say(Verb.PAUSE, reason="lunch")
        await world.rest("Paused")
        assert "lunch" in world.message
        await asyncio.sleep(300)
        assert world.weight == 50
        await world.say(Verb.RESUME)
        await world.reach("second")


async def test_set_weight_lowers_at_once_and_raises_when_asked():
    world = await World().build()
    async with world.run():
        await world.serve("third")
        began = now()
        await world.say(Verb.SET_WEIGHT, weight="1%")
        assert await world.until(lambda: world.weight == 100) - began < 0.5
        await world.rest("Paused")
        await world.say(Verb.SET_WEIGHT, weight="40%")
        await world.until(lambda: world.weight == 4000)
        await asyncio.sleep(120)
        assert world.weight == 4000
        await world.say(Verb.RESUME)
        await world.rest("Succeeded")


async def test_set_weight_beyond_what_there_is_is_refused_with_a_sentence():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        await world.say(Verb.SET_WEIGHT, weight="101%")
        await world.until(lambda: answer(world))
        assert answer(world)["accepted"] is False
        assert "101%" in answer(world)["message"]
        assert world.weight == 50
        await asyncio.sleep(0.1)
        assert "CommandRefused" in world.told.reasons()


async def test_promote_goes_to_the_next_stage_and_full_to_the_last():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        await world.say(Verb.PROMOTE)
        await world.until(lambda: world.weight == 500, 2)
        await world.say(Verb.PROMOTE, full=True)
        await world.until(lambda: world.weight == 10000, 2)
        await world.rest("Succeeded")


async def test_rollback_and_retry():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        began = now()
        await world.say(Verb.ROLLBACK, reason="wrong colour")
        assert await world.until(lambda: world.weight == 0) - began < 0.5
        await world.rest("RolledBack")
        assert "wrong colour" in world.message
        await asyncio.sleep(60)
        assert world.weight == 0
        await world.say(Verb.RETRY)
        await world.reach("first")
        assert not world.state.get("halts")
        await world.rest("Succeeded")


async def test_reset_forgets_the_evidence_and_holds_the_stage_again():
    world = await World().build()
    async with world.run():
        entered = await world.serve("second")
        await asyncio.sleep(40)
        await world.say(Verb.RESET)
        await world.reach("third")
        assert now() - entered >= 100


async def test_start_with_a_weight_goes_there_and_pauses():
    world = await World().build()
    async with world.run():
        await world.rest("Idle")
        world.deployments.ready_after = 5.0
        await world.release()
        await world.rest("Preparing")
        await world.say(Verb.START, weight="10%")
        await world.rest("Paused")
        await world.until(lambda: world.weight == 1000)
        await asyncio.sleep(200)
        assert world.raised == [1000]


async def test_start_with_stages_replaces_them_for_this_revision():
    world = await World().build()
    async with world.run():
        await world.rest("Idle")
        world.deployments.ready_after = 5.0
        await world.release()
        await world.rest("Preparing")
        await world.say(Verb.START, stages=("10%", "100%"), interval="20s")
        await world.rest("Succeeded")
        assert world.raised == [1000, 10000]
        await world.release("v3")
        await world.reach("first")


async def test_a_consumed_command_is_not_repeated_by_a_restart_nor_by_a_replay():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        pause = await world.say(Verb.PAUSE)
        await world.rest("Paused")
        resume = await world.say(Verb.RESUME)
        await world.reach("second")
        consumed = world.status["lastCommand"]
        await world.restart()
        await asyncio.sleep(20)
        assert world.status["lastCommand"] == consumed
        # Git, or somebody's script, applies old annotations anew, one after the other.
        await world.annotate(dict.fromkeys([*pause, *resume]))
        await world.annotate(pause)
        await world.annotate(resume)
        await asyncio.sleep(5)
        assert world.phase == "Progressing"
        await world.rest("Succeeded")
        assert world.raised == [50, 500, 2500, 10000]


async def test_a_command_for_another_revision_is_refused():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        await world.say(Verb.PROMOTE, revision="0123456789")
        await world.until(lambda: answer(world))
        assert "meant for revision 0123456789" in answer(world)["message"]
        assert world.weight == 50


async def test_an_annotation_that_is_no_command_is_told_once():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        await world.annotate({PREFIX + "pause": "please", PREFIX + "dance": "{}"})
        await asyncio.sleep(45)
        refused = [note.message for note in world.told.notes if note.reason == "CommandRefused"]
        assert len(refused) == 2
        assert any(f"{PREFIX}pause" in message for message in refused)
        assert world.phase == "Progressing"


async def test_a_command_that_arrives_while_the_status_is_being_written_is_not_lost():
    world = await World(latency=0.3).build()
    async with world.run():
        await world.serve("first")
        before = len(world.writes(CANARY_ROLLOUTS))
        await world.until(lambda: len(world.writes(CANARY_ROLLOUTS)) > before)
        await world.say(Verb.PAUSE)
        await world.rest("Paused", 10)
