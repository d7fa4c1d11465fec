"""The part of the kubelet's API that ``kubectl logs`` needs."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from .node import Node

FOLLOW_POLL_SECONDS = 0.2
CHUNK_BYTES = 1 << 16


def peer_user(address: str, port: int, table: Path = Path("/proc/net/tcp")) -> int | None:
    """Return the user id of the local process behind a connection's other end, from the kernel's table of sockets."""
    wanted = socket.inet_aton(address)[::-1].hex().upper() + f":{port:04X}"
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted:
            return int(fields[7])
    return None


def last_lines(content: bytes, lines: int | None) -> bytes:
    """Return the last ``lines`` lines, all without a number."""
    if lines is None:
        return content
    return b"".join(content.splitlines(keepends=True)[-lines:]) if lines > 0 else b""


class LogServer:
    """Serves container logs over HTTPS to the API server; only processes of our own user are answered.

    Args:
        node: whose containers.
        listener: a listening socket; closed by whoever made it.
        certificate: PEM file.
        key: PEM file.
    """

    def __init__(self, node: "Node", listener: socket.socket, certificate: Path, key: Path) -> None:
        self._node = node
        self._listener = listener
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate, key)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to serve."""
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        # A duplicate: aiohttp closes what it serves, but the claim on the address must last longer.
        await web.SockSite(self._runner, self._listener.dup(), ssl_context=self._tls).start()

    async def stop(self) -> None:
        """End all answers and stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        if peer is None or peer_user(*peer[:2]) != os.getuid():
            raise web.HTTPForbidden(text="only processes of the cluster's own user may read logs")
        wanted = {name: request.match_info[name] for name in ("namespace", "pod", "container")}
        files = self._node.logs(**wanted)
        # A container that waits for its restart has no current run: its last one is the previous one already.
        if request.query.get("previous") == "true" and files and self._node.writes_to(files[-1], **wanted):
            files = files[:-1]
        if not files:
            raise web.HTTPNotFound(text=f"container {wanted['container']} has no log (yet)")
        tail = request.query.get("tailLines")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in self._content(
            files[-1], wanted, lines=int(tail) if tail else None, follow=request.query.get("follow") == "true"
        ):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def _content(
        self, file: Path, wanted: dict[str, str], *, lines: int | None, follow: bool
    ) -> AsyncIterator[bytes]:
        with file.open("rb") as log:
            yield last_lines(log.read(), lines)
            while follow:
                chunk = log.read(CHUNK_BYTES)
                if chunk:
                    yield chunk
                elif not self._node.writes_to(file, **wanted):
                    return
                else:
                    await asyncio.sleep(FOLLOW_POLL_SECONDS)
