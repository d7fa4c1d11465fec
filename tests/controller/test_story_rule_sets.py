"""Halt rules that are shared: read where they are referred to, followed when they change, and held for when they are missing."""

import asyncio

import pytest
from fake_api import Answer
from operator_world import SHOP, World

from canary_rollout.kube.port import CLUSTER_HALT_RULE_SETS, HALT_RULE_SETS, Object

pytestmark = [pytest.mark.looptime]

STRICT: Object = {
    "apiVersion": "canaryrollout.dev/v1alpha1",
    "kind": "HaltRuleSet",
    "metadata": {"name": "strict", "namespace": SHOP},
    "spec": {
        "variables": [{"name": "limit"}],
        "haltRules": [{"name": "slow", "preset": "latency-p99", "above": "${limit}", "minRequests": 10}],
    },
}
EVERYBODY: Object = {
    "apiVersion": "canaryrollout.dev/v1alpha1",
    "kind": "ClusterHaltRuleSet",
    "metadata": {"name": "everybody"},
    "spec": {"haltRules": [{"name": "pages", "query": "sum(pages)", "above": "0", "minRequests": 0}]},
}
REFERENCES = [
    {"name": "strict", "variables": {"limit": "0.5"}},
    {"name": "everybody", "kind": "ClusterHaltRuleSet"},
]


async def a_world(*sets: Object, **changes) -> World:
    world = World(haltRuleSets=REFERENCES, **changes)
    for found in sets:
        resource = HALT_RULE_SETS if found["kind"] == "HaltRuleSet" else CLUSTER_HALT_RULE_SETS
        await world.user.create(resource, found["metadata"].get("namespace"), found)
    return await world.build()


async def test_rules_of_both_kinds_of_sets_are_watched():
    world = await a_world(STRICT, EVERYBODY)
    async with world.run():
        await world.serve("second")
        listed = {verdict["rule"] for verdict in world.status["verdicts"]} | set(world.status["inactiveRules"])
        assert {"slow", "pages", "error-rate"} <= listed
        world.numbers.canary["latency-p99"] = 0.9
        await world.until(lambda: world.weight == 0, 11)
        await world.rest("RolledBack")
        assert "slow: 900 ms over 500 requests in 1m, above 500 ms" in world.message


async def test_a_set_that_does_not_exist_is_named_and_nothing_is_raised_until_it_does():
    world = await a_world(EVERYBODY)
    async with world.run():
        await world.release()
        await world.until(lambda: "HaltRuleSet strict: it does not exist in namespace shop" in world.message)
        await asyncio.sleep(300)
        assert world.raised == []
        await world.user.create(HALT_RULE_SETS, SHOP, STRICT)
        await world.reach("first")


async def test_a_set_that_is_deleted_under_way_holds_the_weight_and_its_rules_still_count():
    world = await a_world(STRICT, EVERYBODY)
    async with world.run():
        await world.serve("second")
        await world.user.delete(HALT_RULE_SETS, SHOP, "strict")
        await world.until(lambda: "the rules it had still count" in world.message)
        await asyncio.sleep(300)
        assert world.weight == 500
        world.numbers.canary["latency-p99"] = 0.9
        await world.until(lambda: world.weight == 0, 11)


async def test_a_set_that_changes_under_way_counts_as_it_is_now():
    world = await a_world(STRICT, EVERYBODY)
    world.numbers.canary["latency-p99"] = 0.3
    async with world.run():
        await world.serve("second")
        tighter = {"haltRules": [{"name": "slow", "preset": "latency-p99", "above": "0.1", "minRequests": 10}]}
        await world.user.merge_patch(HALT_RULE_SETS, SHOP, "strict", {"spec": {**tighter}})
        await world.until(lambda: world.weight == 0, 12)


async def test_a_set_that_cannot_be_used_is_told_with_the_reason():
    broken = {**STRICT, "spec": {**STRICT["spec"], "variables": [{"name": "limit"}, {"name": "team"}]}}
    world = await a_world(broken, EVERYBODY)
    async with world.run():
        await world.release()
        await world.until(lambda: "HaltRuleSet strict: variable team has no value" in world.message)


async def test_after_a_restart_the_rules_of_sets_count_from_the_first_evaluation():
    world = await a_world(STRICT, EVERYBODY)
    async with world.run():
        await world.serve("second")
        world.numbers.canary["latency-p99"] = 0.9
        await world.restart()
        await world.until(lambda: world.weight == 0, 15)


async def test_sets_that_nobody_may_list_hold_raises_and_not_rollbacks():
    world = await a_world(STRICT, EVERYBODY)
    async with world.run():
        await world.serve("second")
        await world.replicas[-1].end()
        world.api.fault(Answer(403, "haltrulesets is forbidden"), resource=HALT_RULE_SETS, times=None)
        world.start()
        await world.until(lambda: "the cluster does not list haltrulesets" in world.message, 60)
        assert world.weight == 500
        world.numbers.canary["error-rate"] = 0.5
        await world.until(lambda: world.weight == 0, 12)
