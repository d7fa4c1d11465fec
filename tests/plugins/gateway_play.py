"""A release and a rollback through Contour and Envoy, which nobody here wrote, in a network of their own.

Run as ``unshare -rn python gateway_play.py``: inside, all of 10.244.0.0/16 is local, pods listen on the addresses that
their EndpointSlices say, and Envoy dials them. Two rollouts play at the same time: one by HTTPRoute, one by HTTPProxy,
each under load of its own. What was seen is printed as one line of JSON; the test judges it.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["CANARY_ROLLOUT_OWN_NETWORK"] = "1"

import aiohttp
from foreign_crds import install_crds
from live_operator import running_operator

from canary_rollout.local.build import ensure_contour
from canary_rollout.local.cluster import LocalCluster
from canary_rollout.local.demo_cast import wait_available
from canary_rollout.local.demo_load import LoadProcess
from canary_rollout.local.demo_objects import APP_IMAGE, example
from canary_rollout.local.tools import ensure_tool
from canary_rollout.model.units import parse_weight

Manifest = dict[str, Any]
RATE = 150
PATIENCE = 120.0
STAGES = [("0.5%", "0.5%"), ("5%", "5%"), ("25%", "25%"), ("100%", "100%")]
GATEWAY = "projectcontour"

CONTOUR = {
    "apiVersion": "projectcontour.io/v1alpha1",
    "kind": "ContourConfiguration",
    "metadata": {"name": "contour", "namespace": GATEWAY},
    "spec": {
        "xdsServer": {"address": "127.0.0.1", "port": 8001, "tls": {"insecure": True}},
        "gateway": {"gatewayRef": {"name": "front", "namespace": GATEWAY}},
        "envoy": {
            "http": {"address": "127.0.0.1", "port": 8080, "accessLog": "/dev/null"},
            "https": {"address": "127.0.0.1", "port": 8443, "accessLog": "/dev/null"},
            "health": {"address": "127.0.0.1", "port": 8002},
            "metrics": {"address": "127.0.0.1", "port": 8003},
        },
    },
}
CLASS = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "contour"},
    "spec": {"controllerName": "projectcontour.io/gateway-controller"},
}
FRONT = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "front", "namespace": GATEWAY},
    "spec": {
        "gatewayClassName": "contour",
        "listeners": [
            {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}},
        ],
    },
}


def _backends() -> list[Manifest]:
    return [{"name": "checkout", "port": 80}, {"name": "checkout-canary", "port": 80, "weight": 0}]


HTTP_ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "checkout"},
    "spec": {
        "parentRefs": [{"name": "front", "namespace": GATEWAY}],
        "hostnames": ["route.example"],
        "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": _backends()}],
    },
}
HTTP_PROXY = {
    "apiVersion": "projectcontour.io/v1",
    "kind": "HTTPProxy",
    "metadata": {"name": "checkout"},
    "spec": {
        "virtualhost": {"fqdn": "proxy.example"},
        "routes": [{"conditions": [{"prefix": "/"}], "services": [{"weight": 100, **_backends()[0]}, _backends()[1]]}],
    },
}


@dataclass
class Seen:
    """What one rollout showed. "When" is a resourceVersion: on this API server one count for objects of all kinds.

    Attributes:
        accepted: by weight (basis points), when Contour had first reported the generation that says it.
        counted: by weight, when the stage's time was first said to run.
        phases: phases in order.
        counts: the load's final counts.
        after_rollback: answers of the canary in the seconds after its weight 0 was confirmed.
    """

    accepted: dict[int, int] = field(default_factory=dict)
    counted: dict[int, int] = field(default_factory=dict)
    phases: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    counts: Manifest = field(default_factory=dict)
    after_rollback: int = -1


class Case:
    """One rollout under load."""

    def __init__(self, cluster: LocalCluster, name: str, route: Manifest, traffic: Manifest) -> None:
        self.cluster, self.namespace, self.route, self.traffic = cluster, name, route, traffic
        self.seen = Seen()
        self.load = LoadProcess(
            ("127.0.0.1", 8080), ["--rate", str(RATE), "--host", f"{name}.example", "--connections", "16"]
        )

    async def set_up(self) -> None:
        admin = self.cluster.admin
        await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        for one in [*deepcopy(example("app.yaml")), deepcopy(self.route)]:
            if one["kind"] != "Namespace":
                one["metadata"]["namespace"] = self.namespace
                await admin.apply(one)
        spec: Manifest = deepcopy(example("demo/canaryrollout.yaml")[0]["spec"])
        spec["traffic"] = self.traffic
        spec["metrics"] |= {"prometheus": self.cluster.prometheus_url, "window": "5s"}
        spec["workload"]["drain"] = "1s"
        spec["stages"] = [
            {"name": f"at-{name[:-1].replace('.', '-')}", "weight": weight, "hold": "4s"} for name, weight in STAGES
        ]
        spec["analysis"] = {"minRequests": 1}
        spec["haltRules"] = [{**spec["haltRules"][0], "minRequests": 1}]
        metadata = {"name": "checkout", "namespace": self.namespace}
        await admin.apply({**example("demo/canaryrollout.yaml")[0], "metadata": metadata, "spec": spec})
        for name in ("checkout", "checkout-canary"):
            await wait_available(self.cluster, self.namespace, name)

    # What is seen

    async def watch(self) -> None:
        """Both watches, until cancelled."""
        kind = (self.route["apiVersion"], self.route["kind"])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(kind, self._on_route))
            group.create_task(self._follow(("canaryrollout.dev/v1alpha1", "CanaryRollout"), self._on_status))

    async def _follow(self, kind: tuple[str, str], take: Any) -> None:
        while True:
            async for event in self.cluster.admin.stream(*kind, namespace=self.namespace):
                if event.type in {"ADDED", "MODIFIED"}:
                    take(event.object)
            await asyncio.sleep(0.1)

    def _on_route(self, route: Manifest) -> None:
        spec = route["spec"]
        backends = spec["routes"][0]["services"] if "routes" in spec else spec["rules"][0]["backendRefs"]
        weights = {one["name"]: one.get("weight", 0) for one in backends}
        weight = weights["checkout-canary"] * 10_000 // max(1, sum(weights.values()))
        status = route.get("status") or {}
        groups = [status.get("conditions") or []] + [one["conditions"] for one in status.get("parents") or []]
        found = [one for group in groups for one in group if one["type"] in {"Accepted", "ResolvedRefs", "Valid"}]
        current = [one["observedGeneration"] == route["metadata"]["generation"] for one in found]
        if found and all(current) and all(one["status"] == "True" for one in found):
            self.seen.accepted.setdefault(weight, int(route["metadata"]["resourceVersion"]))

    def _on_status(self, rollout: Manifest) -> None:
        status = rollout.get("status") or {}
        phase, message = status.get("phase", ""), status.get("message", "")
        if self.seen.phases[-1:] != [phase]:
            self.seen.phases.append(phase)
        if self.seen.messages[-1:] != [message]:
            self.seen.messages.append(message)
        if message.startswith("Holding ") and " in stage " in message:
            self.seen.counted.setdefault(parse_weight(message.split()[1]), int(rollout["metadata"]["resourceVersion"]))

    async def until(self, phase: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while self.seen.phases[-1:] != [phase]:  # noqa: ASYNC110  # nothing would set an event
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.namespace}: not {phase}: {self.seen.messages[-6:]}") from None

    # The play

    async def release(self, tag: str) -> None:
        container = {"name": "app", "image": f"{APP_IMAGE}:{tag}"}
        patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await self.cluster.kubectl(
            *("-n", self.namespace, "patch", "deployment", "checkout-canary", "-p", json.dumps(patch)), check=True
        )

    async def play(self) -> None:
        """A good release to its end, and one that is broken."""
        watching = asyncio.create_task(self.watch())
        await self.until("Idle")
        await answered(f"{self.namespace}.example")
        await self.load.start()
        try:
            await self.release("v2")
            await self.until("Succeeded")
            good = await self.load.counts()
            await self.release("v3-broken")
            await self.until("RolledBack")
            before = await self.load.counts()
            await asyncio.sleep(3)
            after = await self.load.counts()
            self.seen.after_rollback = _canary(after, "v3-broken") - _canary(before, "v3-broken")
            self.seen.counts = {"good": _plain(good), "all": _plain(after)}
        finally:
            await self.load.stop()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _plain(counts: Any) -> Manifest:
    return {key: value for key, value in asdict(counts).items() if key != "samples"}


def _canary(counts: Any, version: str) -> int:
    return sum(count.answers for key, count in counts.versions.items() if version in key)


@contextlib.asynccontextmanager
async def contour(cluster: LocalCluster) -> AsyncIterator[None]:
    """Contour and one Envoy, listening at 127.0.0.1:8080."""
    await cluster.admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": GATEWAY}})
    for one in (CONTOUR, CLASS, FRONT):
        await cluster.admin.apply(one)
    program, envoy = await ensure_contour(), await ensure_tool("envoy")
    environment = {**os.environ, "CONTOUR_NAMESPACE": GATEWAY}
    disabled = [f"--disable-feature={name}" for name in ("tlsroutes", "tcproutes", "backendtlspolicies")]
    words = [str(program), "serve", "--insecure", "--disable-leader-election", *disabled]
    words += ["--contour-config-name=contour", "--kubeconfig", str(cluster.kubeconfig)]
    config = cluster.run_dir / "envoy.json"
    bootstrap = [str(program), "bootstrap", str(config), "--xds-address=127.0.0.1", "--xds-port=8001"]
    await run(*bootstrap, f"--admin-address={cluster.run_dir / 'envoy.sock'}")
    served = cluster.table.start(words, name="contour", env=environment, log=cluster.run_dir / "contour.log")
    proxy = cluster.table.start(
        [
            *(str(envoy), "-c", str(config), "--service-cluster", "contour", "--service-node", "envoy"),
            *("-l", "warning", "--use-dynamic-base-id", "--concurrency", "2"),
        ],
        name="envoy",
        log=cluster.run_dir / "envoy.log",
    )
    try:
        yield
    finally:
        for process in (proxy, served):
            await process.stop()


async def answered(host: str) -> None:
    """Return once the application answers (Envoy listens as soon as there is a route, and knows its pods a little later)."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get("http://127.0.0.1:8080/", headers={"Host": host}) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)


