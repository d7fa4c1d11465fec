"""Health, readiness and metrics over HTTP."""

import asyncio
import time

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from canary_rollout.controller.server import LAG_LIMIT, LoopLag, Server


class World:
    def __init__(self):
        self.registry = CollectorRegistry()
        self.gauge = Gauge("canary_test", "A gauge.", registry=self.registry)
        self.problem = ""
        self.refreshed = 0

    def refresh(self):
        self.refreshed += 1
        self.gauge.set(self.refreshed)


@pytest.fixture
async def served():
    world = World()
    server = Server(
        world.registry,
        host="127.0.0.1",
        port=0,
        live={"loop": lambda: world.problem},
        ready={"cache": lambda: world.problem},
        shown={"leader": lambda: True},
        refresh=world.refresh,
    )
    async with server, aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
        yield world, session


async def test_health_and_readiness_tell_what_is_wrong(served):
    world, session = served
    for path in ("/healthz", "/readyz"):
        async with session.get(path) as response:
            assert response.status == 200
            assert (await response.json())["ok"] is True
    world.problem = "deployments not listed yet"
    async with session.get("/readyz") as response:
        assert response.status == 503
        body = await response.json()
        assert body == {"ok": False, "checks": {"cache": "deployments not listed yet"}, "leader": True}
    async with session.get("/healthz") as response:
        assert response.status == 503


async def test_metrics_are_refreshed_when_they_are_read(served):
    _, session = served
    for expected in (1, 2):
        async with session.get("/metrics") as response:
            assert response.status == 200
            assert f"canary_test {expected}.0" in await response.text()
            assert response.headers["Content-Type"].startswith("text/plain")


async def test_openmetrics_is_served_to_those_who_ask(served):
    _, session = served
    async with session.get("/metrics", headers={"Accept": "application/openmetrics-text"}) as response:
        assert "openmetrics" in response.headers["Content-Type"]
        assert (await response.text()).endswith("# EOF\n")


@pytest.mark.looptime
async def test_a_loop_that_keeps_its_pace_has_no_lag():
    lag = LoopLag()
    assert lag.problem() == ""
    assert lag.worst() == 0
    beating = asyncio.create_task(lag.run())
    await asyncio.sleep(100)
    assert lag.worst() < 0.01
    assert lag.problem() == ""
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    await asyncio.sleep(LAG_LIMIT + 1)
    assert "last seen" in lag.problem()


async def test_a_blocking_call_shows_as_lag():
    lag = LoopLag()
    beating = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    time.sleep(0.7)  # noqa: ASYNC251 - it is what is to be noticed
    assert lag.worst() >= 0.15
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
