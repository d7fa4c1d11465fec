"""The sequential comparison inside the whole operator: it stops a bad canary at once, and a restart changes nothing."""

import asyncio

import pytest
from operator_world import SHOP, World
from virtual_time import EPOCH, now

from canary_rollout.kube.port import CANARY_ROLLOUTS

KEY = (SHOP, "checkout")
SLOW_RULE = [{"name": "error-rate", "preset": "error-rate", "above": "1%", "for": "5m", "minRequests": 10}]

pytestmark = [pytest.mark.looptime]


async def compared_world(**changes):
    return await World(**{"analysis": {}, "haltRules": SLOW_RULE, **changes}).build()


def running(world):
    """The comparison that the present process has."""
    return world.operator.reconciler.memories[KEY].comparing


def make_bad(world, share=0.3):
    world.numbers.count(EPOCH + now())
    world.numbers.canary["error-rate"] = share


async def test_a_canary_that_fails_a_third_is_stopped_within_ticks_while_the_threshold_still_waits():
    world = await compared_world()
    async with world.run():
        await world.serve("first")
        await asyncio.sleep(25)
        make_bad(world)
        began = now()
        await world.until(lambda: world.weight == 0, 60)
        assert now() - began <= 45  # an interval of lag, at most two to the tick, one that confirms
        halt = world.status["halt"]
        assert halt["rule"] == "error-comparison"
        assert "canary" in halt["message"]
        slow = next(verdict for verdict in world.status["verdicts"] if verdict["rule"] == "error-rate")
        assert slow["verdict"] == "none"


async def test_a_good_canary_passes_every_stage_under_the_comparison():
    world = await compared_world()
    async with world.run():
        await world.serve("first")
        await world.rest("Succeeded", 1200)
        assert world.raised == [50, 500, 2500, 10000]


async def test_too_few_requests_extend_the_hold():
    world = await compared_world()
    world.numbers.per_second["canary"] = 0.6
    async with world.run():
        began = await world.serve("first")
        await asyncio.sleep(120)
        assert world.weight == 50
        (gate,) = [verdict for verdict in world.status["verdicts"] if verdict["rule"] == "promotion"]
        assert gate["verdict"] == "none"
        await world.reach("second", 600)
        assert now() - began >= 100 / 0.6 - 20


async def evidence(world, until, *, killed_at=None):
    """What the comparison knows at a time, with or without a kill before it, and how many ticks it asked for again."""
    async with world.run():
        await world.serve("first")
        make_bad(world, 0.0006)
        if killed_at is not None:
            await asyncio.sleep(killed_at - now())
            await world.restart()
        await asyncio.sleep(until - now())
        found = running(world)
        return found.comparison.checkpoint(), found.tests, found.comparison.gate(), found.through, found.replayed


LONG = [{"name": "first", "weight": "0.5%", "hold": "20m"}, {"name": "all", "weight": "100%", "hold": "1m"}]


@pytest.mark.thorough
@pytest.mark.parametrize("killed_at", [35, 80, 121.5, 399])
async def test_a_restart_in_the_middle_of_a_stage_leads_to_the_same_evidence(killed_at):
    """Two operators, the same traffic at the same time; one of them is killed."""
    whole, broken = [await compared_world(stages=LONG) for _ in range(2)]
    plain, again = await asyncio.gather(evidence(whole, 500.0), evidence(broken, 500.0, killed_at=killed_at))
    assert again[:4] == plain[:4]
    assert plain[0]["errors"]
    assert plain[4] == 0
    assert again[4] > 0


async def test_ticks_of_an_outage_of_prometheus_are_asked_for_again():
    async def without(world, outage):
        async with world.run():
            await world.serve("first")
            make_bad(world, 0.0006)
            if outage:
                await asyncio.sleep(95 - now())
                world.numbers.down = True
                await asyncio.sleep(80)
                assert world.weight == 50
                (gate,) = [verdict for verdict in world.status["verdicts"] if verdict["rule"] == "promotion"]
                assert gate["verdict"] == "none"
                assert "no counts" in gate["message"]
                world.numbers.down = False
            await asyncio.sleep(300 - now())
            found = running(world)
            return found.comparison.checkpoint(), found.tests, found.through

    worlds = [await compared_world(stages=LONG) for _ in range(2)]
    plain, again = await asyncio.gather(without(worlds[0], outage=False), without(worlds[1], outage=True))
    assert again == plain


async def test_evidence_of_a_revision_is_not_held_against_the_next():
    world = await compared_world(stages=LONG)
    async with world.run():
        await world.serve("first")
        make_bad(world)
        await world.until(lambda: world.weight == 0, 90)
        make_bad(world, 0.0)
        await world.release("v3")
        await world.reach("first")
        await asyncio.sleep(120)
        assert world.weight == 50
        assert all(test.outcome != "fail" for test in running(world).tests)


async def test_a_comparison_that_somebody_mangled_begins_anew():
    world = await compared_world(stages=LONG)
    async with world.run():
        await world.serve("first")
        await asyncio.sleep(100)
        await world.replicas[-1].end(kill=True)
        status = {"evidence": {"comparison": {"began": "yesterday", "state": 5}}}
        await world.user.merge_patch(CANARY_ROLLOUTS, SHOP, "checkout", {"status": status}, subresource="status")
        world.start()
        await asyncio.sleep(60)
        assert running(world).through > EPOCH + now() - 30
        make_bad(world)
        await world.until(lambda: world.weight == 0, 60)


async def test_a_comparison_that_is_switched_off_says_nothing():
    world = await compared_world(analysis={"enabled": False})
    async with world.run():
        await world.serve("first")
        await asyncio.sleep(30)
        assert running(world) is None
        assert not world.numbers.ticks
        assert all("comparison" not in verdict["rule"] for verdict in world.status["verdicts"])


async def test_stables_past_is_asked_for_once_per_rollout():
    metrics = {"prometheus": "http://prometheus:9090", "interval": "10s", "window": "60s", "history": "6h"}
    world = await compared_world(stages=LONG, metrics=metrics)
    async with world.run():
        await world.serve("first")
        await asyncio.sleep(60)
        (first, *rest) = world.numbers.replays
        assert first[1] - first[0] == 6 * 3600
        assert not [stretch for stretch in rest if stretch[1] - stretch[0] >= 3600]


async def test_an_app_whose_requests_nobody_counts_is_not_held_by_a_comparison_that_it_cannot_have():
    world = await compared_world(haltRules=[], defaultHaltRules=False)
    world.numbers.canary, world.numbers.stable = {}, {}
    world.numbers.nothing = True
    async with world.run():
        await world.serve("first")
        await world.reach("second", 200)
        (gate,) = [verdict for verdict in world.status["verdicts"] if verdict["rule"] == "promotion"]
        assert "never had requests counted" in gate["message"]
