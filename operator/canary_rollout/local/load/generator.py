"""The open loop: requests leave when they are due, whatever became of those before."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from canary_rollout.local.load.client import Answer, Connection
from canary_rollout.local.load.config import LoadConfig, Population, tenant_name
from canary_rollout.local.load.tally import Outcome, Snapshot, Tally

_TICK_SECONDS = 0.004
_LATE_SECONDS = 0.1
_CONNECT_TIMEOUT_SECONDS = 5.0
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.05, 1.0
_TIMEOUT_CHECK_SECONDS = 0.1


@dataclass(slots=True)
class _Exchange:
    """The request that is under way on a connection."""

    tenant: str
    begin: float
    counted: bool = False


class LoadGenerator:
    """Sends load until it is stopped.

    Args:
        config: what to send.
        log: file for one JSON line per request (see :class:`Outcome`); none is written without it.
    """

    def __init__(self, config: LoadConfig, log: Path | None = None) -> None:
        self.config = config
        self.tally = Tally(config.canary)
        self._population = Population(config)
        self._log_path = log
        self._log: IO[str] | None = None
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._waiting: deque[tuple[float, int]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = 0.0
        self._running = False

    async def start(self) -> None:
        """Open the connections, then begin to send.

        Raises:
            OSError, TimeoutError: no connection could be made; nothing has been counted then.
        """
        targets = self.config.targets
        self._log = self._log_path.open("a", buffering=1 << 16) if self._log_path else None
        await asyncio.gather(*(self._connect(index % len(targets)) for index in range(self.config.connections)))
        self._running = True
        self._began = time.monotonic()
        self._spawn(self._send_forever())
        self._spawn(self._expire_forever())

    async def stop(self, drain: float = 5.0) -> Snapshot:
        """Nothing is due any more; wait up to ``drain`` seconds for what was, and close. Returns the last counts."""
        self._running = False
        deadline = time.monotonic() + drain
        while (self._waiting or any(one.busy for one in self._open)) and time.monotonic() < deadline:
            self._flush()
            await asyncio.sleep(_TICK_SECONDS)
        # What was due but never written is no request any more.
        self.tally.not_sent += len(self._waiting)
        self._waiting.clear()
        final = self.snapshot()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._open):
            connection.busy = False
            connection.abort()
        await asyncio.sleep(0)
        if self._log is not None:
            self._log.close()
        return final

    def snapshot(self) -> Snapshot:
        """All counts since the start."""
        now = time.monotonic()
        return self.tally.snapshot(
            monotonic=now, clock_offset=time.time() - now, elapsed=now - self._began, connections=len(self._open)
        )

    async def single(self, path: str, tenant: str, timeout: float = 60.0) -> Outcome:  # noqa: ASYNC109  # a bound like the others
        """One request of its own on a connection of its own; counted like all others."""
        result: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        owner = _Single(self.tally, tenant, result)
        address, port = self.config.targets[0]
        _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(owner, 0), address, port)
        owner.begin = time.monotonic()
        self.tally.sent += 1
        connection.send(self._population.render(tenant, path=path))
        try:
            async with asyncio.timeout(timeout):
                outcome = await asyncio.shield(result)
        except TimeoutError:
            outcome = Outcome(tenant, owner.begin, time.monotonic(), "transport", "timeout")
            connection.busy = False
        connection.abort()
        self._count(outcome)
        return outcome

    # --- sending -------------------------------------------------------------------------------------------------

    async def _send_forever(self) -> None:
        written = 0
        while self._running:
            now = time.monotonic()
            due = int((now - self._began) * self.config.rate)
            for _ in range(due - written):
                self._waiting.append((now, self._population.pick()))
            written = due
            self._flush()
            await asyncio.sleep(_TICK_SECONDS)

    def _flush(self) -> None:
        while self._waiting and (connection := self._next_idle()) is not None:
            due_at, tenant = self._waiting.popleft()
            now = time.monotonic()
            if now - due_at > self.config.timeout:
                self.tally.not_sent += 1
                self._idle.appendleft(connection)
                continue
            if now - due_at > _LATE_SECONDS:
                self.tally.late += 1
            connection.slot = _Exchange(tenant_name(tenant), now)
            self.tally.sent += 1
            connection.send(self._population.request(tenant))

    def _next_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.popleft()
            if connection.usable:
                return connection
        return None

    async def _expire_forever(self) -> None:
        while True:
            await asyncio.sleep(_TIMEOUT_CHECK_SECONDS)
            before = time.monotonic() - self.config.timeout
            for connection in list(self._open):
                exchange = connection.slot
                if connection.busy and isinstance(exchange, _Exchange) and exchange.begin < before:
                    connection.busy = False
                    self.failed(connection, "timeout")
                    connection.abort()

    # --- what becomes of it --------------------------------------------------------------------------------------

    def answered(self, connection: Connection, answer: Answer) -> None:
        """Count an answer and use the connection again."""
        exchange = connection.slot
        assert isinstance(exchange, _Exchange)  # noqa: S101  # set before every send
        self._count(self.tally.judge(exchange.tenant, exchange.begin, time.monotonic(), answer))
        if connection.usable:
            self._idle.append(connection)
            self._flush()

    def failed(self, connection: Connection, kind: str) -> None:
        """Count a transport error."""
        exchange = connection.slot
        assert isinstance(exchange, _Exchange)  # noqa: S101
        exchange.counted = True
        self._count(Outcome(exchange.tenant, exchange.begin, time.monotonic(), "transport", kind))

    def lost(self, connection: Connection) -> None:
        """Replace a connection that is gone."""
        self._open.discard(connection)
        if not self._running:
            return
        exchange = connection.slot
        if not (isinstance(exchange, _Exchange) and exchange.counted):
            self.tally.closed_idle += 1
        self._spawn(self._reconnect(connection.target))

    def _count(self, outcome: Outcome) -> None:
        self.tally.add(outcome)
        if self._log is not None:
            self._log.write(json.dumps(outcome.to_dict()) + "\n")

    # --- connections ---------------------------------------------------------------------------------------------

    async def _connect(self, target: int) -> None:
        address, port = self.config.targets[target]
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
            _, connection = await loop.create_connection(lambda: Connection(self, target), address, port)
        self._open.add(connection)
        self._idle.append(connection)

    async def _reconnect(self, target: int) -> None:
        """Each refusal is a transport error: somebody who comes now is turned away."""
        wait = _FIRST_RETRY_SECONDS
        while self._running:
            try:
                await self._connect(target)
            except (OSError, TimeoutError) as error:
                kind = "refused" if isinstance(error, ConnectionRefusedError) else f"connect: {error!r}"[:60]
                now = time.monotonic()
                tenant = tenant_name(self._population.pick())
                self.tally.sent += 1
                self._count(Outcome(tenant, now, now, "transport", kind))
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LAST_RETRY_SECONDS)
            else:
                self._flush()
                return

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Single:
    """Owner of one connection with one request."""

    def __init__(self, tally: Tally, tenant: str, result: "asyncio.Future[Outcome]") -> None:
        self._tally = tally
        self._tenant = tenant
        self._result = result
        self.begin = 0.0

    def answered(self, connection: Connection, answer: Answer) -> None:
        del connection
        self._result.set_result(self._tally.judge(self._tenant, self.begin, time.monotonic(), answer))

    def failed(self, connection: Connection, kind: str) -> None:
        del connection
        self._result.set_result(Outcome(self._tenant, self.begin, time.monotonic(), "transport", kind))

    def lost(self, connection: Connection) -> None:
        del connection
