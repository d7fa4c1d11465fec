"""The demo's app, over real connections."""

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from canary_rollout.local.app.behaviour import Behaviour, BehaviourError, changed, from_environment, version_of
from canary_rollout.local.app.http import BadRequestError, Reply, Request, parse_head
from canary_rollout.local.app.metrics import AppMetrics
from canary_rollout.local.app.server import App, slow_seconds

WITHIN = 60.0
"""Seconds for what must come anyway, on however slow a machine."""


class HeldApp(App):
    """Serves a request only when it is told to: a test need not guess how long one must last."""

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__("v1", "pod", behaviour)
        self.held: list[Callable[[], None]] = []
        self.arrived = asyncio.Event()

    def _serve(self, request: Request, reply: Reply) -> None:
        self.held.append(functools.partial(super()._serve, request, reply))
        self.arrived.set()


class Client:
    """A plain keep-alive client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, method: str, path: str, headers: str = "", body: bytes = b"") -> None:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}{length}\r\n".encode() + body)

    async def read(self, *, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = b"" if head_only else await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body

    async def ask(
        self, path: str, headers: str = "", method: str = "GET", body: bytes = b""
    ) -> tuple[int, dict, bytes]:
        self.send(method, path, headers, body)
        return await self.read(head_only=method == "HEAD")


@contextlib.asynccontextmanager
async def running(version: str = "v1", **settings: object) -> AsyncIterator[tuple[App, Client, int]]:
    app = App(version, "checkout-abc-12345", Behaviour(**{"lame_duck": 0.0, **settings}))
    port = await app.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield app, Client(reader, writer), port
    finally:
        writer.close()
        await asyncio.wait_for(app.stop(), WITHIN)


async def test_an_answer_says_who_gave_it_to_whom_and_what_the_router_said():
    async with running() as (_, client, _port):
        status, headers, body = await client.ask("/x?y=1", "X-Tenant-ID: t7\r\nX-Canary-Cohort: beta\r\n")
    assert status == 200
    assert (headers["x-app-version"], headers["x-app-pod"]) == ("v1", "checkout-abc-12345")
    assert json.loads(body) == {
        "app": "demo-app", "version": "v1", "pod": "checkout-abc-12345", "tenant": "t7", "told": {"x-canary-cohort": "beta"},
    }  # fmt: skip


async def test_the_connection_is_kept_and_pipelined_requests_are_answered_in_turn():
    async with running(latency=0.01) as (_, client, _port):
        for index in range(5):
            client.send("POST", "/", f"X-Tenant-ID: t{index}\r\n", b"body to be passed over")
        answers = [await client.read() for _ in range(5)]
    assert [json.loads(body)["tenant"] for _, _, body in answers] == [f"t{index}" for index in range(5)]
    assert {headers["connection"] for _, headers, _ in answers} == {"keep-alive"}


async def test_a_head_request_gets_no_body_and_does_not_shift_the_next_answer():
    async with running() as (_, client, _port):
        assert (await client.ask("/", method="HEAD"))[0] == 200
        assert json.loads((await client.ask("/", "X-Tenant-ID: after\r\n"))[2])["tenant"] == "after"


async def test_failed_requests_carry_the_apps_mark_and_are_counted():
    async with running("v3-broken", error_rate=1.0) as (app, client, _port):
        status, headers, body = await client.ask("/")
        _, _, metrics = await client.ask("/metrics")
    assert status == 500
    assert headers["x-app-version"] == "v3-broken"
    assert "fails" in json.loads(body)["error"]
    assert app.metrics.total(500) == 1
    assert 'http_requests_total{method="GET",status="500"} 1' in metrics.decode()


async def test_health_and_metrics_are_not_counted_as_requests():
    async with running() as (app, client, _port):
        assert (await client.ask("/healthz"))[0] == 200
        await client.ask("/metrics")
        assert app.metrics.total() == 0


async def test_control_changes_what_is_named_and_refuses_what_makes_no_sense():
    async with running() as (app, client, _port):
        status, _, body = await client.ask("/control?error_rate=0.5&latency_ms=20", method="POST")
        assert (status, json.loads(body)) == (200, {"error_rate": 0.5, "latency": 0.02, "ready": True})
        status, _, body = await client.ask("/control?error_rate=2", method="POST")
        assert (status, body) == (400, b"error_rate='2' is no number between 0 and 1\n")
        assert (await client.ask("/control?error_rate=1"))[0] == 405
        await client.ask("/control?ready=false", method="POST")
        assert (await client.ask("/healthz"))[0] == 503
        assert app.behaviour.error_rate == 0.5


async def test_a_slow_request_under_way_is_finished_after_the_end_was_announced():
    app = HeldApp(Behaviour(lame_duck=0.05))
    port = await app.start("127.0.0.1", 0)
    idle = Client(*await asyncio.open_connection("127.0.0.1", port))
    slow = Client(*await asyncio.open_connection("127.0.0.1", port))
    slow.send("GET", "/")
    await asyncio.wait_for(app.arrived.wait(), WITHIN)
    ending = asyncio.create_task(app.stop())
    assert await asyncio.wait_for(idle.reader.read(), WITHIN) == b""  # let go of, without an answer to anything
    assert not ending.done()
    for answer in app.held:
        answer()
    status, headers, _ = await slow.read()
    assert (status, headers["connection"]) == (200, "close")
    await asyncio.wait_for(ending, WITHIN)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    idle.writer.close()
    slow.writer.close()


async def test_in_its_last_moments_it_still_serves_but_is_not_ready_and_keeps_no_connection():
    app = App("v1", "pod", Behaviour(lame_duck=2 * WITHIN))
    port = await app.start("127.0.0.1", 0)
    ending = asyncio.create_task(app.stop())
    await asyncio.sleep(0)
    for path, expected in (("/", 200), ("/healthz", 503)):
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        status, headers, _ = await client.ask(path)
        assert (status, headers["connection"]) == (expected, "close")
        client.writer.close()
    assert not ending.done()
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    app.behaviour = Behaviour(lame_duck=0.0)
    await asyncio.wait_for(app.stop(), WITHIN)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000, 431),
    ],
)
async def test_what_cannot_be_read_is_refused_and_the_connection_ends(sent: bytes, status: int):
    async with running() as (_, client, _port):
        client.writer.write(sent)
        assert (await client.read())[0] == status
        assert await client.reader.read() == b""


def test_an_old_client_is_not_kept_unless_it_asks():
    assert not parse_head(b"GET / HTTP/1.0")[0].keep_alive
    assert parse_head(b"GET / HTTP/1.0\r\nConnection: keep-alive")[0].keep_alive
    assert not parse_head(b"GET / HTTP/1.1\r\nConnection: close")[0].keep_alive
    with pytest.raises(BadRequestError, match="no request line"):
        parse_head(b"GET /")


def test_the_tag_of_the_image_is_the_version_and_broken_ones_are_broken():
    assert version_of({"IMAGE_TAG": "v2"}) == "v2"
    assert version_of({"IMAGE_TAG": "v2", "VERSION": "v9"}) == "v9"
    assert from_environment({"IMAGE_TAG": "v3-broken"}).error_rate == 0.3
    assert from_environment({"IMAGE_TAG": "v3-broken", "ERROR_RATE": "0"}).error_rate == 0
    assert from_environment({"LATENCY_MS": "250"}).latency == 0.25


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "nan"])
def test_an_error_rate_that_is_none_is_refused(value: str):
    with pytest.raises(BehaviourError, match="ERROR_RATE"):
        from_environment({"ERROR_RATE": value})


def test_settings_are_refused_by_name():
    with pytest.raises(BehaviourError, match="unknown setting 'colour'"):
        changed(Behaviour(), {"colour": "red"})
    with pytest.raises(BehaviourError, match="neither true nor false"):
        changed(Behaviour(), {"ready": "perhaps"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("2.5", 2.5), ("", 1.0), ("x", 1.0), ("-1", 1.0), ("nan", 1.0), ("9e9", 600.0)]
)
def test_slow_requests_are_bounded(text: str, seconds: float):
    assert slow_seconds(text) == seconds


def test_the_histogram_counts_each_request_once_and_adds_up():
    metrics = AppMetrics('v"1')
    for seconds in (0.001, 0.005, 0.03, 99.0):
        metrics.observe("GET", 200, seconds)
    text = metrics.render()
    assert 'http_request_duration_seconds_bucket{le="0.005"} 2\n' in text
    assert 'http_request_duration_seconds_bucket{le="0.05"} 3\n' in text
    assert 'http_request_duration_seconds_bucket{le="10.0"} 3\n' in text
    assert 'http_request_duration_seconds_bucket{le="+Inf"} 4\n' in text
    assert "http_request_duration_seconds_count 4\n" in text
    assert 'app_info{version="v\\"1"} 1' in text


async def start_process(log: Path, **environment: str) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "canary_rollout.local.app",
        env={**os.environ, "PORT": "0", "POD_NAME": "pod-1", "LAME_DUCK": "0.1", **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), WITHIN)).decode()
    return process, int(line.rpartition(":")[2]) if line else 0


async def test_the_process_ends_well_on_sigterm(tmp_path: Path):
    process, port = await start_process(tmp_path / "log", VERSION="v1")
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    assert (await client.ask("/"))[0] == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), WITHIN) == 0
    client.writer.close()
    await process.communicate()


async def test_the_process_crashes_when_told_to(tmp_path: Path):
    process, port = await start_process(tmp_path / "log")
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    assert (await client.ask("/control?crash=true", method="POST"))[0] == 200
    assert await asyncio.wait_for(process.wait(), WITHIN) == 1
    client.writer.close()
    await process.communicate()


@pytest.mark.parametrize("environment", [{"PORT": "http"}, {"LATENCY_MS": "fast"}])
async def test_the_process_refuses_an_environment_it_cannot_read(tmp_path: Path, environment: dict[str, str]):
    process, _ = await start_process(tmp_path / "log", **environment)
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert next(iter(environment)) in errors.decode()


async def test_its_image_has_every_file_it_needs(tmp_path: Path):
    checkout = Path(__file__).parents[2]
    for line in (checkout / "docker" / "demo-app.Dockerfile").read_text().splitlines():
        if not line.startswith("COPY "):
            continue
        *sources, target = line.split()[1:]
        into = tmp_path / target.lstrip("/")
        for source in map(checkout.joinpath, sources):
            if source.is_dir():
                shutil.copytree(source, into)
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, into)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-m", "canary_rollout.local.app"),  # without this environment's packages
        env={"PYTHONPATH": str(tmp_path / "app"), "PORT": "0", "VERSION": "v9"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert (await asyncio.wait_for(process.stdout.readline(), WITHIN)).startswith(b"demo-app v9")
    process.kill()
    await process.communicate()
