"""One real nginx with its agent, two small apps behind it, and the fake API server: what the traffic tests play with."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fake_api import FakeApi, FakeServer

from canary_rollout.agent.agent import Agent
from canary_rollout.agent.process import assembled
from canary_rollout.agent.settings import Settings, find_nginx
from canary_rollout.kube.port import CONFIG_MAPS, ENDPOINT_SLICES, SERVICES, Object, Resource
from canary_rollout.local.ports import free_port
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic.nginx import NginxRouter
from canary_rollout.traffic.port import Route, RouterContext, RouteView, Written

NAMESPACE = "shop"
WITHIN = 60.0
"""Seconds for what must come anyway: nobody waits for them but a machine that stands still."""
Read = TypeVar("Read")


async def eventually(condition: Callable[[], bool], within: float = WITHIN) -> None:
    """Wait for something that other processes bring about."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - other processes know no event of ours
            await asyncio.sleep(0.01)


async def until(read: Callable[[], Awaitable[Read]], holds: Callable[[Read], bool], within: float = WITHIN) -> Read:
    """Read again and again until it holds; what was read then."""
    found = await read()
    try:
        async with asyncio.timeout(within):
            while not holds(found):
                await asyncio.sleep(0.05)
                found = await read()
    except TimeoutError:
        raise AssertionError(f"after {within:g} s it is {found!r}") from None
    return found


async def settled(read: Callable[[], Awaitable[Read]], quiet: float = 2.0) -> Read:
    """What is read when it has stayed the same for ``quiet`` seconds: for what arrives late, but all of it."""
    found, since = await read(), time.monotonic()
    async with asyncio.timeout(WITHIN):
        while time.monotonic() - since < quiet:
            await asyncio.sleep(0.1)
            if (now := await read()) != found:
                found, since = now, time.monotonic()
    return found


class StoreReader:
    """``kube.port.Reader`` that sees the fake API server's objects without delay."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        return self._api.store.peek(resource, namespace, name)

    def select(self, resource: Resource, namespace: str | None, labels: Mapping[str, str]) -> list[Object]:
        found = self._api.store.list_objects(resource, namespace)
        wanted = labels.items()
        return [obj for obj in found["items"] if wanted <= (obj["metadata"].get("labels") or {}).items()]


class WallClock:
    """The real one."""

    def now(self) -> float:
        return time.time()


class Held:
    """Requests to ``/held``, of every app here: a test answers them itself and need not guess how long they must last."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, answer: Callable[[], None]) -> None:
        """One has arrived."""
        self._waiting.append(answer)

    def answer(self) -> None:
        """Answer all that wait."""
        while self._waiting:
            self._waiting.pop()()


HELD = Held()


class App(asyncio.Protocol):
    """A version of the app: answers its name; when it is told to, if the path is ``/held``."""

    def __init__(self, name: str, connections: set[asyncio.Transport]) -> None:
        self._connections = connections
        self._answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\nX-Canary-Version: app\r\n\r\n{name}".encode()
        self._rest = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._connections.add(transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while b"\r\n\r\n" in self._rest:
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            if path == b"/held":
                HELD.wait(lambda: self._transport.write(self._answer))
            elif path == b"/echo":
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(head), head))
            elif path == b"/broken":
                self._transport.write(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n")
            else:
                self._transport.write(self._answer)


def service(name: str, address: str, port: int) -> Object:
    """A ClusterIP Service."""
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"clusterIP": address, "ports": [{"port": port, "protocol": "TCP"}]},
    }


