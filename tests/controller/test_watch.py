"""kopf, the real one, against the fake API server over HTTP: it feeds the cache, writes nothing, and is kept alive."""

import asyncio
import threading

import pytest
from fake_api import FakeApi, FakeServer
from fake_api.rows import Failure

from canary_rollout.controller.queue import Backoff
from canary_rollout.controller.watch import KopfWatch, connection_info
from canary_rollout.kube.cache import Cache
from canary_rollout.kube.client import Client, Connection
from canary_rollout.kube.port import CANARY_ROLLOUTS, DEPLOYMENTS


class World:
    def __init__(self, api, server, client):
        self.api, self.server, self.client = api, server, client
        self.cache = Cache()
        self.changes = []
        self.cache.listen(self.changes.append)
        self.restarted = []
        self.swept = 0
        self.watch = None
        self.task = None

    def watch_restarted(self, what, reason):
        self.restarted.append((what, reason))

    def swept_again(self):
        self.swept += 1

    async def start(self, **options):
        self.watch = KopfWatch(self.client, self.cache, observer=self, on_restart=self.swept_again, **options)
        self.watch._backoff = Backoff(first=0.05, longest=0.05)
        self.task = asyncio.create_task(self.watch.run())
        await self.watch.ready()

    def create(self, name, namespace="shop", resource=CANARY_ROLLOUTS):
        body = {"metadata": {"name": name, "annotations": {"a": "b"}}, "spec": {}}
        return self.api.store.create(resource, namespace, body)

    def spaces(self, resource=CANARY_ROLLOUTS):
        return sorted(obj["metadata"]["namespace"] for obj in self.cache.all(resource))


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - kopf runs on real sockets and another thread
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path):
    api = FakeApi()
    async with FakeServer(api) as server:
        client = await Client.from_kubeconfig(server.kubeconfig(tmp_path / "config"))
        world = World(api, server, client)
        yield world
        if world.task is not None:
            world.task.cancel()
            await asyncio.gather(world.task, return_exceptions=True)
        await client.close()
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name == "kopf"])


async def test_kopf_feeds_the_cache_with_both_kinds_and_writes_nothing(world):
    world.create("first")
    await world.start()
    await until(lambda: world.cache.get(CANARY_ROLLOUTS, "shop", "first"))
    assert world.watch.alive
    world.create("second")
    world.create("web", resource=DEPLOYMENTS)
    await until(lambda: world.cache.get(CANARY_ROLLOUTS, "shop", "second"))
    await until(lambda: world.cache.get(DEPLOYMENTS, "shop", "web"))
    world.api.store.merge_patch(CANARY_ROLLOUTS, "shop", "second", {"spec": {"paused": True}})
    await until(lambda: world.cache.get(CANARY_ROLLOUTS, "shop", "second")["spec"])
    world.api.store.delete(CANARY_ROLLOUTS, "shop", "second")
    await until(lambda: world.cache.get(CANARY_ROLLOUTS, "shop", "second") is None)
    assert {call.verb for call in world.api.calls} == {"list", "watch"}
    assert set(world.server.authorizations) == {"Bearer secret-token"}


async def test_events_are_taken_in_on_the_loop_of_the_cache(world):
    threads = set()
    world.cache.listen(lambda _: threads.add(threading.current_thread()))
    world.create("first")
    await world.start()
    await until(lambda: world.changes)
    assert threads == {threading.current_thread()}


async def test_only_the_namespaces_that_were_asked_for_are_watched(world):
    for namespace in ("shop", "bank", "secret"):
        world.create("checkout", namespace)
    await world.start(namespaces=("shop", "bank"))
    await until(lambda: world.spaces() == ["bank", "shop"])
    assert {call.namespace for call in world.api.calls if call.resource == CANARY_ROLLOUTS} == {"shop", "bank"}


async def test_a_watch_error_that_kills_kopf_is_survived_and_counted(world):
    await world.start()
    await until(lambda: world.api.watches)
    world.api.end_watches(Failure(500, "InternalError", "etcdserver: leader changed"))
    await until(lambda: world.watch.restarts == 1)
    assert world.restarted == [("kopf", "WatchingError")]
    await until(lambda: world.watch.alive)
    assert world.swept == 1
    world.create("after")
    await until(lambda: world.cache.get(CANARY_ROLLOUTS, "shop", "after"))


async def test_stopping_leaves_no_thread(world):
    await world.start()
    await until(lambda: world.api.watches)
    world.task.cancel()
    await asyncio.gather(world.task, return_exceptions=True)
    assert not world.watch.alive
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name == "kopf"])


def test_credentials_are_said_in_the_words_of_kopf():
    connection = Connection(
        server="https://127.0.0.1:6443",
        ca_path="/ca",
        verify=True,
        authorization="bearer abc",
        certificate_path="/c",
        key_path="/k",
        proxy=None,
    )
    info = connection_info(connection)
    assert (info.scheme, info.token, info.ca_path, info.insecure) == ("Bearer", "abc", "/ca", False)
    assert info.as_http_headers() == {"Authorization": "Bearer abc"}
    anonymous = connection_info(Connection("http://127.0.0.1:1", None, False, None, None, None, None))
    assert (anonymous.scheme, anonymous.token, anonymous.insecure) == (None, None, True)
