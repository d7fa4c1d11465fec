"""Lists and watches that keep the cache true, under virtual time."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from fake_api import Answer, Drop, FakeApi
from under_way import under_way

from canary_rollout.controller.informers import Informers
from canary_rollout.kube.cache import Cache
from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    INGRESSES,
    MANAGED_BY,
    OPERATOR,
    ROLLOUT_LABEL,
    SERVICES,
)
from canary_rollout.traffic.port import Watched

pytestmark = [pytest.mark.looptime]

KEY = ("shop", "checkout")


class Seen:
    def __init__(self):
        self.restarts, self.sweeps = [], []

    def watch_restarted(self, what, reason):
        self.restarts.append((what, reason))

    def swept(self, resource, sweep, *, first):
        self.sweeps.append((resource.plural, len(sweep.changed) + len(sweep.vanished), first))


class World:
    def __init__(self, **options):
        self.api = FakeApi()
        self.cache = Cache()
        self.woken = []
        self.seen = Seen()
        self.informers = Informers(self.api.client(), self.cache, self.woken.append, observer=self.seen, **options)

    def create(self, resource, name, namespace="shop", **labels):
        return self.api.store.create(resource, namespace, {"metadata": {"name": name, "labels": labels}})

    def watches(self, resource):
        return [watch for watch in self.api.watches if watch.call.resource == resource]

    @asynccontextmanager
    async def running(self):
        async with under_way(self.informers.run(), ahead=0.1):
            yield self


@pytest.fixture
def world():
    return World()


async def test_what_is_always_needed_is_primed_before_anything_is_said_to_be_known(world):
    world.create(CANARY_ROLLOUTS, "checkout")
    world.create(DEPLOYMENTS, "web")
    assert not world.informers.primed()
    async with world.running():
        assert world.informers.primed()
        assert world.cache.get(DEPLOYMENTS, "shop", "web")
        assert world.woken == [KEY]
        assert not world.watches(DEPLOYMENTS), "kopf feeds those"


async def test_an_unlisted_kind_says_why(world):
    world.api.fault(Answer(403, "deployments is forbidden"), resource=DEPLOYMENTS, times=None)
    async with world.running():
        [lack] = world.informers.missing([])
        assert lack.startswith("deployments not listed yet")
        assert "forbidden" in lack
        assert "forbidden" in world.informers.problems()["deployments"]
        assert world.informers.sweep_age() == float("inf")


async def test_a_kind_is_watched_once_a_rollout_reads_it_and_wakes_it(world):
    service = Watched(SERVICES, "shop", "nginx")
    slices = Watched(ENDPOINT_SLICES, "shop", labels=(("kubernetes.io/service-name", "nginx"),))
    async with world.running():
        assert not world.watches(SERVICES)
        world.informers.need(KEY, (service, slices))
        assert not world.informers.primed([service])
        await asyncio.sleep(0.1)
        assert world.informers.primed([service, slices])
        world.create(SERVICES, "nginx")
        world.create(SERVICES, "other")
        await asyncio.sleep(0.1)
        assert world.woken == [KEY]
        world.create(ENDPOINT_SLICES, "nginx-1", **{"kubernetes.io/service-name": "nginx"})
        world.create(ENDPOINT_SLICES, "other-1", **{"kubernetes.io/service-name": "other"})
        await asyncio.sleep(0.1)
        assert world.woken == [KEY, KEY]
        world.api.store.delete(ENDPOINT_SLICES, "shop", "nginx-1")
        await asyncio.sleep(0.1)
        assert world.woken == [KEY, KEY, KEY]
        assert world.cache.select(ENDPOINT_SLICES, "shop", dict(slices.labels)) == []


async def test_config_maps_are_selected_by_the_server(world):
    mine = {MANAGED_BY: OPERATOR, ROLLOUT_LABEL: "checkout"}
    async with world.running():
        world.informers.need(KEY, [Watched(CONFIG_MAPS, "shop", "checkout-nginx")])
        await asyncio.sleep(0.1)
        world.create(CONFIG_MAPS, "checkout-nginx", **mine)
        world.create(CONFIG_MAPS, "somebody-elses")
        await asyncio.sleep(0.1)
        assert world.cache.count(CONFIG_MAPS) == 1
        assert world.woken == [KEY]


async def test_needs_can_change_and_be_dropped(world):
    one, two = Watched(SERVICES, "shop", "one"), Watched(SERVICES, "shop", "two")
    async with world.running():
        world.informers.need(KEY, [one])
        world.informers.need(KEY, [two])
        await asyncio.sleep(0.1)
        world.create(SERVICES, "one")
        await asyncio.sleep(0.1)
        assert world.woken == []
        world.create(SERVICES, "two")
        await asyncio.sleep(0.1)
        assert world.woken == [KEY]
        world.informers.drop(KEY)
        await asyncio.sleep(200)
        assert world.watches(SERVICES), "kept for a while, for the next rollout"
        await asyncio.sleep(300)
        assert not world.watches(SERVICES)
        assert not world.cache.primed(SERVICES, "shop")
        world.informers.need(KEY, [one])
        await asyncio.sleep(0.1)
        assert world.informers.primed([one])


async def test_a_gone_watch_lists_again_and_sweeps(world):
    world.create(SERVICES, "old")
    async with world.running():
        world.informers.need(KEY, [Watched(SERVICES, "shop", "old")])
        await asyncio.sleep(1)
        world.woken.clear()
        world.api.frozen = True
        world.api.store.delete(SERVICES, "shop", "old")
        world.create(SERVICES, "new")
        world.api.frozen = False
        world.api.gone_watches()
        await asyncio.sleep(1)
        assert world.cache.get(SERVICES, "shop", "old") is None
        assert world.cache.get(SERVICES, "shop", "new")
        assert world.woken == [KEY]
        assert ("services", "gone") in world.seen.restarts


async def test_a_broken_watch_goes_on_where_it_was(world):
    async with world.running():
        world.informers.need(KEY, [Watched(SERVICES, "shop", "a")])
        await asyncio.sleep(1)
        lists = len(world.api.calls_of("operator", "list"))
        world.api.fault(Drop(), verb="watch", times=3)
        world.api.end_watches()
        world.create(SERVICES, "a")
        await asyncio.sleep(20)
        assert world.cache.get(SERVICES, "shop", "a")
        assert len(world.api.calls_of("operator", "list")) == lists
        assert world.seen.restarts == [("services", "UnavailableError")] * 3
        world.api.fault(Answer(500), verb="watch", times=20)
        world.api.end_watches()
        await asyncio.sleep(200)
        assert len(world.api.calls_of("operator", "list")) > lists
        await asyncio.sleep(200)
        assert world.informers.problems() == {}


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_loop(world):
    async with world.running():
        world.informers.need(KEY, [Watched(SERVICES, "shop", "a")])
        await asyncio.sleep(1)
        world.api.calls.clear()
        for _ in range(600):
            world.api.end_watches()
            await asyncio.sleep(0.1)
        assert len(world.api.calls_of("operator", "watch")) <= 130


async def test_a_stuck_watch_is_cured_within_the_sweep_period(world):
    async with world.running():
        world.informers.need(KEY, [Watched(SERVICES, "shop", "a")])
        await asyncio.sleep(1)
        world.api.frozen = True
        world.create(SERVICES, "a")
        await asyncio.sleep(100)
        assert world.cache.get(SERVICES, "shop", "a") is None
        await asyncio.sleep(300)
        assert world.cache.get(SERVICES, "shop", "a")


async def test_a_kind_the_cluster_does_not_know_is_said_and_holds_nobody_else_up(world):
    watched = [Watched(INGRESSES, "shop", "a")]
    world.api.store.unregister(INGRESSES)
    async with world.running():
        world.informers.need(KEY, watched)
        await asyncio.sleep(1)
        [said] = world.informers.absent(watched)
        assert "Ingress (networking.k8s.io/v1)" in said
        assert world.informers.sweep_age() < 10
        assert not world.informers.primed(watched)
        world.api.store.register(INGRESSES)
        world.create(INGRESSES, "a")
        await asyncio.sleep(60)
        assert world.informers.absent(watched) == []
        assert world.informers.primed(watched)
        assert KEY in world.woken


async def test_what_kopf_misses_is_found_by_the_sweep(world):
    world.create(DEPLOYMENTS, "ghost")
    async with world.running():
        world.api.store.delete(DEPLOYMENTS, "shop", "ghost")
        assert world.cache.get(DEPLOYMENTS, "shop", "ghost")
        world.informers.sweep_now(DEPLOYMENTS)
        await asyncio.sleep(0.1)
        assert ("deployments", 1, False) in world.seen.sweeps
        assert world.cache.get(DEPLOYMENTS, "shop", "ghost") is None
        world.create(DEPLOYMENTS, "late")
        await asyncio.sleep(331)
        assert world.cache.get(DEPLOYMENTS, "shop", "late")
        assert world.informers.sweep_age() < 331


async def test_a_held_cluster_costs_one_list_per_kind_and_five_minutes(world):
    async with world.running():
        world.informers.need(KEY, [Watched(SERVICES, "shop", "a")])
        await asyncio.sleep(1)
        world.api.calls.clear()
        await asyncio.sleep(3000)
        assert len(world.api.calls_of("operator", "list")) <= 3 * 11
        assert len(world.api.calls_of("operator", "watch")) <= 22


async def test_an_operator_of_some_namespaces_asks_for_nothing_else():
    world = World(namespaces=["shop", "bank"])
    for namespace in ("shop", "bank", "secret"):
        world.create(CANARY_ROLLOUTS, "checkout", namespace)
    async with world.running():
        world.informers.need(KEY, [Watched(SERVICES, "shop", "a")])
        await asyncio.sleep(1)
        assert sorted(world.woken) == [("bank", "checkout"), ("shop", "checkout")]
        assert {call.namespace for call in world.api.calls} == {"shop", "bank"}
        assert world.informers.primed([Watched(SERVICES, "shop", "a")])


async def test_an_informer_that_dies_is_noticed(world, monkeypatch):
    task = asyncio.create_task(world.informers.run())
    await asyncio.sleep(0.1)

    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(world.cache, "replace", broken)
    world.informers.sweep_now()
    with pytest.raises(RuntimeError, match="a bug"):
        await task