def endpoint_slice(service_name: str, pods: Mapping[str, Mapping[str, bool]]) -> Object:
    """An EndpointSlice of ``service_name``; conditions by pod."""
    return {
        "metadata": {
            "name": f"{service_name}-1",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "endpoints": [
            {"addresses": ["10.244.0.1"], "conditions": dict(how), "targetRef": {"kind": "Pod", "name": pod}}
            for pod, how in pods.items()
        ],
    }


def spec_of(**traffic: object) -> CanaryRolloutSpec:
    """A spec with the nginx router; ``traffic`` replaces fields of ``spec.traffic``."""
    return CanaryRolloutSpec.model_validate(
        {
            "workload": {
                "stable": {"service": "checkout", "deployment": "checkout"},
                "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
            },
            "traffic": {"nginx": {"service": "edge"}, "sticky": {"header": "X-Tenant-ID"}} | traffic,
            "metrics": {"prometheus": "http://prometheus.monitoring:9090"},
        }
    )


@dataclass
class World:
    """The fake API server with the Services of one rollout, and a router on it."""

    api: FakeApi = field(default_factory=FakeApi)
    spec: CanaryRolloutSpec = field(default_factory=spec_of)
    name: str = "checkout"

    def context(self) -> RouterContext:
        """What a reconcile would give a router."""
        client = self.api.client("operator")
        return RouterContext(NAMESPACE, self.name, "uid-1", self.spec, client, StoreReader(self.api), WallClock())

    def router(self) -> NginxRouter:
        """A router as a reconcile would build it."""
        return NginxRouter(self.context())

    async def put(self, resource: Resource, obj: Object) -> None:
        """Apply an object as somebody who is not the operator."""
        await self.api.client("cluster").apply(resource, NAMESPACE, obj["metadata"]["name"], obj, manager="cluster")

    async def route(self, weight: int, revision: str = "v2", **more: object) -> None:
        """Write a route as the operator would, whatever was there."""
        answer = await self.router().ensure(Route(weight, revision, "v1", **more), fence=None)
        assert isinstance(answer, Written), answer

    def view(self) -> RouteView:
        """What the operator sees."""
        view = self.router().observe()
        assert view is not None
        return view

    def config_map(self) -> Object:
        """The ConfigMap as it is."""
        obj = StoreReader(self.api).get(CONFIG_MAPS, NAMESPACE, self.router().config_map)
        assert obj is not None
        return obj


@dataclass
class Edge:
    """A running nginx with its agent."""

    world: World
    settings: Settings
    port: int
    agent: Agent | None = None

    async def confirmed(self) -> RouteView:
        """Wait until the operator would count the step."""
        await eventually(lambda: self.world.view().confirmed)
        return self.world.view()

    async def to(self, weight: int, revision: str = "v2", **more: object) -> RouteView:
        """Write a weight and wait for its confirmation."""
        await self.world.route(weight, revision, **more)
        return await self.confirmed()


ENVIRONMENT = {
    "NAMESPACE": "shop",
    "POD_NAME": "edge-1",
    "CONFIGMAP": "checkout-nginx",
    "WORK_DIR": "work",
    "NGINX": "/bin/nginx",
}
"""What an agent in a pod is told."""


def settings_for(work: Path, pod: str = "edge-1", nginx: str | None = None, workers: int = 2) -> Settings:
    """Settings of an agent on free ports."""
    return Settings(
        namespace=NAMESPACE,
        pod=pod,
        pod_uid="",
        config_map="checkout-nginx",
        work=work,
        nginx=find_nginx(nginx),
        bind=("127.0.0.1",),
        control=f"127.0.0.1:{free_port()}",
        port=free_port(),
        workers=workers,
        kubeconfig=None,
    )


@contextlib.asynccontextmanager
async def app(name: str) -> AsyncIterator[int]:
    """One version of the app; its port."""
    connections: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: App(name, connections), "127.0.0.1", 0, backlog=512)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def apps(world: World) -> AsyncIterator[None]:
    """Two versions of the app behind two Services."""
    async with app("stable") as stable, app("canary") as canary:
        await world.put(SERVICES, service("checkout", "127.0.0.1", stable))
        await world.put(SERVICES, service("checkout-canary", "127.0.0.1", canary))
        await world.put(SERVICES, service("edge", "10.96.0.9", 80))
        yield


@contextlib.asynccontextmanager
async def started(
    *words: str, log: Path, alone: bool = False, environment: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process; ended with everything it started, or ``alone``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *words, env={**os.environ, **(environment or {})}, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL) if alone else os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@contextlib.asynccontextmanager
async def nginx_process(settings: Settings, drain: float = 0.0) -> AsyncIterator[asyncio.subprocess.Process]:
    """nginx under its parent, as in its container."""
    words = ("nginx", "--work-dir", f"{settings.work}", "--nginx", settings.nginx, "--drain", f"{drain}")
    agent = (sys.executable, "-m", "canary_rollout.agent")
    async with started(*agent, *words, log=settings.work / "nginx.stderr") as process:
        yield process


@contextlib.asynccontextmanager
async def looping(agent: Agent) -> AsyncIterator[Agent]:
    """The agent's loops in this process."""
    task = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def agent_task(world: World, settings: Settings) -> AsyncIterator[Agent]:
    """An agent beside nginx in this process."""
    async with assembled(settings, world.api.client(settings.pod)) as (agent, _), looping(agent):
        yield agent


@contextlib.asynccontextmanager
async def agent_process(
    server: FakeServer, settings: Settings, *flags: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The agent (beside Envoy where the settings name no nginx) as a process that talks to the fake API server over HTTP."""
    settings.work.mkdir(parents=True, exist_ok=True)
    control = settings.control.rpartition(":")[2]
    environment = {
        "NAMESPACE": settings.namespace,
        "POD_NAME": settings.pod,
        "CONFIGMAP": settings.config_map,
        "WORK_DIR": f"{settings.work}",
        "BIND_ADDRESS": "127.0.0.1",
        "METRICS_PORT": f"{settings.port}",
        "KUBECONFIG": server.kubeconfig(settings.work.parent / f"{settings.pod}.kubeconfig"),
    }
    if settings.nginx:
        command = "run"
        environment |= {"NGINX": settings.nginx, "CONTROL_PORT": control, "NGINX_WORKERS": f"{settings.workers}"}
    else:
        command = "envoy"
        environment |= {"ADMIN_PORT": control}
    words, log = (sys.executable, "-m", "canary_rollout.agent", command, *flags), settings.work / "agent.log"
    async with started(*words, log=log, alone=True, environment=environment) as process:
        yield process


Beside = Callable[[Settings], contextlib.AbstractAsyncContextManager[object]]
"""Starts the proxy."""


@contextlib.asynccontextmanager
async def behind(
    world: World,
    edge: Edge,
    weight: int,
    proxy: Beside,
    agent: Callable[[World, Settings], contextlib.AbstractAsyncContextManager[Agent]],
) -> AsyncIterator[Edge]:
    """Everything at once, confirmed at ``weight``."""
    async with apps(world), proxy(edge.settings), agent(world, edge.settings) as edge.agent:
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        await edge.to(weight)
        yield edge


@contextlib.asynccontextmanager
async def edge(work: Path, *, nginx: str | None = None, weight: int = 0, **traffic: object) -> AsyncIterator[Edge]:
    """An nginx with its agent, two apps behind it, all confirmed at ``weight``."""
    port = free_port()
    listening = {"service": "edge", "listen": port, **traffic.pop("nginx_traffic", {})}
    world = World(spec=spec_of(nginx=listening, **traffic))
    made = Edge(world, settings_for(work, nginx=nginx), port)
    async with behind(world, made, weight, nginx_process, agent_task):
        yield made
