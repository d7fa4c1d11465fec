"""The part of HTTP/1.1 a small server needs: keep-alive, Content-Length, one answer at a time per connection."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qsl

MAX_HEAD = 16_384
MAX_BODY = 1_048_576
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. ``headers`` are complete lines, each ended with CRLF."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: str = ""


class BadRequestError(Exception):
    """A request this server does not read."""


Reply = Callable[[Answer], None]


class Handler(Protocol):
    """Answers requests: calls ``reply`` exactly once for each, now or later."""

    closing: bool
    """Whether connections end after their next answer."""

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer ``request`` by calling ``reply``."""
        ...


def parse_head(head: bytes) -> tuple[Request, int]:
    """The request of a head (without its empty line) and the length of its body.

    Raises:
        BadRequestError: it cannot be read, or its body comes in chunks.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequestError(f"no request line: {first[:80]!r}")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequestError(f"no header: {line[:80]!r}")
        headers[name.lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise BadRequestError("chunked requests are not read: send Content-Length")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY:
        raise BadRequestError(f"Content-Length {length[:40]!r} is no number up to {MAX_BODY}")
    connection = headers.get("connection", "").lower()
    keep_alive = connection != "close" if parts[2] == "HTTP/1.1" else connection == "keep-alive"
    path, _, query = parts[1].partition("?")
    return Request(parts[0], path, dict(parse_qsl(query)) if query else {}, headers, keep_alive), int(length)


class HttpProtocol(asyncio.Protocol):
    """One connection. A second request that is already here waits until the first is answered.

    Args:
        handler: answers the requests.
        connections: the set this connection is in while it is open.
    """

    def __init__(self, handler: Handler, connections: "set[HttpProtocol]") -> None:
        self._handler = handler
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._skip = 0
        self._busy = False
        self._ended = False

    @property
    def idle(self) -> bool:
        """Whether nothing is under way and not even part of a request has come."""
        return not self._busy and not self._buffer and not self._skip

    def close(self) -> None:
        """End the connection once what was written is out."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the open connections."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # a TCP server makes no other
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave them."""
        del exc
        self._transport = None
        self._connections.discard(self)

    def eof_received(self) -> bool:
        """A client that has closed its side still gets the answer under way."""
        self._ended = True
        return self._busy

    def data_received(self, data: bytes) -> None:
        """Collect, and answer what is complete."""
        self._buffer += data
        self._next()

    def _next(self) -> None:
        while not self._busy and self._transport is not None:
            if self._skip:
                taken = min(self._skip, len(self._buffer))
                del self._buffer[:taken]
                self._skip -= taken
            end = self._buffer.find(b"\r\n\r\n") if not self._skip else -1
            if end < 0:
                if len(self._buffer) > MAX_HEAD:
                    self._refuse(431)
                return
            head = bytes(self._buffer[:end])
            del self._buffer[: end + 4]
            try:
                request, self._skip = parse_head(head)
            except BadRequestError as error:
                self._refuse(400, f"{error}\n".encode())
                return
            self._busy = True
            self._handler.handle(request, lambda answer, request=request: self._reply(request, answer))  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    def _refuse(self, status: int, body: bytes = b"") -> None:
        self._write(Answer(status, body, "text/plain"), close=True)
        self.close()

    def _reply(self, request: Request, answer: Answer) -> None:
        if self._transport is None:  # the client has gone meanwhile
            return
        close = self._handler.closing or self._ended or not request.keep_alive
        self._write(answer, close=close, head_only=request.method == "HEAD")
        self._busy = False
        if close:
            self.close()
        elif self._buffer:
            self._next()

    def _write(self, answer: Answer, *, close: bool, head_only: bool = False) -> None:
        assert self._transport is not None  # noqa: S101  # both callers looked
        head = (
            f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, '')}\r\nContent-Type: {answer.content_type}\r\n"
            f"Content-Length: {len(answer.body)}\r\n{answer.headers}Connection: {'close' if close else 'keep-alive'}\r\n\r\n"
        )
        self._transport.write(head.encode("latin-1") + (b"" if head_only else answer.body))
