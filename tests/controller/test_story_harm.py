"""Releases that do harm: rolled back, and staying there, whatever is lost on the way."""

import asyncio

import pytest
from fake_api import Answer, Drop, Hang
from operator_world import SHOP, World
from virtual_time import now

from canary_rollout.kube.port import CANARY_ROLLOUTS, CONFIG_MAPS, DEPLOYMENTS, ENDPOINT_SLICES, PODS
from canary_rollout.model.commands import Verb

pytestmark = [pytest.mark.looptime]

STATUS = {"verb": "patch", "resource": CANARY_ROLLOUTS, "subresource": "status", "client": "operator"}
ROUTE = {"verb": "patch", "resource": CONFIG_MAPS, "client": "operator"}


def turn_bad(world):
    world.numbers.canary["error-rate"] = 0.2


def halted(world):
    return bool(world.state.get("halts"))


async def stays_down(world, seconds=900.0):
    await asyncio.sleep(seconds)
    assert world.weight == 0
    assert world.phase == "RolledBack"


async def test_a_bad_release_is_rolled_back_at_the_next_evaluation():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        await asyncio.sleep(15)
        turn_bad(world)
        began = now()
        down = await world.until(lambda: world.weight == 0)
        assert down - began < 10.1
        assert world.state["halts"][0]["rule"] == "error-rate"
        assert "20" in world.state["halts"][0]["message"]
        await world.rest("RolledBack")
        assert now() - down >= 30, "requests under way have their time"
        assert not world.deployment()["spec"].get("paused")
        assert world.image("checkout") == "app:v1"
        world.numbers.canary["error-rate"] = 0.0
        await stays_down(world)
    assert world.condition("Stalled")["reason"] == "RolledBack"
    assert world.told.reasons().count("RuleFailed") == 1
    assert world.status["history"][0]["result"] == "RolledBack"


async def test_latch_and_lowering_are_both_under_way_before_either_is_answered():
    world = await World(latency=0.2).build()
    async with world.run():
        await world.serve("second")
        turn_bad(world)
        began = now()
        await world.until(lambda: world.weight == 0)
    sent = [call for call in world.writes(since=began) if call.resource in {CANARY_ROLLOUTS, CONFIG_MAPS}][:2]
    assert {call.resource for call in sent} == {CANARY_ROLLOUTS, CONFIG_MAPS}
    assert sent[0].at == sent[1].at, "an answer takes 0.4 s here"
    assert all("resourceVersion" not in call.body["metadata"] for call in sent if "metadata" in call.body)


@pytest.mark.parametrize("fault", [Hang(), Drop(), Answer(500), Answer(409), Answer(422)], ids=str)
async def test_a_latch_that_does_not_arrive_holds_no_lowering_up(fault):
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.api.fault(fault, times=1, **STATUS)
        turn_bad(world)
        down = await world.until(lambda: world.weight == 0, 30)
        sent = world.writes(CONFIG_MAPS)[-1].at
        assert down - sent <= 0.1
        assert world.writes(CANARY_ROLLOUTS)[-1].at == sent
        latched = await world.until(lambda: halted(world))
        assert latched - sent <= 4
        await world.rest("RolledBack")
        assert now() - sent < 40, "the drain is counted once"
        await stays_down(world)


@pytest.mark.parametrize("fault", [Hang(), Drop(), Drop(after_effect=True), Answer(500), Answer(422)], ids=str)
async def test_a_lowering_that_does_not_arrive_holds_no_latch_up_and_is_sent_again(fault):
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.api.fault(fault, times=1, **ROUTE)
        turn_bad(world)
        latched = await world.until(lambda: halted(world))
        assert latched == world.writes(CONFIG_MAPS)[-1].at
        down = await world.until(lambda: world.weight == 0)
        assert down - latched <= 4
        await world.rest("RolledBack")
        await stays_down(world)


async def test_a_latch_that_is_lost_is_found_on_the_route_after_a_restart():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.api.fault(Answer(500), times=None, **STATUS)
        turn_bad(world)
        await world.until(lambda: world.weight == 0)
        await asyncio.sleep(1)
        assert not halted(world)
        await world.replicas[-1].end(kill=True)
        world.api.clear_faults()
        world.numbers.canary["error-rate"] = 0.0
        world.start()
        await world.rest("RolledBack")
        assert world.state["halts"][0]["rule"] == "error-rate"
        await stays_down(world)


async def test_a_lowering_that_is_lost_is_sent_by_the_next_process():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.api.fault(Answer(500), times=None, **ROUTE)
        turn_bad(world)
        await world.until(lambda: halted(world))
        await world.replicas[-1].end(kill=True)
        assert world.weight == 500
        world.api.clear_faults()
        world.numbers.canary["error-rate"] = 0.0
        began = now()
        world.start()
        assert await world.until(lambda: world.weight == 0) - began < 1
        await world.rest("RolledBack")
        await stays_down(world)


