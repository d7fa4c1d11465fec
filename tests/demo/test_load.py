"""The load generator, against real servers that behave and real servers that do not."""

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from canary_rollout.local.app.behaviour import Behaviour
from canary_rollout.local.app.server import App
from canary_rollout.local.load import LoadConfig, LoadConfigError, LoadGenerator, Snapshot
from canary_rollout.local.load.client import AnswerParser, MalformedError
from canary_rollout.local.load.config import Population
from canary_rollout.local.ports import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
APP = b"HTTP/1.1 200 OK\r\nX-App-Version: v1\r\nX-App-Pod: checkout-aaa-bbbbb\r\nContent-Length: 2\r\n\r\nok"
CANARY = APP.replace(b"checkout-aaa", b"checkout-canary-aaa").replace(b"v1", b"v2")
PROXY_502 = b"HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\nContent-Length: 15\r\n\r\n<h1>no app</h1>"


@contextlib.asynccontextmanager
async def serving(handler: Handler, port: int = 0) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await some_rounds()  # what was just accepted gets its task
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await some_rounds()  # and what is closed gets to close its socket


async def some_rounds() -> None:
    """Let the event loop go round, however much time stands still in between."""
    for _ in range(10):
        await asyncio.sleep(0.002)


def answering(*answers: bytes, then: str = "keep") -> Handler:
    """Answers in turn, over all connections; ``then``: keep or close the connection after each answer."""
    count = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answers[count % len(answers)])
            count += 1
            await writer.drain()
            if then == "close":
                return

    return handle


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  # counts are polled, as the demo does
            await asyncio.sleep(0.01)


async def load(port: int, enough: Callable[[Snapshot], bool], **settings: object) -> Snapshot:
    """Run load until ``enough`` holds; fails loudly when it never does."""
    config = LoadConfig(((("127.0.0.1"), port),), **{"rate": 400, "connections": 4, "tenants": 50, **settings})
    generator = LoadGenerator(config)
    await generator.start()
    try:
        await until(lambda: enough(generator.snapshot()))
    finally:
        final = await generator.stop(drain=1.0)
    return final


async def test_answers_are_counted_by_arm_and_version_and_nothing_is_lost():
    async with serving(answering(APP, APP, APP, CANARY)) as port:
        counts = await load(port, lambda now: now.answered >= 200)
    assert counts.sent == counts.answered + counts.transport_errors + counts.in_flight
    assert (counts.transport_errors, counts.no_app, counts.in_flight, counts.harmed_tenants) == (0, 0, 0, 0)
    assert counts.tenants > 40
    stable, canary = counts.versions["stable/v1"], counts.versions["canary/v2"]
    assert stable.answers + canary.answers == counts.ok
    assert canary.answers == counts.ok // 4
    assert 0 < canary.first_end <= canary.last_end
    assert canary.last_begin < canary.last_end


async def test_the_rate_is_kept_whatever_the_answers_take():
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.05)
            writer.write(APP)

    def kept(now: Snapshot) -> bool:
        return now.elapsed > 1.5 and now.sent > 0.95 * 200 * now.elapsed  # after a standstill it makes up for it

    async with serving(slow) as port:
        counts = await load(port, kept, rate=200, connections=30)
    assert counts.sent <= 200 * counts.elapsed


async def test_errors_of_the_app_and_answers_of_nobody_are_kept_apart():
    broken = APP.replace(b"200 OK", b"500 Oops")
    async with serving(answering(APP, broken, PROXY_502, APP)) as port:
        counts = await load(port, lambda now: now.answered >= 100)
    assert counts.app_errors == pytest.approx(counts.answered / 4, abs=1)
    assert counts.no_app == pytest.approx(counts.answered / 4, abs=1)
    assert counts.no_app_statuses == {"502": counts.no_app}
    assert counts.versions["stable/v1"].errors == counts.app_errors
    assert counts.versions["stable/v1"].first_error > 0
    assert counts.harmed_tenants > 0
    assert counts.samples[0]["body"] == "<h1>no app</h1>"


