"""Puts an agent together and runs it as a process, through signals and restarts."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics

from canary_rollout.agent.accesslog import LogCounting
from canary_rollout.agent.agent import Agent
from canary_rollout.agent.control import Control
from canary_rollout.agent.driver import Station
from canary_rollout.agent.envoy import Admin, EnvoyDriver, write_bootstrap
from canary_rollout.agent.envoy_stats import EnvoyCounting
from canary_rollout.agent.errors import LoadError
from canary_rollout.agent.instruments import Instruments
from canary_rollout.agent.nginx import Nginx
from canary_rollout.agent.pages import serve_pages
from canary_rollout.agent.proxy import Beside, Proxy
from canary_rollout.agent.settings import Settings
from canary_rollout.agent.workspace import CURRENT, Workspace
from canary_rollout.kube.client import Client, ConfigError
from canary_rollout.kube.port import KubeApi
from canary_rollout.traffic.envoy.document import EnvoyDocument
from canary_rollout.traffic.nginx.document import DocumentType, WeightsDocument

AFTER_TERM: Final = 240.0
"""Seconds the agent stays with an nginx that is draining: its proxies still have to be told of a rollback."""

HEARD: Final = 0.5
"""Seconds after which nginx's parent has had its SIGTERM too, when the whole pod is ending."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("agent")


@contextlib.asynccontextmanager
async def assembled(settings: Settings, api: KubeApi) -> AsyncIterator[tuple[Agent[WeightsDocument], Nginx]]:
    """An agent with its pages served, ready to :meth:`Agent.run`.

    Raises:
        LoadError: the nginx binary does not run.
    """
    workspace = Workspace(settings.work)
    workspace.prepare()
    registry = CollectorRegistry()
    instruments = Instruments(registry)
    nginx = Nginx(settings.nginx, settings.work)
    counting = LogCounting(workspace.access_log, nginx.reopen_logs)
    registry.register(counting.counter)
    abilities = await nginx.abilities()
    _log.info("nginx", version=abilities.version, njs=abilities.njs, binary=settings.nginx)
    async with Control(settings.control, workspace.token(), instruments.retries.labels("control").inc) as control:
        proxy = Proxy(Beside(settings, abilities, nginx, control, workspace, instruments))
        agent = Agent(api, Station(settings, workspace, instruments), proxy, counting)
        runner = await serve_pages(agent, settings, registry)
        try:
            yield agent, nginx
        finally:
            await runner.cleanup()


async def _keep_nginx(nginx: Nginx, settings: Settings) -> None:
    """Run nginx's parent as a process of its own, which outlives us; adopt one that is there already."""
    while True:
        if nginx.master() is None and (settings.work / CURRENT).exists():
            command = [sys.executable, "-m", "canary_rollout.agent", "nginx"]
            process = await asyncio.create_subprocess_exec(
                *command, "--work-dir", f"{settings.work}", "--nginx", settings.nginx,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            _log.info("started nginx", pid=process.pid)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await process.wait()
        await asyncio.sleep(0.2)


async def _until_told(agent: Agent[DocumentType]) -> asyncio.Task[None]:
    """Run the agent's loops; returns when a signal asks for an end, or when they have ended by themselves."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.create_task(agent.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    return running


async def _end(running: asyncio.Task[None]) -> None:
    """End the agent's loops; raises what has ended them before."""
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def _see_nginx_out(nginx: Nginx) -> None:
    """Stay while nginx drains: a rollback must reach it even now. If only this container is restarted, go at once."""
    await asyncio.sleep(HEARD)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(AFTER_TERM):
            while nginx.draining():  # noqa: ASYNC110 - another process decides, there is no event to wait for
                await asyncio.sleep(0.2)


def _configure_logs() -> None:
    """One JSON object per line, plain text on a terminal. Nothing that is logged holds a secret or a tenant."""
    out: structlog.typing.Processor = structlog.dev.ConsoleRenderer()
    if not sys.stderr.isatty():
        out = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True), out],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextlib.asynccontextmanager
async def assembled_envoy(settings: Settings, api: KubeApi) -> AsyncIterator[Agent[EnvoyDocument]]:
    """An agent beside Envoy with its pages served, ready to :meth:`Agent.run`."""
    workspace = Workspace(settings.work)
    write_bootstrap(settings, workspace)
    registry = CollectorRegistry()
    instruments = Instruments(registry)
    async with Admin(settings.control) as admin:
        station = Station(settings, workspace, instruments)
        driver = EnvoyDriver(station, admin)
        counting = EnvoyCounting(admin, driver.held)
        registry.register(counting)
        agent = Agent(api, station, driver, counting)
        runner = await serve_pages(agent, settings, registry, driver.held)
        try:
            yield agent
        finally:
            await runner.cleanup()


def run_agent(settings: Settings, *, exec_nginx: bool) -> int:
    """Run beside nginx until SIGTERM; exit code."""

    async def beside_nginx(api: Client) -> None:
        async with assembled(settings, api) as (agent, nginx):
            keeping = asyncio.create_task(_keep_nginx(nginx, settings)) if exec_nginx else None
            running = await _until_told(agent)
            if keeping is not None:
                keeping.cancel()
                nginx.stop()
            if not running.done():
                await _see_nginx_out(nginx)
            await _end(running)

    return _run(settings, beside_nginx)


def run_envoy_agent(settings: Settings) -> int:
    """Run beside Envoy until SIGTERM; exit code."""

    async def beside_envoy(api: Client) -> None:
        async with assembled_envoy(settings, api) as agent:
            await _end(await _until_told(agent))

    return _run(settings, beside_envoy)


def _run(settings: Settings, beside: Callable[[Client], Awaitable[None]]) -> int:
    _configure_logs()
    disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it without annotations

    async def run() -> None:
        api = await _connect(settings)
        try:
            await beside(api)
        finally:
            await api.close()

    try:
        asyncio.run(run())
    except (ConfigError, LoadError) as error:
        print(f"canary-rollout-agent: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _connect(settings: Settings) -> Client:
    if settings.kubeconfig is not None:
        return await Client.from_kubeconfig(settings.kubeconfig)
    return Client.in_cluster()
