"""Agents that end at a bad moment, begin without the API server, or find the disk full: nobody is raised, nobody unready."""

import asyncio
import contextlib
import errno
import os
import time

import pytest
from envoys import EnvoyWorld, envoy_agent, envoy_process, envoy_settings, envoy_spec
from fake_api import Answer
from proxies import (
    NAMESPACE,
    World,
    agent_task,
    apps,
    edge,
    endpoint_slice,
    eventually,
    free_port,
    nginx_process,
    settings_for,
    spec_of,
)
from under_load import share, until_share

from canary_rollout.agent.envoy import EnvoyDriver
from canary_rollout.agent.proxy import Proxy
from canary_rollout.kube.port import ENDPOINT_SLICES, LEASES

pytestmark = pytest.mark.nginx


class Beside:
    """A proxy of one kind and its agent, each started and ended by the test."""

    def __init__(self, kind, work, stale_after):
        self.port = free_port()
        listening = {"service": "edge", "listen": self.port, "staleAfter": stale_after}
        if kind == "envoy":
            self.settings, self.world = envoy_settings(work), EnvoyWorld(spec=envoy_spec(envoy=listening))
            self.proxy, self._agent, self.last_step = envoy_process, envoy_agent, (EnvoyDriver, "_wait_for_lease")
        else:
            self.settings, self.world = settings_for(work), World(spec=spec_of(nginx={**listening, "mode": kind}))
            self.proxy, self._agent, self.last_step = nginx_process, agent_task, (Proxy, "_remember")

    def agent(self):
        return self._agent(self.world, self.settings)

    @contextlib.asynccontextmanager
    async def ready(self):
        """The apps, and the proxy confirmed at a quarter; its agent has ended."""
        async with apps(self.world):
            await self.world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
            yield

    async def begin(self):
        async with self.agent():
            await self.world.route(2500)
            await eventually(lambda: self.world.view().confirmed)

    def cut_off(self):
        self.world.api.fault(Answer(503), times=None, client="edge-1")


@pytest.mark.parametrize("kind", ["njs", "reload", "envoy"])
async def test_an_agent_that_ends_right_after_a_lowering_does_not_raise_the_weight_again_when_it_is_back(
    tmp_path, kind, monkeypatch
):
    beside = Beside(kind, tmp_path / "w", "600s")
    async with beside.ready(), beside.proxy(beside.settings):
        await beside.begin()
        with monkeypatch.context() as patched, contextlib.suppress(ExceptionGroup):

            def killed(*_):
                raise ZeroDivisionError

            patched.setattr(*beside.last_step, killed)
            async with beside.agent():
                await beside.world.route(0)
                await until_share(beside, lambda found: found == 0)
        beside.cut_off()
        async with beside.agent() as agent:
            await eventually(lambda: agent.ready)
            assert await share(beside.port) == 0


@pytest.mark.parametrize("again", [False, True], ids=["the agent alone", "the whole pod"])
@pytest.mark.parametrize("kind", ["njs", "reload", "envoy"])
async def test_begun_without_the_api_server_after_the_lease_is_over_a_proxy_is_ready_and_serves_stable(
    tmp_path, kind, again
):
    beside = Beside(kind, tmp_path / "w", "2s")
    async with beside.ready(), contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(beside.proxy(beside.settings))
        await beside.begin()
        ended = time.monotonic()
        if again:
            await stack.aclose()
        beside.cut_off()
        await asyncio.sleep(ended + 2.5 - time.monotonic())
        if again:
            await stack.enter_async_context(beside.proxy(beside.settings))
        async with beside.agent() as agent:
            await eventually(lambda: agent.ready)
            await until_share(beside, lambda found: found == 0)
            beside.world.api.clear_faults()
            await eventually(lambda: beside.world.view().confirmed)
            await until_share(beside, lambda found: found > 0)


async def test_a_full_disk_neither_ends_the_agent_nor_keeps_a_weight_up(tmp_path, monkeypatch):
    async with edge(tmp_path / "w", weight=2500) as proxy:

        def full(path, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{path}")

        with monkeypatch.context() as patched:
            patched.setattr("canary_rollout.agent.workspace._write", full)
            await proxy.world.route(0)
            await until_share(proxy, lambda found: found == 0)
            lease = lambda: proxy.world.api.store.peek(LEASES, NAMESPACE, "checkout-nginx.edge-1")["metadata"]  # noqa: E731
            await eventually(lambda: "No space left" in lease()["annotations"]["canaryrollout.dev/error"])
            assert proxy.agent.ready
            assert not proxy.world.view().confirmed
        await proxy.confirmed()
        assert await share(proxy.port) == 0


async def test_what_a_full_disk_left_half_written_is_not_left_behind(tmp_path, monkeypatch):
    async with edge(tmp_path / "w", weight=2500, nginx_traffic={"mode": "reload"}) as proxy:
        before = sorted((tmp_path / "w/conf").iterdir())

        def full(path, text):
            if path.name == "routing.conf":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{path}")
            path.write_text(text)

        with monkeypatch.context() as patched:
            patched.setattr("canary_rollout.agent.workspace._write", full)
            await proxy.world.route(5000)
            lease = lambda: proxy.world.api.store.peek(LEASES, NAMESPACE, "checkout-nginx.edge-1")["metadata"]  # noqa: E731
            await eventually(lambda: "No space left" in lease()["annotations"]["canaryrollout.dev/error"])
            assert sorted((tmp_path / "w/conf").iterdir()) == before
