"""One HTTP/1.1 connection of the load generator: keep-alive, one request at a time, never a retry."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

MAX_HEAD = 65_536


class MalformedError(Exception):
    """What came is no HTTP answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of an answer that are counted.

    Attributes:
        status: HTTP status.
        app_version: ``X-App-Version``: which version of the app answered; empty when no application did.
        pod: ``X-App-Pod``.
        told_version: ``X-Canary-Version`` as the router set it.
        told_cohort: ``X-Canary-Cohort`` as the router set it.
        body: the first bytes, for a person who looks for the cause.
        close: whether the server ends the connection after it.
    """

    status: int
    app_version: str
    pod: str
    told_version: str
    told_cohort: str
    body: bytes
    close: bool


class AnswerParser:
    """Takes bytes, gives complete answers. Knows Content-Length, chunks, and bodies that end with the connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: tuple[int, dict[bytes, bytes]] | None = None

    @property
    def started(self) -> bool:
        """Whether part of an answer has come."""
        return bool(self._buffer) or self._head is not None

    def feed(self, data: bytes) -> Answer | None:
        """The answer, once it is complete; bytes after it are an error (nothing more was asked for).

        Raises:
            MalformedError: it cannot be read.
        """
        self._buffer += data
        while self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD:
                    raise MalformedError(f"more than {MAX_HEAD} bytes of headers")
                return None
            self._head = parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if 100 <= self._head[0] < 200:  # an interim answer: the real one follows
                self._head = None
        return self._finish()

    def eof(self) -> Answer | None:
        """The answer, when it was one that ends with the connection."""
        if self._head is None or b"content-length" in self._head[1] or b"transfer-encoding" in self._head[1]:
            return None
        return self._take(len(self._buffer), bytes(self._buffer))

    def _finish(self) -> Answer | None:
        assert self._head is not None  # noqa: S101  # the caller has just read it
        status, headers = self._head
        if status in {204, 304}:
            return self._take(0, b"")
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            return self._finish_chunks()
        if b"content-length" not in headers:
            return None  # ends with the connection
        text = headers[b"content-length"]
        if not text.isdigit():
            raise MalformedError(f"Content-Length {text[:40]!r}")
        length = int(text)
        return self._take(length, bytes(self._buffer[:length])) if len(self._buffer) >= length else None

    def _finish_chunks(self) -> Answer | None:
        body = bytearray()
        at = 0
        while True:
            end = self._buffer.find(b"\r\n", at)
            if end < 0:
                return None
            try:
                size = int(self._buffer[at:end].split(b";")[0], 16)
            except ValueError as error:
                raise MalformedError(f"chunk of size {bytes(self._buffer[at:end])[:40]!r}") from error
            at = end + 2 + size + 2
            if len(self._buffer) < at:
                return None
            if size == 0:
                return self._take(at, bytes(body))
            body += self._buffer[end + 2 : end + 2 + size]

    def _take(self, used: int, body: bytes) -> Answer:
        assert self._head is not None  # noqa: S101  # the callers have looked
        status, headers = self._head
        del self._buffer[:used]
        if self._buffer:
            raise MalformedError(f"{len(self._buffer)} bytes after the end of the answer")
        self._head = None
        ends = b"content-length" not in headers and b"transfer-encoding" not in headers and status not in {204, 304}
        return Answer(
            status=status,
            app_version=headers.get(b"x-app-version", b"").decode("latin-1"),
            pod=headers.get(b"x-app-pod", b"").decode("latin-1"),
            told_version=headers.get(b"x-canary-version", b"").decode("latin-1"),
            told_cohort=headers.get(b"x-canary-cohort", b"").decode("latin-1"),
            body=body[:200],
            close=ends or headers.get(b"connection", b"").lower() == b"close",
        )


def parse_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers (names in lower case) of an answer's head.

    Raises:
        MalformedError: there is no status line.
    """
    first, *lines = head.split(b"\r\n")
    parts = first.split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise MalformedError(f"no status line: {first[:80]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    return int(parts[1]), headers


class Owner(Protocol):
    """Who uses connections; exactly one of ``answered`` and ``failed`` is called for each request that was sent."""

    def answered(self, connection: "Connection", answer: Answer) -> None:
        """The request under way is answered; the connection is idle again, or about to close."""
        ...

    def failed(self, connection: "Connection", kind: str) -> None:
        """The request under way will get no complete answer: ``reset``, ``closed``, ``truncated`` or ``malformed``."""
        ...

    def lost(self, connection: "Connection") -> None:
        """The connection is closed, for whatever reason; called once, after ``answered`` or ``failed``."""
        ...


class Connection(asyncio.Protocol):
    """One connection. ``slot`` is the owner's, for whatever it wants to remember about the request under way."""

    def __init__(self, owner: Owner, target: int) -> None:
        self._owner = owner
        self.target = target
        self.busy = False
        self.slot: object = None
        self._transport: asyncio.Transport | None = None
        self._parser = AnswerParser()

    @property
    def usable(self) -> bool:
        """Whether a request can be written now. What the server has closed already is seen at once."""
        transport = self._transport
        return transport is not None and not self.busy and not transport.is_closing()

    def send(self, request: bytes) -> None:
        """Write one request; only on a usable connection."""
        assert self._transport is not None  # noqa: S101  # callers ask `usable`
        self.busy = True
        self._transport.write(request)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # TCP makes no other
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse, and tell the owner when an answer is complete."""
        if not self.busy:
            # An answer to nothing (a proxy's 408 on an idle connection): the connection is of no use any more.
            self.abort()
            return
        try:
            answer = self._parser.feed(data)
        except MalformedError:
            self._fail("malformed")
            self.abort()
            return
        if answer is not None:
            self._deliver(answer)

    def _deliver(self, answer: Answer) -> None:
        self.busy = False
        if answer.close and self._transport is not None:
            self._transport.close()
        self._owner.answered(self, answer)

    def _fail(self, kind: str) -> None:
        self.busy = False
        self._owner.failed(self, kind)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever was under way has failed, unless the end of the connection was the end of the answer."""
        self._transport = None
        if self.busy:
            answer = self._parser.eof() if exc is None else None
            if answer is not None:
                self._deliver(answer)
            elif self._parser.started:
                self._fail("truncated")
            else:
                self._fail("closed" if exc is None else "reset")
        self._owner.lost(self)