async def test_a_route_found_lowered_without_a_cause_halts_the_rollout():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        await world.replicas[-1].end(kill=True)
        await world.user.apply(CONFIG_MAPS, SHOP, "checkout-nginx", route_at(world, 0), manager="canary-rollout")
        world.start()
        await world.rest("Halted")
        assert world.state["halts"][0]["reason"] == "RouteLoweredByOthers"


def route_at(world, weight):
    import json

    data = dict(world.look(CONFIG_MAPS, "checkout-nginx")["data"])
    found = json.loads(data["weights.json"])
    data["weights.json"] = json.dumps({**found, "weight": weight})
    return {"data": data}


@pytest.mark.parametrize("reason", ["CrashLoopBackOff", "OOMKilled"])
async def test_pods_that_crash_while_serving_take_the_traffic_with_them_for_good(reason):
    world = await World(latency=0.01).build()
    async with world.run():
        await world.serve("third")
        began = now()
        world.deployments.crash(SHOP, "checkout-canary", reason=reason)
        assert await world.until(lambda: world.weight == 0, 1.0) - began <= 0.3
        for _ in range(5):
            await asyncio.sleep(3)
            world.deployments.ready(SHOP, "checkout-canary")
            await asyncio.sleep(3)
            world.deployments.crash(SHOP, "checkout-canary", reason=reason)
        world.deployments.ready(SHOP, "checkout-canary")
        await world.rest("RolledBack")
        await stays_down(world)
    halt = world.state["halts"][0]
    assert halt["reason"] in {"CanaryCrashed", "CanaryNotReady"}
    assert halt["weight"] == "25%"


async def test_pods_that_are_no_longer_ready_while_serving_roll_back():
    world = await World(latency=0.01).build()
    async with world.run():
        await world.serve("third")
        began = now()
        world.deployments.unready(SHOP, "checkout-canary")
        assert await world.until(lambda: world.weight == 0, 1.0) - began <= 0.3
        world.deployments.ready(SHOP, "checkout-canary")
        await world.rest("RolledBack")
        await stays_down(world)


async def test_pods_that_crash_before_they_serve_are_waited_for():
    world = await World().build()
    async with world.run():
        await world.rest("Idle")
        world.deployments.crashing.add((SHOP, "checkout-canary"))
        await world.release()
        await world.until(lambda: "CrashLoopBackOff" in world.message)
        await asyncio.sleep(60)
        assert world.phase == "Preparing"
        assert not world.raised
        world.deployments.ready(SHOP, "checkout-canary")
        await world.reach("first")


async def test_crashes_of_stables_pods_found_by_a_wide_selector_are_not_the_canarys():
    world = await World().build()
    # The canary selects by app alone, so stable's pods match as well.
    canary = world.api.store._rows[DEPLOYMENTS][(SHOP, "checkout-canary")].obj
    canary["spec"]["selector"] = {"matchLabels": {"app": "checkout"}}
    async with world.run():
        await world.serve("second")
        world.deployments.crash(SHOP, "checkout")
        await asyncio.sleep(20)
        assert world.weight == 500


async def test_a_canary_deployment_that_is_deleted_while_it_serves_rolls_back():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        began = now()
        await world.user.delete(DEPLOYMENTS, SHOP, "checkout-canary")
        assert await world.until(lambda: world.weight == 0) - began < 1
        await world.until(lambda: halted(world))


async def test_a_rollback_while_stable_is_being_promoted_gives_stable_its_old_template_back():
    world = await World().build()
    async with world.run():
        await world.serve("all")
        world.deployments.ready_after = None
        await world.until(lambda: world.image("checkout") == "app:v2")
        await world.say(Verb.ROLLBACK)
        await world.until(lambda: world.weight == 0)
        await world.until(lambda: world.image("checkout") == "app:v1")
        world.deployments.ready_after = 1.0
        world.deployments.ready(SHOP, "checkout")
        await world.rest("RolledBack")
    assert world.image("checkout") == "app:v1"


async def test_a_condemned_revision_that_comes_back_after_another_stays_down():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        turn_bad(world)
        await world.rest("RolledBack")
        world.numbers.canary["error-rate"] = 0.0
        await world.release("v3")
        await world.reach("second")
        await world.release("v2")
        await world.until(lambda: world.weight == 0)
        await world.rest("RolledBack")
        await stays_down(world)


