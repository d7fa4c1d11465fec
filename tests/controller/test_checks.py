"""Evaluations: halt rules wait for nobody's look back, a place held by one keeps no other waiting, and what ends is forgotten."""

import asyncio
import contextlib

import pytest
from fake_api import FakeApi
from operator_world import SHOP, World
from scripted_metrics import Numbers
from small_specs import make_spec
from virtual_time import EPOCH, Wall, api_wall, now

from canary_rollout.controller.access import Access
from canary_rollout.controller.checks import LISTING, Checks
from canary_rollout.controller.gather import Gatherer
from canary_rollout.controller.memory import Memory, Pods
from canary_rollout.kube.cache import Cache

KEY = (SHOP, "checkout")
AT_ONCE = [{"name": "error-rate", "preset": "error-rate", "above": "1%", "for": "0s", "minRequests": 10}]

pytestmark = [pytest.mark.looptime]


class SlowPast(Numbers):
    """Answers at once, but for stretches of the past."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.looks, self.at_once, self.most = seconds, 0, 0, 0

    async def counters_between(self, request, start, end, step, created=None):
        self.looks, self.at_once = self.looks + 1, self.at_once + 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.at_once -= 1
        return await super().counters_between(request, start, end, step, created)


class GatedPods:
    """No pods; the answer comes when a test lets it."""

    def __init__(self):
        self.answers, self.asked = asyncio.Event(), 0

    async def pods_of_both(self, namespace, spec, memory, places=None):
        self.asked += 1
        await self.answers.wait()
        return ((), ())

    async def versions_of_both(self, namespace, spec):
        return ("", "")


class HangingLists(FakeApi):
    """Lists that are never answered."""

    def __init__(self):
        super().__init__(wall=api_wall)
        self.lists = 0

    async def list_all(self, resource, namespace="", labels=None):
        self.lists += 1
        await asyncio.Event().wait()


def checks_of(memories, numbers, gatherer, evaluated):
    api = FakeApi(wall=api_wall).client()
    return Checks(numbers, gatherer, Wall(), evaluated, lambda: memories, access=Access(api, Wall()))


def memory_of(**metrics):
    return Memory(spec=make_spec(rules=AT_ONCE, **{"interval": "10s", "history": "0s", **metrics}), evaluating=True)


@contextlib.asynccontextmanager
async def evaluating(checks):
    task = asyncio.create_task(checks.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("interval", [10, 200])
async def test_halt_rules_are_judged_in_time_while_stables_past_is_looked_at(interval):
    world = World(
        analysis={},
        haltRules=AT_ONCE,
        metrics={"prometheus": "http://prometheus:9090", "interval": f"{interval}s", "window": "60s", "history": "1h"},
        stages=[{"name": "first", "weight": "5%", "hold": "1h"}, {"name": "all", "weight": "100%", "hold": "1h"}],
    )
    world.numbers = SlowPast(500.0)
    await world.build()
    async with world.run():
        await world.serve("first")
        world.numbers.count(EPOCH + now())
        world.numbers.canary["error-rate"] = 0.3
        began = now()
        await world.until(lambda: world.weight == 0, 600)
        assert now() - began <= interval + 5
        assert world.status["halt"]["rule"] == "error-rate"


async def test_a_look_back_that_takes_long_ends_with_the_same_evidence_as_a_quick_one():
    async def evidence(seconds):
        numbers, memory, pods, judged = SlowPast(seconds), memory_of(history="30m"), GatedPods(), []
        numbers.stable["error-rate"] = numbers.canary["error-rate"] = 0.0006
        pods.answers.set()
        checks = checks_of({KEY: memory}, numbers, pods, judged.append)
        async with evaluating(checks):
            checks.follow(KEY, memory)
            await asyncio.sleep(400)
        found = memory.comparing
        assert (found.tries, numbers.looks, len(judged)) == (0, 1, 40)
        return found.comparison.checkpoint(), found.tests, found.comparison.gate(), found.through

    slow, quick = await asyncio.gather(evidence(95.0), evidence(0.0))
    assert slow == quick
    assert slow[0]["errors"]


async def test_one_rollout_looks_back_once_at_a_time_and_not_after_it_has_ended():
    numbers, memory, pods = SlowPast(90.0), memory_of(history="30m"), GatedPods()
    pods.answers.set()
    memories = {KEY: memory}
    checks = checks_of(memories, numbers, pods, lambda _: None)
    async with evaluating(checks):
        checks.follow(KEY, memory)
        await asyncio.sleep(50)
        assert (numbers.looks, numbers.at_once) == (1, 1)
        memory.evaluating = False
        checks.follow(KEY, memory)
        await asyncio.sleep(1)
        assert numbers.at_once == 0
        assert not numbers.requests


async def test_evaluations_that_end_take_their_looks_back_with_them():
    numbers, memory, pods = SlowPast(90.0), memory_of(history="30m"), GatedPods()
    pods.answers.set()
    checks = checks_of({KEY: memory}, numbers, pods, lambda _: None)
    async with evaluating(checks):
        checks.follow(KEY, memory)
        await asyncio.sleep(50)
        assert numbers.at_once == 1
    assert numbers.at_once == 0


async def test_a_rollout_that_ends_while_its_evaluation_waits_is_not_asked_for_any_more():
    numbers, memory, pods = Numbers(), memory_of(), GatedPods()
    checks = checks_of({KEY: memory}, numbers, pods, lambda _: None)
    async with evaluating(checks):
        checks.follow(KEY, memory)
        await asyncio.sleep(15)
        assert pods.asked
        memory.evaluating = False
        checks.follow(KEY, memory)
        pods.answers.set()
        await asyncio.sleep(15)
        assert numbers.asked
        assert not numbers.requests


async def test_lists_that_hang_keep_nobody_waiting_whose_pods_are_known():
    api, cache, judged = HangingLists(), Cache(), []
    memories = {(SHOP, f"app-{number}"): memory_of() for number in range(LISTING + 5)}
    known = memories[SHOP, f"app-{LISTING + 4}"]
    deployments = {
        name: {"metadata": {"name": name, "resourceVersion": "1"}} for name in ("checkout", "checkout-canary")
    }
    cache.get = lambda resource, namespace, name: deployments[name]
    known.pods = {name: Pods("1", ()) for name in deployments}
    for deployment in deployments.values():
        deployment["spec"] = {"selector": {"matchLabels": {"app": "checkout"}}, "template": {"metadata": {}}}
    gatherer = Gatherer(
        api=api, cache=cache, clock=Wall(), no_raise=lambda: "", term=lambda: 1, owner=lambda namespace, name: None
    )
    checks = checks_of(memories, Numbers(), gatherer, judged.append)
    async with evaluating(checks):
        for key, memory in memories.items():
            checks.follow(key, memory)
        await asyncio.sleep(25)
        assert api.lists == LISTING
        assert len(judged) >= 2
        assert set(judged) == {(SHOP, f"app-{LISTING + 4}")}


async def test_a_comparison_that_breaks_is_told_after_the_halt_rules_are_judged():
    class Broken(Numbers):
        async def counters(self, request, at, created=None):
            raise ArithmeticError(at)

    class Told:
        errors = ()

        def started(self, key, late):
            pass

        def ended(self, key, outcome, seconds):
            pass

        def retrying(self, key, error, delay):
            self.errors += (error,)

    memory, pods, judged, told = memory_of(), GatedPods(), [], Told()
    pods.answers.set()
    api = FakeApi(wall=api_wall).client()
    access = Access(api, Wall())
    checks = Checks(Broken(), pods, Wall(), judged.append, lambda: {KEY: memory}, access=access, observer=told)
    async with evaluating(checks):
        checks.follow(KEY, memory)
        await asyncio.sleep(15)
    assert memory.assessment is not None
    assert len(judged) == len(told.errors) > 0
    assert all(isinstance(error, ArithmeticError) for error in told.errors)
