"""The whole operator against the fake API server, in virtual time: real shell, real engine, real nginx router.

What is not here: nginx (its agents acknowledge what they read, as the real ones do) and Prometheus (samples are set).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import yaml
from fake_api import Deployments, FakeApi
from fake_api.api import Call, FakeClient
from fake_api.rows import Event
from operator_replica import Replica, Told
from scripted_metrics import Numbers
from virtual_time import Wall, api_wall, now

from canary_rollout.controller.operator import Operator
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
from canary_rollout.model.commands import Command, CommandArgs, Verb
from canary_rollout.model.units import format_instant
from canary_rollout.traffic.nginx import document
from canary_rollout.traffic.nginx.ack import Ack, to_lease

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


class World:
    """A namespace with an app in two versions, a proxy that acknowledges, and operators that can be killed.

    Nothing in here polls: whatever waits is woken by a change of an object, so minutes of virtual time cost milliseconds.
    """

    def __init__(self, *, namespaces: tuple[str, ...] = (), latency: float = 0.0, **changes: Any) -> None:
        self.api = FakeApi(wall=api_wall, latency=latency)
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