async def run(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words)
    assert await process.wait() == 0, f"{' '.join(words)} failed"


async def main() -> None:
    for words in (["link", "set", "lo", "up"], ["route", "add", "local", "10.0.0.0/8", "dev", "lo"]):
        await run("ip", *words)
    began = time.monotonic()
    async with LocalCluster(images={APP_IMAGE: ("{python}", "-m", "canary_rollout.local.app")}) as cluster:
        await install_crds(cluster, "gateway-api", "contour")
        cases = [
            Case(cluster, "route", HTTP_ROUTE, {"gatewayAPI": {"httpRoute": "checkout"}}),
            Case(cluster, "proxy", HTTP_PROXY, {"contour": {"httpProxy": "checkout"}}),
        ]
        try:
            async with running_operator(cluster, [case.namespace for case in cases]), contour(cluster):
                for case in cases:
                    await case.set_up()
                await asyncio.gather(*(case.play() for case in cases))
        except BaseException:  # raised again
            # Whatever ended it, a time limit from outside too: the logs go with the cluster, and they say why.
            for log in ("contour.log", "envoy.log", *(file.name for file in cluster.run_dir.glob("operator-*.log"))):
                with contextlib.suppress(OSError):
                    sys.stderr.write(f"== {log}\n{(cluster.run_dir / log).read_text()[-6000:]}")
            raise
    seen = {case.namespace: asdict(case.seen) for case in cases}
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - began, **seen}))


if __name__ == "__main__":
    asyncio.run(main())