async def test_a_success_that_no_application_produced_is_no_success():
    welcome = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nWelcome to nginx"
    async with serving(answering(welcome)) as port:
        counts = await load(port, lambda now: now.answered >= 20)
    assert (counts.ok, counts.no_app) == (0, counts.answered)


async def test_a_connection_closed_between_requests_is_no_error():
    # So many that each is idle for long after the server has closed it, also when all requests of a standstill come at once.
    async with serving(answering(APP, then="close")) as port:
        counts = await load(port, lambda now: now.answered >= 20, rate=40, connections=200)
    assert counts.transport_errors == 0
    assert counts.closed_idle >= 16


async def test_a_connection_closed_instead_of_an_answer_is_an_error_and_not_tried_again():
    requests = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1

    async with serving(silent) as port:
        counts = await load(port, lambda now: now.transport_errors >= 10)
    assert counts.answered == 0
    assert counts.transport_kinds == {"closed": counts.transport_errors}
    assert requests == counts.sent
    assert counts.harmed_tenants > 0


async def test_a_reset_a_cut_answer_and_rubbish_are_told_apart():
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        # Closed by RST.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(APP[:-1])

    async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        await reader.read()

    for handler, kind in ((reset, "reset"), (cut, "truncated"), (rubbish, "malformed")):
        async with serving(handler) as port:
            counts = await load(port, lambda now: now.transport_errors >= 5)
        assert counts.transport_kinds == {kind: counts.transport_errors}


async def test_no_answer_in_time_is_a_transport_error():
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(mute) as port:
        counts = await load(port, lambda now: now.transport_errors >= 4, timeout=0.2)
    assert set(counts.transport_kinds) == {"timeout"}
    assert counts.not_sent > 0  # four connections are not enough for 400 requests that all hang


async def test_a_server_that_goes_away_is_counted_as_refusing_and_found_again():
    port = free_port()  # not one that an outgoing connection may take meanwhile
    async with serving(answering(APP), port):
        generator = LoadGenerator(LoadConfig((("127.0.0.1", port),), rate=200, connections=4))
        await generator.start()
        await until(lambda: generator.snapshot().ok > 20)
        assert generator.snapshot().transport_errors == 0
    await until(lambda: "refused" in generator.snapshot().transport_kinds)
    before = generator.snapshot().ok

    async with serving(answering(APP), port):
        await until(lambda: generator.snapshot().ok > before)
        await generator.stop()


async def test_nobody_listening_is_said_before_anything_is_counted():
    with pytest.raises(OSError, match="Connect"):
        await LoadGenerator(LoadConfig((("127.0.0.1", free_port()),))).start()


async def test_one_long_request_is_followed_by_itself():
    app = App("v1", "checkout-aaa-bbbbb", Behaviour(lame_duck=0.0))
    port = await app.start("127.0.0.1", 0)
    generator = LoadGenerator(LoadConfig((("127.0.0.1", port),), rate=1, connections=1))
    await generator.start()
    outcome = await generator.single("/slow?seconds=0.3", "tenant-x")
    late = await generator.single("/slow?seconds=1", "tenant-x", timeout=0.2)
    counts = await generator.stop()
    await app.stop()
    assert (outcome.kind, outcome.answer.app_version) == ("ok", "v1")
    assert outcome.end - outcome.begin >= 0.3
    assert (late.kind, late.detail) == ("transport", "timeout")
    assert counts.transport_errors == 1


async def test_each_request_can_be_logged(tmp_path: Path):
    log = tmp_path / "requests.jsonl"
    async with serving(answering(APP)) as port:
        generator = LoadGenerator(LoadConfig((("127.0.0.1", port),), rate=100, connections=2), log)
        await generator.start()
        await until(lambda: generator.snapshot().answered >= 20)
        counts = await generator.stop()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == counts.answered
    assert all(line["begin"] < line["end"] and line["version"] == "v1" for line in lines)


async def test_counts_survive_the_way_through_json():
    async with serving(answering(APP, CANARY)) as port:
        counts = await load(port, lambda now: now.answered >= 10)
    assert Snapshot.from_dict(json.loads(json.dumps(counts.to_dict()))) == counts


