"""What clients send and what they fetch slowly stays off the disk that nginx shares with its node."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from proxies import Edge, edge, eventually, service

from canary_rollout.agent.nginx import Nginx
from canary_rollout.kube.port import SERVICES

pytestmark = pytest.mark.nginx
LARGE = 8_000_000


def on_disk(proxy: Edge) -> int:
    """Bytes that the workers keep in temporary files: these have no name, so only their descriptors tell of them."""
    master = Nginx(proxy.settings.nginx, proxy.settings.work).master()
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    kept = 0
    for worker in workers:
        for one in Path(f"/proc/{worker}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if str(proxy.settings.work / "tmp") in os.readlink(one):  # noqa: PTH115
                    kept += one.stat().st_size
    return kept


class Streaming(asyncio.Protocol):
    """An app that counts what it is sent, and answers with more than any buffer holds."""

    def __init__(self, received: list[int], transports: list[asyncio.Transport]) -> None:
        self._received = received
        self._transports = transports

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._transports.append(transport)

    def data_received(self, data: bytes) -> None:
        self._received[0] += len(data)
        if data.startswith(b"GET"):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE))


@contextlib.asynccontextmanager
async def streaming(received: list[int]) -> AsyncIterator[int]:
    """The app's port; what is open at the end is cut."""
    transports: list[asyncio.Transport] = []
    app = await asyncio.get_running_loop().create_server(lambda: Streaming(received, transports), "127.0.0.1", 0)
    async with app:
        yield app.sockets[0].getsockname()[1]
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that reads slowly, and is cut in the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0.01)


async def test_large_bodies_are_passed_on_as_they_come_and_slow_readers_slow_the_app_down_not_the_disk(tmp_path):
    received = [0]
    async with streaming(received) as port, edge(tmp_path / "w") as proxy:
        await proxy.world.put(SERVICES, service("checkout", "127.0.0.1", port))
        await proxy.to(0)
        async with client(proxy.port) as (_, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE // 2))
            await eventually(lambda: received[0] >= LARGE // 2)  # half of it is there before the rest is sent
            assert on_disk(proxy) == 0
        async with client(proxy.port) as (slow, asking):
            asking.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await slow.readexactly(1000)
            await asyncio.sleep(0.5)  # nginx has what fits into its buffers
            assert on_disk(proxy) == 0
