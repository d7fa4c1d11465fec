"""The whole operator against the fake API server, in virtual time: real shell, real engine, real nginx router.

What is not here: nginx (its agents acknowledge what they read, as the real ones do) and Prometheus (samples are set).
"""

import asyncio
import contextlib
import random
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import yaml
from fake_api import Deployments, FakeApi
from fake_api.api import Call, FakeClient
from fake_api.store import Event

from canary_rollout.analysis.readings import (
    EMPTY,
    REQUESTS,
    CounterReadings,
    CounterSample,
    Pair,
    Reading,
    Samples,
)
from canary_rollout.controller.guard import Guard
from canary_rollout.controller.informer import FED_BY_KOPF, Informer
from canary_rollout.controller.lease import Lease
from canary_rollout.controller.operator import Operator, Parts
from canary_rollout.engine.decision import Decision, Note
from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    LEASES,
    SERVICES,
    Object,
    Resource,
)
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.model.commands import Command, CommandArgs, Verb
from canary_rollout.model.status import CanaryRolloutStatus
from canary_rollout.model.units import format_instant
from canary_rollout.traffic.nginx import document
from canary_rollout.traffic.nginx.ack import Ack, to_lease

EPOCH = 1_800_000_000.0
SHOP = "shop"

ROLLOUT: Object = yaml.safe_load("""
apiVersion: canaryrollout.dev/v1alpha1
kind: CanaryRollout
metadata: {name: checkout, namespace: shop}
spec:
  workload:
    stable: {service: checkout, deployment: checkout}
    canary: {service: checkout-canary, deployment: checkout-canary}
    drain: 30s
  traffic: {nginx: {service: proxy}}
  metrics: {prometheus: "http://prometheus:9090", interval: 10s, window: 60s, history: 0s}
  stages:
  - {name: first, weight: "0.5%", hold: 60s}
  - {name: second, weight: "5%", hold: 60s}
  - {name: third, weight: "25%", hold: 60s}
  - {name: all, weight: "100%", hold: 60s}
  analysis: {enabled: false}
  defaultHaltRules: false
  haltRules:
  - {name: error-rate, preset: error-rate, above: "1%", for: 0s, minRequests: 10}
""")


class Wall:
    """Wall time that follows the loop's virtual time, ``ahead`` of it by some seconds."""

    ahead = 0.0

    def now(self) -> float:
        return EPOCH + self.ahead + asyncio.get_running_loop().time()


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


def _api_wall() -> float:
    try:
        return EPOCH + now()
    except RuntimeError:
        return EPOCH


@dataclass
class Numbers:
    """What Prometheus says: values by preset for each version, or nothing at all."""

    canary: dict[str, float] = field(default_factory=lambda: {"error-rate": 0.0, REQUESTS: 500.0})
    stable: dict[str, float] = field(default_factory=lambda: {"error-rate": 0.0, REQUESTS: 50_000.0})
    down: bool = False
    asked: int = 0
    requests: dict[str, MetricRequest] = field(default_factory=dict)
    per_second: dict[str, float] = field(default_factory=lambda: {"canary": 500.0, "stable": 50_000.0})
    meters: list[tuple[float, dict[str, tuple[float, float]]]] = field(default_factory=list)
    """(time, requests and errors so far by version): what the pods have counted."""
    nothing: bool = False
    """Nobody counts requests."""
    ticks: list[float] = field(default_factory=list)
    """Evaluation times of the instant queries of counters."""
    replays: list[tuple[float, float]] = field(default_factory=list)

    def register(self, request: MetricRequest) -> None:
        """Nothing to share."""

    def unregister(self, key: str) -> None:
        self.requests.pop(key, None)

    async def sample(self, request: MetricRequest) -> Samples:
        self.asked += 1
        self.requests[request.key] = request
        await asyncio.sleep(0.01)
        at = Wall().now()
        if self.down:
            gone = Reading.unavailable("connection refused")
            return Samples(at, dict.fromkeys(request.measures, Pair(gone, gone)))

        def reading(values: dict[str, float], what: str) -> Reading:
            return Reading.of(values[what]) if what in values else EMPTY

        pairs = {key: Pair(reading(self.stable, key.what), reading(self.canary, key.what)) for key in request.measures}
        return Samples(at, pairs)

    def count(self, until: float) -> None:
        """Let the pods' counters run up to a time, at the present rates."""
        if not self.meters:
            self.meters.append((EPOCH - 100_000, {"canary": (0.0, 0.0), "stable": (0.0, 0.0)}))
        since, before = self.meters[-1]
        if until <= since:
            return
        now_counted = {}
        for arm, share in (("canary", self.canary), ("stable", self.stable)):
            requests = self.per_second[arm] * (until - since)
            now_counted[arm] = (before[arm][0] + requests, before[arm][1] + requests * share.get("error-rate", 0.0))
        self.meters.append((until, now_counted))

    def counted(self, at: float) -> CounterReadings:
        """Return what a scrape at a time has shown."""
        if self.nothing:
            return CounterReadings(at)
        self.count(at)
        place = max(1, bisect_left(self.meters, at, key=lambda meter: meter[0]))
        (left, low), (right, high) = self.meters[place - 1], self.meters[min(place, len(self.meters) - 1)]
        share = (at - left) / (right - left) if right > left else 1.0
        samples = []
        for arm in ("stable", "canary"):
            for series, number in (("requests", 0), ("errors", 1)):
                value = low[arm][number] + share * (high[arm][number] - low[arm][number])
                samples.append(CounterSample(arm, f"{arm}-pod", series, round(value)))
        return CounterReadings(at, tuple(samples))

    async def counters(self, request: MetricRequest, at: float, created: Any = None) -> CounterReadings:
        await asyncio.sleep(0.01)
        if self.down:
            return CounterReadings(at, complete=False, message="connection refused")
        self.count(Wall().now())
        self.ticks.append(at)
        return self.counted(at)

    async def counters_between(
        self, request: MetricRequest, start: float, end: float, step: float, created: Any = None
    ) -> tuple[CounterReadings, ...]:
        await asyncio.sleep(0.01)
        if self.down:
            return (CounterReadings(end, complete=False, message="connection refused"),)
        self.count(Wall().now())
        self.replays.append((start, end))
        return tuple(self.counted(round(start + step * number, 3)) for number in range(round((end - start) / step) + 1))


