"""The whole operator against the fake API server, in virtual time: real shell, real engine, real nginx router.

What is not here: nginx (its agents acknowledge what they read, as the real ones do) and Prometheus (samples are set).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import yaml
from fake_api import Deployments, FakeApi, Killed

from canary_rollout.analysis.readings import EMPTY, REQUESTS, Pair, Reading, Samples
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
  metrics: {prometheus: "http://prometheus:9090", interval: 10s, window: 60s}
  stages:
  - {name: first, weight: "0.5%", hold: 60s}
  - {name: second, weight: "5%", hold: 60s}
  - {name: third, weight: "25%", hold: 60s}
  - {name: all, weight: "100%", hold: 60s}
  haltRules:
  - {name: error-rate, preset: error-rate, above: "1%", minRequests: 10}
""")


class Wall:
    """Wall time that follows the loop's virtual time."""

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()


def _api_wall() -> float:
    try:
        return EPOCH + asyncio.get_running_loop().time()
    except RuntimeError:
        return EPOCH


@dataclass
class Numbers:
    """What Prometheus says: values by preset for each version, or nothing at all."""

    canary: dict[str, float] = field(default_factory=lambda: {"error-rate": 0.0, REQUESTS: 500.0})
    stable: dict[str, float] = field(default_factory=lambda: {"error-rate": 0.0, REQUESTS: 50_000.0})
    down: bool = False
    asked: int = 0

    def register(self, request: MetricRequest) -> None:
        """Nothing to share."""

    def unregister(self, key: str) -> None:
        """Nothing to drop."""

    async def sample(self, request: MetricRequest) -> Samples:
        self.asked += 1
        await asyncio.sleep(0.01)
        now = Wall().now()
        if self.down:
            gone = Reading.unavailable("connection refused")
            return Samples(now, dict.fromkeys(request.measures, Pair(gone, gone)))

        def reading(values: dict[str, float], what: str) -> Reading:
            return Reading.of(values[what]) if what in values else EMPTY

        pairs = {key: Pair(reading(self.stable, key.what), reading(self.canary, key.what)) for key in request.measures}
        return Samples(now, pairs)


@dataclass
class Told:
    """Collects what the operator tells."""

    notes: list[str] = field(default_factory=list)

    def decided(self, rollout: Object, status: CanaryRolloutStatus, decision: Decision) -> None:
        """Not of interest."""

    def note(self, rollout: Object, note: Note) -> None:
        self.notes.append(note.reason)

    def forgot(self, key: tuple[str, str]) -> None:
        """Not of interest."""