async def test_a_fail_that_is_seen_while_the_api_is_down_is_not_forgotten_when_numbers_turn_good():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.api.fault(Answer(503), times=None, client="operator", verb="patch", resource=CANARY_ROLLOUTS)
        world.api.fault(Answer(503), times=None, client="operator", verb="patch", resource=CONFIG_MAPS)
        world.api.fault(Answer(503), times=None, client="operator", resource=PODS)
        turn_bad(world)
        await asyncio.sleep(12)
        world.numbers.canary["error-rate"] = 0.0
        await asyncio.sleep(30)
        assert world.weight == 500
        world.api.clear_faults()
        await world.rest("RolledBack", 200)
        await stays_down(world)


async def test_a_storm_of_changes_does_not_keep_a_rollback_from_happening():
    world = await World(latency=0.05).build()
    async with world.run():
        await world.serve("second")

        async def storm():
            while True:
                await world.annotate({"example.com/seen": f"{now()}"})
                world.deployments._status(SHOP, "checkout-canary")
                await asyncio.sleep(0.02)

        noise = asyncio.create_task(storm())
        began = now()
        world.deployments.crash(SHOP, "checkout-canary")
        assert await world.until(lambda: world.weight == 0, 5) - began < 1
        await world.until(lambda: halted(world), 5)
        noise.cancel()
        await world.rest("RolledBack")


async def test_a_rule_that_pauses_waits_for_a_person():
    rules = [{"name": "error-rate", "preset": "error-rate", "above": "1%", "minRequests": 10, "action": "Pause"}]
    world = await World(haltRules=rules).build()
    async with world.run():
        await world.serve("second")
        turn_bad(world)
        await world.rest("Paused")
        world.numbers.canary["error-rate"] = 0.0
        await asyncio.sleep(300)
        assert (world.weight, world.phase) == (500, "Paused")
        await world.say(Verb.RESUME)
        await world.rest("Succeeded")


async def test_a_rule_that_alerts_says_so_once_and_stops_nothing():
    rules = [
        {"name": "error-rate", "preset": "error-rate", "above": "1%", "for": "0s", "minRequests": 10, "action": "Alert"}
    ]
    world = await World(haltRules=rules).build()
    async with world.run():
        await world.serve("second")
        turn_bad(world)
        await world.rest("Succeeded")
    assert world.told.reasons().count("RuleAlert") <= 3
    assert "RuleAlert" in world.told.reasons()


async def test_a_crash_that_only_the_answer_to_our_own_call_shows_is_acted_on():
    world = await World().build()
    async with world.run():
        entered = await world.serve("all")
        await asyncio.sleep(entered + 59 - now())
        world.api.frozen = True  # the watches hang; what happens now is told by nobody
        world.deployments.crash(SHOP, "checkout-canary")
        # Promotion reads both Deployments, and so sees it.
        await world.until(lambda: world.weight == 0, 30)
        assert halted(world)


async def test_a_stage_that_began_is_told_also_when_the_answer_to_its_record_was_lost():
    world = await World().build()
    async with world.run():
        await world.serve("first")
        await world.until(lambda: world.weight == 500)
        told = world.told.reasons().count("StageStarted")
        world.api.fault(Drop(after_effect=True), times=1, **STATUS)
        await world.reach("second")
        await asyncio.sleep(5)
        assert world.told.reasons().count("StageStarted") == told + 1
        assert world.weight == 500


async def test_a_canary_service_that_loses_its_endpoints_while_serving_rolls_back():
    world = await World().build()
    endpoint = {"addresses": ["10.244.0.7"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "c"}}
    metadata = {"name": "checkout-canary-1", "labels": {"kubernetes.io/service-name": "checkout-canary"}}
    found = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4"}
    await world.user.create(ENDPOINT_SLICES, SHOP, {**found, "endpoints": [endpoint], "ports": []})
    async with world.run():
        await world.serve("second")
        # Somebody breaks the Service's selector: the pods are ready, and nobody reaches them.
        await world.user.merge_patch(ENDPOINT_SLICES, SHOP, "checkout-canary-1", {"endpoints": []})
        await world.until(lambda: world.weight == 0, 1.0)
        await world.rest("RolledBack")
        assert "Service checkout-canary has no ready endpoint" in world.status["message"]


async def test_traffic_is_not_raised_onto_a_service_whose_first_endpoints_have_not_come():
    world = await World().build()
    endpoint = {"addresses": ["10.244.0.7"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "c"}}
    metadata = {"name": "checkout-canary-1", "labels": {"kubernetes.io/service-name": "checkout-canary"}}
    found = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4"}
    await world.user.create(ENDPOINT_SLICES, SHOP, {**found, "endpoints": [], "ports": []})
    async with world.run():
        await world.rest("Idle")
        await world.release()
        await world.until(lambda: "no ready endpoint" in world.message, 30)
        await asyncio.sleep(60)
        assert world.weight == 0
        await world.user.merge_patch(ENDPOINT_SLICES, SHOP, "checkout-canary-1", {"endpoints": [endpoint]})
        await world.until(lambda: world.weight > 0, 30)
        assert not halted(world)