async def test_the_process_reports_obeys_and_ends_with_its_input():
    async with serving(answering(APP)) as port:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "canary_rollout.local.load", "--target", f"127.0.0.1:{port}", "--every", "0.1",
            "--rate", "100", "--connections", "2",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        events = [json.loads(await asyncio.wait_for(process.stdout.readline(), 60)) for _ in range(3)]
        process.stdin.write(b"single / tenant-1\nnonsense\n")
        process.stdin.close()
        rest, _ = await asyncio.wait_for(process.communicate(), 60)
    assert [event["event"] for event in events] == ["started", "counts", "counts"]
    last = [json.loads(line) for line in rest.splitlines()]
    assert {"final", "error"} <= {event["event"] for event in last}
    assert last[-1]["event"] == "final"
    assert last[-1]["sent"] > 0
    assert process.returncode == 0


def unread_bytes(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"0000"), sys.byteorder)


async def test_requests_go_out_while_nobody_reads_the_reports():
    served = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(APP)
            served += 1

    unread, reports = os.pipe()
    async with serving(count) as port:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "canary_rollout.local.load", "--target", f"127.0.0.1:{port}", "--every", "0.001",
            stdin=asyncio.subprocess.PIPE, stdout=reports,
        )  # fmt: skip
        os.close(reports)
        await until(lambda: unread_bytes(unread) >= 60_000)
        full = served
        await until(lambda: served >= full + 400)
        process.stdin.close()
        with open(unread, encoding="utf-8") as lines:  # noqa: ASYNC230, PTH123  # a pipe; a thread reads it
            text = await asyncio.to_thread(lines.read)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    last = json.loads(text.splitlines()[-1])
    assert (last["event"], last["not_sent"], last["transport_errors"]) == ("final", 0, 0)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"rate": 0}, "rate"),
        ({"connections": 0}, "connections"),
        ({"cohort_tenants": 6000}, "cohort_tenants"),
        ({"tenant_header": "X Y"}, "no name of a header"),
        ({"path": "/a b"}, "path"),
        ({"targets": ()}, "target"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict[str, object], word: str):
    with pytest.raises(LoadConfigError, match=word):
        LoadConfig(**{"targets": (("127.0.0.1", 1),), **settings})


def test_tenants_are_the_same_in_every_run_and_zipf_prefers_the_first():
    config = LoadConfig((("127.0.0.1", 1),), tenants=100, zipf=1.2, cohort_tenants=3)
    first, second = Population(config), Population(config)
    picks = [first.pick() for _ in range(2000)]
    assert picks == [second.pick() for _ in range(2000)]
    assert picks.count(0) > 5 * picks.count(50)
    assert sum(b"X-Cohort: internal" in first.request(index) for index in range(100)) == 3
    assert first.request(7) == second.request(7)
    assert b"X-Tenant-ID: tenant-00007\r\n" in first.request(7)


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_answers_are_read_however_they_are_cut(step: int):
    chunked = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-App-Version: v1\r\n\r\n"
        b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"
    )
    for raw, body, close in (
        (APP, b"ok", False),
        (chunked, b"hello world", False),
        (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", b"", True),
    ):
        parser = AnswerParser()
        answers = [answer for at in range(0, len(raw), step) if (answer := parser.feed(raw[at : at + step]))]
        assert [(answer.body, answer.close) for answer in answers] == [(body, close)]
        assert not parser.started


def test_an_answer_without_a_length_ends_with_the_connection():
    parser = AnswerParser()
    assert parser.feed(b"HTTP/1.0 200 OK\r\n\r\npart") is None
    answer = parser.eof()
    assert answer is not None
    assert (answer.body, answer.close) == (b"part", True)
    assert AnswerParser().eof() is None


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        APP + b"more",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
)
def test_rubbish_is_not_taken_for_an_answer(raw: bytes):
    with pytest.raises(MalformedError):
        AnswerParser().feed(raw)