class World:
    """A namespace with an app in two versions, a proxy that acknowledges, and an operator that can be killed."""

    def __init__(self, **changes: Any) -> None:
        self.api = FakeApi(wall=_api_wall)
        self.deployments = Deployments(self.api, ready_after=1.0)
        self.numbers = Numbers()
        self.told = Told()
        self.user = self.api.client("user")
        self.agent = self.api.client("agent")
        self.weights: list[tuple[float, int, str]] = []
        """(time, weight, revision) of every route the data plane was told."""
        self.proxies_alive = True
        self.rollout = {**ROLLOUT, "spec": {**ROLLOUT["spec"], **changes}}
        self.operator: Operator | None = None

    async def build(self) -> "World":
        """Create everything but the operator."""
        for name in ("checkout", "checkout-canary"):
            track = "canary" if name.endswith("canary") else "stable"
            labels = {"app": "checkout", "track": track}
            await self.user.create(SERVICES, SHOP, _service(name, labels))
            await self.user.create(DEPLOYMENTS, SHOP, _deployment(name, labels, "v1"))
        await self.user.create(SERVICES, SHOP, _service("proxy", {"app": "proxy"}))
        await self.user.create(ENDPOINT_SLICES, SHOP, _endpoints())
        await self.user.create(CANARY_ROLLOUTS, SHOP, self.rollout)
        return self

    async def play_agent(self) -> None:
        """What every agent does: read the ConfigMap, apply it, say so on its Lease."""
        seen = ""
        while True:
            written = self.api.store.peek(CONFIG_MAPS, SHOP, "checkout-nginx")
            text = (written or {}).get("data", {}).get("weights.json", "")
            if text and text != seen and self.proxies_alive:
                seen = text
                found = document.parse(text)
                self.weights.append((Wall().now(), found.weight, found.revision))
                await self._acknowledge(found)
            await asyncio.sleep(0.05)

    async def _acknowledge(self, found: Any) -> None:
        now = Wall().now()
        ack = Ack(
            "proxy-1",
            "checkout-nginx",
            "checkout",
            found.identity,
            now,
            found.config,
            "njs",
            found.weight,
            "",
            "1.31.3",
            now,
            100_000,
        )
        lease = to_lease(ack, SHOP, "")
        await self.agent.apply(LEASES, SHOP, lease["metadata"]["name"], lease, manager="agent")

    @contextlib.asynccontextmanager
    async def run(self, identity: str = "operator-0") -> AsyncIterator["World"]:
        """The world with one operator in it."""
        agent = asyncio.create_task(self.play_agent())
        task = asyncio.create_task(self.operate(identity))
        try:
            yield self
        finally:
            for one in (task, agent):
                one.cancel()
            for result in await asyncio.gather(task, agent, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    async def operate(self, identity: str = "operator-0") -> None:
        """One operator process, until it is cancelled or killed."""
        client = self.api.client()
        lease = Lease(
            client,
            namespace="system",
            name="operator",
            identity=identity,
            clock=Wall(),
            mono=lambda: asyncio.get_running_loop().time(),
        )
        guard = Guard(lease, wall=Wall().now, mono=lambda: asyncio.get_running_loop().time())
        operator = self.operator = Operator(
            Parts(api=client, sampler=self.numbers, telemetry=self.told, lease=lease, guard=guard, clock=Wall())
        )
        feeds = [asyncio.create_task(Informer(client, operator.cache, kind).run()) for kind in FED_BY_KOPF]
        try:
            await operator.run()
        finally:
            for feed in feeds:
                feed.cancel()
            await asyncio.gather(*feeds, return_exceptions=True)

    # What a test does and asks

    async def release(self, tag: str = "v2") -> None:
        """Somebody changes the canary's image."""
        container = {"name": "app", "image": f"app:{tag}"}
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await self.user.merge_patch(DEPLOYMENTS, SHOP, "checkout-canary", body)

    async def say(self, verb: Verb, **args: Any) -> None:
        """Somebody uses kubectl canary."""
        command = Command(
            verb=verb,
            id=f"command-{len(self.api.calls)}",
            revision=self.state["revision"],
            at=format_instant(Wall().now()),
            args=CommandArgs(**args),
        )
        key, value = command.annotation()
        await self.user.merge_patch(CANARY_ROLLOUTS, SHOP, "checkout", {"metadata": {"annotations": {key: value}}})

    async def until(self, condition: Callable[[], bool], within: float = 600.0) -> None:
        """Let time pass until something is so."""
        try:
            async with asyncio.timeout(within):
                while not condition():  # noqa: ASYNC110 - virtual time
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(
                f"not within {within} s: {self.status.get('phase')}: {self.status.get('message')}"
            ) from None

    async def reach(self, stage: str) -> None:
        """Until a stage is confirmed and its hold runs."""
        await self.until(
            lambda: self.state.get("stage") == stage and self.state.get("clock", {}).get("since") is not None
        )

    @property
    def status(self) -> Object:
        found = self.api.store.peek(CANARY_ROLLOUTS, SHOP, "checkout") or {}
        return found.get("status") or {}

    @property
    def state(self) -> Object:
        return self.status.get("rollout") or {}

    @property
    def phase(self) -> str:
        return self.status.get("phase", "")

    @property
    def weight(self) -> int:
        return self.weights[-1][1] if self.weights else 0

    def deployment(self, name: str) -> Object:
        return self.api.store.peek(DEPLOYMENTS, SHOP, name)


async def killed(world: World, identity: str = "operator-0") -> bool:
    """Run an operator until it is killed (``True``) or ends otherwise."""
    try:
        await world.operate(identity)
    except Killed:
        return True
    except BaseExceptionGroup as group:
        return group.subgroup(Killed) is not None
    return False


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
