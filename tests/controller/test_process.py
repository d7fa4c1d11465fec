"""The real process against the fake API server over HTTP: kopf, the real client, signals, exit codes."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time

import pytest
import virtual_time
from aiohttp import web
from fake_api import FakeServer
from operator_world import SHOP, World

from canary_rollout.controller.lease import LeaseLostError
from canary_rollout.controller.main import LEASE_LOST, _first
from canary_rollout.kube.port import EVENTS, LEASES

WITHIN = 60.0
"""Seconds for what must come anyway, on however slow a machine."""
TICK = 300
"""Seconds between two looks at the metrics: longer than anybody waits here, so that whatever comes is no tick's doing."""


@contextlib.asynccontextmanager
async def process(*arguments, **environment):
    """One operator process; killed at the end if it still runs."""
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith("KUBE")}
    command = [sys.executable, "-m", "canary_rollout.controller", "--host", "127.0.0.1", *arguments]
    started = await asyncio.create_subprocess_exec(
        *command,
        env={**surroundings, "LOG_FORMAT": "json", **environment},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()
        started._transport.close()


async def last_words(started) -> str:
    async with asyncio.timeout(WITHIN):
        said = await started.stderr.read()
        await started.wait()
    return said.decode()


@pytest.fixture
async def world(monkeypatch):
    monkeypatch.setattr(virtual_time, "EPOCH", time.time() - asyncio.get_running_loop().time())
    stages = [{"name": "first", "weight": "5%", "hold": "1h"}, {"name": "all", "weight": "100%", "hold": "1h"}]
    world = World(stages=stages, metrics={"prometheus": "http://127.0.0.1:9", "interval": f"{TICK}s"})
    world.deployments.ready_after = 0.2
    return await world.build()


def holder(world):
    return world.look(LEASES, "canary", "system").get("spec", {}).get("holderIdentity")


async def test_a_release_a_crash_and_a_goodbye(world, tmp_path):
    async with FakeServer(world.api, client="operator") as server:
        arguments = ["--kubeconfig", server.kubeconfig(tmp_path / "config"), "--port", "0"]
        arguments += ["--namespace", "system", "--lease", "canary", "--identity", "me"]
        async with process(*arguments) as started:
            await world.rest("Idle", WITHIN)
            assert holder(world) == "me"
            await world.release()
            await world.until(lambda: world.weight == 500, WITHIN)
            world.deployments.crash(SHOP, "checkout-canary")
            await world.until(
                lambda: world.weight == 0, WITHIN
            )  # measured by `make bench`; here, that no tick is waited for
            await world.until(lambda: world.state.get("halts"), WITHIN)
            await world.until(
                lambda: any(row.obj["type"] == "Warning" for row in world.api.store._rows[EVENTS].values()), WITHIN
            )
            started.send_signal(signal.SIGTERM)
            said = await last_words(started)
        assert started.returncode == 0, said
        assert "Traceback" not in said
        assert holder(world) == "", "another one need not wait"


async def test_a_lease_that_is_taken_ends_the_process_with_its_own_code(world, tmp_path):
    async with FakeServer(world.api) as server:
        arguments = ["--kubeconfig", server.kubeconfig(tmp_path / "config"), "--port", "0"]
        arguments += ["--namespace", "system", "--lease", "canary", "--identity", "me"]
        async with process(*arguments) as started:
            await world.until(lambda: holder(world) == "me", WITHIN)
            theirs = {"spec": {"holderIdentity": "somebody", "acquireTime": None}}
            await world.user.merge_patch(LEASES, "system", "canary", theirs)
            said = await last_words(started)
        assert started.returncode == LEASE_LOST, said
        assert "taken by somebody" in said
        assert holder(world) == "somebody"


@contextlib.asynccontextmanager
async def empty_prometheus(asked):
    """A Prometheus without any series; ``asked`` gets the moment that each query is about."""

    async def answer(request):
        given = {**request.query, **(await request.post())}
        asked.append(float(given.get("time", 0.0)))
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": []}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_on_a_node_whose_clock_is_behind_prometheus_is_asked_about_the_present(world, tmp_path):
    asked = []
    async with FakeServer(world.api, client="operator") as server, empty_prometheus(asked) as prometheus:
        await world.edit(metrics={"prometheus": prometheus, "interval": "5s"})
        arguments = ["--kubeconfig", server.kubeconfig(tmp_path / "config"), "--port", "0"]
        arguments += ["--namespace", "system", "--lease", "canary", "--identity", "me"]
        async with process(*arguments) as started:
            await world.rest("Idle", WITHIN)
            await world.release()
            await world.until(lambda: world.weight == 500, WITHIN)
            await world.poll(lambda: asked, WITHIN)
            assert max(asked) < time.time() + 100
            server.ahead = 300
            await world.poll(lambda: max(asked) > time.time() + 200, WITHIN)
            started.send_signal(signal.SIGTERM)
            await last_words(started)


async def test_a_port_that_is_taken_is_a_sentence(world, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with FakeServer(world.api) as server:
            arguments = ["--kubeconfig", server.kubeconfig(tmp_path / "config"), "--port", f"{port}"]
            async with process(*arguments) as started:
                said = await last_words(started)
    assert started.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "Traceback" not in said


async def test_no_cluster_is_a_sentence(tmp_path):
    async with process("--kubeconfig", str(tmp_path / "missing")) as started:
        said = await last_words(started)
    assert started.returncode == 1
    assert "missing" in said
    assert "Traceback" not in said


def test_of_many_errors_the_lost_lease_is_the_one_that_counts():
    lost = LeaseLostError("gone")
    group = BaseExceptionGroup("all", [ValueError("a"), BaseExceptionGroup("more", [lost, KeyError("b")])])
    assert _first(group) is lost
    assert isinstance(_first(BaseExceptionGroup("all", [ValueError("a")])), ValueError)
