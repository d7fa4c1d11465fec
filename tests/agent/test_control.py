"""Reading back from nginx: what an answer that does not come costs, and what it does not hold up."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
from proxies import edge, free_port

from canary_rollout.agent import control
from canary_rollout.agent.control import Control
from canary_rollout.agent.errors import ControlError, NotRunningError

BODY = json.dumps({"generation": "g1", "route": "", "number": 0, "members": 0}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

Worker = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answers(_, writer):
    writer.write(ANSWER)
    await writer.drain()


async def hangs(reader, _):
    await reader.read()


async def hangs_up(reader, _):
    await reader.readuntil(b"\r\n\r\n")


@contextlib.asynccontextmanager
async def nginx_of(*workers: Worker) -> AsyncIterator[tuple[Control, list[str]]]:
    """A control address whose connections are taken by these workers, one after the other; and how often was asked again."""
    waiting, again, taken = list(workers), [], []

    async def take(reader, writer):
        taken.append(asyncio.current_task())
        await waiting.pop(0)(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(take, "127.0.0.1", free_port())
    host, port = server.sockets[0].getsockname()
    async with server:
        async with Control(f"{host}:{port}", "token", lambda: again.append("again")) as made:
            yield made, again
        await asyncio.gather(*taken)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(control, "ATTEMPTS", (0.05, 0.05, 10.0))


async def test_a_worker_that_does_not_answer_is_not_waited_for_but_another_one_asked(impatient):
    async with nginx_of(hangs, answers) as (made, again):
        assert (await made.read()).generation == "g1"
        assert again == ["again"]


async def test_a_worker_that_ends_under_the_question_is_no_failure():
    async with nginx_of(hangs_up, answers) as (made, _):
        assert (await made.read()).generation == "g1"


async def test_an_nginx_that_never_answers_is_given_up_after_three_attempts(monkeypatch):
    monkeypatch.setattr(control, "ATTEMPTS", (0.05, 0.05, 0.05))
    async with nginx_of(hangs, hangs, hangs) as (made, again):
        with pytest.raises(ControlError, match="control address: TimeoutError"):
            await made.read()
        assert again == ["again"] * 2


async def test_a_push_that_had_its_effect_and_was_slow_to_say_so_is_acknowledged_when_it_is_pushed_again(impatient):
    seen: list[int] = []

    async def shared_memory(reader, writer, *, slow: bool):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        wanted = json.loads(await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0])))
        older = bool(seen) and wanted["number"] <= seen[-1]
        seen.append(wanted["number"])
        if slow:
            await reader.read()
            return
        body = json.dumps({"generation": "g1", "route": wanted["route"], "number": wanted["number"], "members": 0})
        writer.write(f"HTTP/1.1 {409 if older else 200} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()

    async with nginx_of(partial(shared_memory, slow=True), partial(shared_memory, slow=False)) as (made, again):
        assert (await made.push("0|0", {})).route == "0|0"
    assert again == ["again"]
    assert seen[1] > seen[0], "as canary.js has it: a number that is not higher is refused"


async def test_where_nothing_listens_that_is_said_at_once():
    again: list[str] = []
    async with Control(f"127.0.0.1:{free_port()}", "token", lambda: again.append("again")) as made:
        with pytest.raises(NotRunningError, match="control address does not answer"):
            await made.read()
    assert again == []


def test_all_attempts_together_take_three_seconds():
    assert sum(control.ATTEMPTS) == pytest.approx(2.9)


@pytest.mark.nginx
@pytest.mark.parametrize("mode", ["njs", "reload"])
async def test_a_look_at_nginx_that_gets_no_answer_holds_no_change_up(tmp_path, monkeypatch, mode):
    async with edge(tmp_path / "w", weight=2500, nginx_traffic={"mode": mode}) as proxy:
        driver = proxy.agent._proxy
        read, asked, held = driver._control.read, asyncio.Event(), asyncio.Event()

        async def no_answer():
            asked.set()
            await held.wait()
            return await read()

        monkeypatch.setattr(driver._control, "read", no_answer)
        await asked.wait()  # the look that is taken once a second
        told = driver._push if mode == "njs" else driver._nginx.reload

        def tell(*arguments):
            held.set()
            return told(*arguments)

        monkeypatch.setattr(*((driver, "_push", tell) if mode == "njs" else (driver._nginx, "reload", tell)))
        await proxy.to(0)
