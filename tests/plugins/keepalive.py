"""A small HTTP/1.1 keep-alive client for load in tests: raw sockets, one request at a time per connection, no retries.

A well-kept client would do as well but costs 5-10 times the CPU, and hides what we count here: a connection that is
closed under a request is an error, never silently repeated.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic


@dataclass(slots=True)
class Answer:
    """One response: when its request was sent and answered (``time.monotonic``), status, header lines, body."""

    started: float
    ended: float
    status: int
    headers: dict[str, str]
    body: bytes


class BrokenConnectionError(Exception):
    """The connection ended before a whole answer came."""


class KeepAliveConnection:
    """One connection that is opened at the first request and again only when the server announced its close."""

    def __init__(self, host: str, port: int, within: float = 30.0) -> None:
        self.host, self.port, self.within = host, port, within
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str = "/", headers: Mapping[str, str] | None = None) -> Answer:
        """Send one GET. Raises BrokenConnectionError, OSError, TimeoutError."""
        async with asyncio.timeout(self.within):
            if self._streams is None or self._streams[0].at_eof():
                await self.close()
                self._streams = await asyncio.open_connection(self.host, self.port)
            reader, writer = self._streams
            lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
            started = monotonic()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n{lines}\r\n".encode())
            try:
                return await self._read(reader, started)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                await self.close()
                raise BrokenConnectionError(f"{error}") from error

    async def _read(self, reader: asyncio.StreamReader, started: float) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        if headers.get("transfer-encoding") == "chunked":
            chunks = []
            while size := int(await reader.readline(), 16):
                chunks.append(await reader.readexactly(size))
                await reader.readexactly(2)
            await reader.readexactly(2)
            body = b"".join(chunks)
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return Answer(started, monotonic(), int(head[0].split(" ")[1]), headers, body)

    async def close(self) -> None:
        """Close; the next request opens a new connection."""
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def fetch_all(
    host: str, port: int, requests: Iterable[Mapping[str, str]], *, connections: int = 32, path: str = "/"
) -> list[Answer]:
    """Send one GET per header set over ``connections`` kept connections; answers in the order of ``requests``."""
    queue: Iterator[tuple[int, Mapping[str, str]]] = enumerate(requests)
    answers: dict[int, Answer] = {}

    async def worker() -> None:
        connection = KeepAliveConnection(host, port)
        for index, headers in queue:
            answers[index] = await connection.get(path, headers)
        await connection.close()

    await asyncio.gather(*(worker() for _ in range(connections)))
    return [answers[index] for index in range(len(answers))]


async def versions(
    host: str, port: int, requests: Iterable[Mapping[str, str]], *, connections: int = 16, batch: int = 64
) -> list[str]:
    """Who answered each request ("stable" or "canary", the whole body), pipelined: for counting many, not for timing."""
    source = iter(requests)
    pieces = iter(lambda: list(islice(source, batch)), [])
    answers: dict[int, list[str]] = {}
    numbered = enumerate(pieces)

    async def worker() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for index, piece in numbered:
            heads = ("".join(f"{name}: {value}\r\n" for name, value in headers.items()) for headers in piece)
            writer.write("".join(f"GET / HTTP/1.1\r\nHost: {host}\r\n{head}\r\n" for head in heads).encode())
            received = b""
            async with asyncio.timeout(30):
                while len(found := re.findall(rb"\r\n\r\n(stable|canary)", received)) < len(piece):
                    data = await reader.read(1 << 18)
                    if not data:
                        raise BrokenConnectionError("closed before all answers came")
                    received += data
            assert received.count(b"HTTP/1.1 200 ") == len(piece)
            answers[index] = [body.decode() for body in found]
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(worker() for _ in range(connections)))
    return [version for index in range(len(answers)) for version in answers[index]]


@dataclass
class Load:
    """A steady load over kept connections until :meth:`stop`; every failure is kept, nothing is retried."""

    host: str
    port: int
    connections: int = 16
    think: float = 0.0
    tenants: int = 2000
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stopping: bool = False

    def start(self) -> None:
        """Begin sending."""
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self.connections)]

    async def _client(self, number: int) -> None:
        connection = KeepAliveConnection(self.host, self.port)
        tenant = number
        while not self._stopping:
            tenant = (tenant + self.connections) % self.tenants
            try:
                answer = await connection.get("/", {"X-Tenant-ID": f"tenant-{tenant}"})
            except (BrokenConnectionError, OSError, TimeoutError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                continue
            self.answers.append(answer)
            if answer.status >= 500:
                self.failures.append(f"status {answer.status}")
            if self.think:
                await asyncio.sleep(self.think)
        await connection.close()

    async def stop(self) -> None:
        """Let requests under way end, then stop."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