@dataclass
class Told:
    """Collects what the operator tells."""

    notes: list[Note] = field(default_factory=list)
    forgotten: list[tuple[str, str]] = field(default_factory=list)

    def decided(self, rollout: Object, status: CanaryRolloutStatus, decision: Decision) -> None:
        """Not of interest."""

    def note(self, rollout: Object, note: Note) -> None:
        self.notes.append(note)

    def forgot(self, key: tuple[str, str]) -> None:
        self.forgotten.append(key)

    def reasons(self) -> list[str]:
        return [note.reason for note in self.notes]


class Frozen(FakeClient):
    """A client whose process can be frozen: what it was about to send stays unsent until it thaws."""

    def __init__(self, api: FakeApi, name: str) -> None:
        super().__init__(api, name)
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.stopped_at: float | None = None

    def freeze(self) -> None:
        self.thawed.clear()
        self.stopped_at = now()

    def thaw(self) -> None:
        self.stopped_at = None
        self.thawed.set()

    async def _do(self, *args: Any, **options: Any) -> Any:
        await self.thawed.wait()
        return await super()._do(*args, **options)


class Replica:
    """One operator process. ``task`` ends when it does; ``lost`` holds why it gave up the Lease."""

    def __init__(self, world: "World", identity: str, client: FakeClient) -> None:
        self.world, self.identity, self.client = world, identity, client
        self.lost: list[str] = []
        self.wall = Wall()
        self.lease = Lease(
            client,
            namespace="system",
            name="operator",
            identity=identity,
            clock=self.wall,
            on_lost=self.lost.append,
            mono=self.mono,
            rng=random.Random(identity),
        )
        self.guard = Guard(self.lease, wall=self.wall.now, mono=self.mono)
        client.observer = self
        self.operator = Operator(
            Parts(
                api=client,
                sampler=world.numbers,
                telemetry=world.told,
                lease=self.lease,
                guard=self.guard,
                namespaces=world.namespaces,
                clock=self.wall,
            )
        )
        self.task = asyncio.create_task(self._live(), name=f"operator {identity}")

    def mono(self) -> float:
        frozen = getattr(self.client, "stopped_at", None)
        return now() if frozen is None else frozen

    def call(self, verb: str, resource: Resource, code: int, seconds: float) -> None:
        """Calls are in the API server's own log."""

    def server_date(self, server: float, sent: float, received: float) -> None:
        self.guard.server_date(server, sent, received)

    async def _live(self) -> None:
        scopes = self.world.namespaces or (None,)
        cache = self.operator.cache
        feeds = [Informer(self.client, cache, kind, scope) for kind in FED_BY_KOPF for scope in scopes]
        tasks = [asyncio.create_task(feed.run()) for feed in feeds]
        try:
            await self.operator.run()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def killed(self) -> bool:
        return self.client.dead

    def kill(self) -> None:
        """kill -9: nothing of it is sent any more, not even a goodbye."""
        self.client.dead = True
        self.task.cancel()

    async def end(self, *, kill: bool = False) -> None:
        """Stop it as SIGTERM does (or kill it) and wait; raises what it ended with if that was no end of ours."""
        if kill:
            self.kill()
        self.task.cancel()
        (result,) = await asyncio.gather(self.task, return_exceptions=True)
        if isinstance(result, Exception) and not self.killed and not self.lost:
            raise result


class World:
    """A namespace with an app in two versions, a proxy that acknowledges, and operators that can be killed.

    Nothing in here polls: whatever waits is woken by a change of an object, so minutes of virtual time cost milliseconds.
    """

    def __init__(self, *, namespaces: tuple[str, ...] = (), latency: float = 0.0, **changes: Any) -> None:
        self.api = FakeApi(wall=_api_wall, latency=latency)
        self.deployments = Deployments(self.api, ready_after=1.0)
        self.numbers = Numbers()
        self.told = Told()
        self.user = self.api.client("user")
        self.namespaces = namespaces
        self.weights: list[tuple[float, int, str]] = []
        """(time, weight, revision) of every route the data plane took over."""
        self.agent_delay = 0.02
        """Seconds an agent needs to take a route over and say so."""
        self.agent_follows = True
        self.rollout = {**ROLLOUT, "spec": {**ROLLOUT["spec"], **changes}}
        self.replicas: list[Replica] = []
        self._something = asyncio.Event()
        self.api.store.listeners.append(self._changed)

    async def build(self) -> "World":
        """Create everything but the operator."""
        # looptime's 42 empty turns of the loop before each step are for real I/O, of which there is none here.
        asyncio.get_running_loop().setup_looptime(noop_cycles=1)
        for name in ("checkout", "checkout-canary"):
            track = "canary" if name.endswith("canary") else "stable"
            labels = {"app": "checkout", "track": track}
            await self.user.create(SERVICES, SHOP, _service(name, labels))
            await self.user.create(DEPLOYMENTS, SHOP, _deployment(name, labels, "v1"))
        await self.user.create(SERVICES, SHOP, _service("proxy", {"app": "proxy"}))
        await self.user.create(ENDPOINT_SLICES, SHOP, _endpoints())
        await self.user.create(CANARY_ROLLOUTS, SHOP, self.rollout)
        return self

    # The data plane

    def _changed(self, event: Event) -> None:
        self._something.set()
        if event.resource == CONFIG_MAPS and self.agent_follows:
            asyncio.get_running_loop().call_later(self.agent_delay, self.follow)

    def follow(self) -> None:
        """What every agent does: read the ConfigMap, apply it, say so on its Lease."""
        written = self.look(CONFIG_MAPS, "checkout-nginx")
        text = written.get("data", {}).get("weights.json", "")
        try:
            found = document.parse(text)
        except document.DocumentError:
            return
        told = (found.weight, found.revision)
        if not self.weights or self.weights[-1][1:] != told:
            self.weights.append((now(), *told))
        at = Wall().now()
        ack = Ack(
            pod="proxy-1",
            config_map="checkout-nginx",
            rollout="checkout",
            applied=found.identity,
            applied_at=at,
            config=found.config,
            mode="njs",
            weight=found.weight,
            error="",
            nginx_version="1.31.3",
            renewed=at,
            duration=1_000_000,
        )
        lease = to_lease(ack, SHOP, "")
        self.api.store.apply(LEASES, SHOP, lease["metadata"]["name"], lease, manager="agent", force=True)

    # Operators

    def start(self, identity: str = "operator-0", *, client: FakeClient | None = None) -> Replica:
        """One operator process more."""
        replica = Replica(self, identity, client or self.api.client())
        self.replicas.append(replica)
        return replica

    @contextlib.asynccontextmanager
    async def run(self, identity: str = "operator-0") -> AsyncIterator[Replica]:
        """One operator; all are stopped in the end."""
        try:
            yield self.start(identity)
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop every operator."""
        for replica in self.replicas:
            await replica.end()

    async def restart(self, identity: str = "operator-0") -> Replica:
        """kill -9 and a new process."""
        await self.replicas[-1].end(kill=True)
        return self.start(identity)

    @property
    def operator(self) -> Operator:
        return self.replicas[-1].operator

    # What a test does and asks

    async def release(self, tag: str = "v2", deployment: str = "checkout-canary") -> None:
        """Somebody changes an image."""
        container = {"name": "app", "image": f"app:{tag}"}
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await self.user.merge_patch(DEPLOYMENTS, SHOP, deployment, body)

    async def edit(self, **fields: Any) -> None:
        """Somebody edits the spec."""
        await self.user.merge_patch(CANARY_ROLLOUTS, SHOP, "checkout", {"spec": fields})

    async def delete(self) -> None:
        """Somebody deletes the CanaryRollout."""
        await self.user.delete(CANARY_ROLLOUTS, SHOP, "checkout")

    async def say(self, verb: Verb, *, revision: str | None = None, **args: Any) -> Object:
        """Somebody uses kubectl canary; the annotation."""
        command = Command(
            verb=verb,
            id=f"command-{len(self.api.calls)}",
            revision=revision or self.state["revision"],
            at=format_instant(Wall().now()),
            args=CommandArgs(**args),
        )
        annotation = dict([command.annotation()])
        await self.annotate(annotation)
        return annotation

    async def annotate(self, annotations: Object) -> None:
        await self.user.merge_patch(CANARY_ROLLOUTS, SHOP, "checkout", {"metadata": {"annotations": annotations}})

    async def poll(self, condition: Callable[[], object], within: float = 600.0) -> float:
        """As :meth:`until`, for what shows in no object."""
        end = now() + within
        while not condition():
            assert now() < end, f"not within {within} s"
            await asyncio.sleep(0.05)
        return now()

    async def until(self, condition: Callable[[], object], within: float = 600.0) -> float:
        """Let time pass until something is so; the moment it is."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    self._something.clear()
                    await self._something.wait()
        except TimeoutError:
            # Something that is no object may have changed.
            assert condition(), f"not within {within} s: {self.phase} at {self.weight}: {self.message}"
        return now()

    async def reach(self, stage: str, within: float = 600.0) -> float:
        """Until a stage is confirmed and its hold runs."""
        return await self.until(
            lambda: self.state.get("stage") == stage and "since" in self.state.get("clock", {}), within
        )

    async def serve(self, stage: str = "second") -> float:
        """An operator's good release up to a stage."""
        await self.until(lambda: self.phase == "Idle")
        await self.release()
        return await self.reach(stage)

    async def rest(self, phase: str, within: float = 600.0) -> float:
        """Until the rollout is in that phase."""
        return await self.until(lambda: self.phase == phase, within)

    def look(self, resource: Resource, name: str, namespace: str = SHOP) -> Object:
        """An object, not to be changed; empty when there is none."""
        row = self.api.store._rows[resource].get((namespace, name))
        return row.obj if row is not None else {}

    @property
    def exists(self) -> bool:
        """Whether the CanaryRollout is there."""
        return bool(self.look(CANARY_ROLLOUTS, "checkout"))

    @property
    def status(self) -> Object:
        return self.look(CANARY_ROLLOUTS, "checkout").get("status") or {}

    @property
    def state(self) -> Object:
        return self.status.get("rollout") or {}

    @property
    def phase(self) -> str:
        return self.status.get("phase", "")

    @property
    def message(self) -> str:
        return self.status.get("message", "")

    @property
    def weight(self) -> int:
        """Basis points the data plane serves."""
        return self.weights[-1][1] if self.weights else 0

    @property
    def raised(self) -> list[int]:
        """Every weight above 0 that was served, in order."""
        return [weight for _, weight, _ in self.weights if weight]

    def condition(self, kind: str) -> Object:
        """One condition; empty when it is not there."""
        return next((item for item in self.status.get("conditions", ()) if item["type"] == kind), {})

    def deployment(self, name: str = "checkout-canary") -> Object:
        return self.look(DEPLOYMENTS, name)

    def image(self, name: str) -> str:
        found: str = self.deployment(name)["spec"]["template"]["spec"]["containers"][0]["image"]
        return found

    def writes(self, resource: Resource | None = None, *, since: float = 0.0) -> list[Call]:
        """The operators' writes, without the Lease's."""
        calls = [call for call in self.api.calls_of("operator", "create", "patch", "delete") if call.at >= since]
        return [call for call in calls if call.resource != LEASES and resource in {None, call.resource}]


def _service(name: str, selector: dict[str, str]) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    address = f"10.96.0.{sum(name.encode()) % 250 + 1}"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": selector,
            "ports": ports,
            "clusterIP": address,
            "clusterIPs": [address],
            "type": "ClusterIP",
        },
    }


def _deployment(name: str, labels: dict[str, str], tag: str) -> Object:
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": f"app:{tag}"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
    }


def _endpoints() -> Object:
    endpoint = {
        "addresses": ["10.244.0.9"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "targetRef": {"kind": "Pod", "name": "proxy-1"},
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "proxy-1", "labels": {"kubernetes.io/service-name": "proxy"}},
        "addressType": "IPv4",
        "endpoints": [endpoint],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
