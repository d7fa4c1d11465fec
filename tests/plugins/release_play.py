"""A whole release on real parts for the stories of ``tests/e2e``: cluster, operator, nginx with its agents, app, load.

The operator runs as a process of its own with its ServiceAccount's token instead of as a pod, so that a story says when
it dies, when it comes back and under which identity. What is asserted is seen from outside: the route's ConfigMap, the
pods and the CanaryRollout are watched through the API, and each sight is stamped with the monotonic clock at arrival.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from lag import Lag
from live_operator import ready

from canary_rollout.local.cluster import LocalCluster
from canary_rollout.local.demo_cast import CONFIG_MAP, LocalCast, apply_when_known, local_cast
from canary_rollout.local.demo_load import LoadProcess
from canary_rollout.local.demo_measure import ROLLOUT_KIND, watch_one
from canary_rollout.local.demo_objects import APP_IMAGE, CANARY, NAMESPACE, ROLLOUT, Choices, example
from canary_rollout.local.load import Snapshot
from canary_rollout.local.ports import free_port
from canary_rollout.local.process import ChildProcess
from canary_rollout.local.tools import ensure_tool
from canary_rollout.model.units import parse_weight

SYSTEM = "canary-rollout-system"
LEASE = "canary-rollout-operator"
RATE = 200
PATIENCE = 120.0
"""Seconds that a step may take on a machine that others use too; what it really takes is printed."""
CALLS_OF_A_STORY = 20
"""What a story waits for takes some twenty times as long as one call: starting a process, looks, writes, watches."""

Manifest = dict[str, Any]


def stage(name: str, weight: str, hold: str = "1h") -> Manifest:
    return {"name": name, "weight": weight, "hold": hold}


HELD_AT_25 = (stage("beta", "25%"), stage("ga", "100%"))
HELD_AT_5 = (stage("friendly", "5%"), stage("ga", "100%"))
ERROR_RATE_RULE: Manifest = {
    "name": "error-rate",
    "preset": "error-rate",
    "above": "1%",
    "for": "0s",
    "minRequests": 10,
    "action": "Rollback",
}


@dataclass(frozen=True, slots=True)
class Sight:
    """One thing seen through a watch; ``at`` is this process' monotonic clock at arrival."""

    at: float
    what: Any


@dataclass(slots=True)
class Sights:
    """What watches have shown so far; ``seen`` is set at each."""

    weights: list[Sight] = field(default_factory=list)
    crashes: list[Sight] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take_route(self, config_map: Manifest) -> None:
        text = (config_map.get("data") or {}).get("weights.json")
        if text is None:
            return
        weight = int(json.loads(text)["weight"])
        if not self.weights or self.weights[-1].what != weight:
            self.weights.append(Sight(time.monotonic(), weight))
        self.changed.set()

    def take_pod(self, pod: Manifest) -> None:
        for one in (pod.get("status") or {}).get("containerStatuses") or []:
            for state in (one.get("state") or {}, one.get("lastState") or {}):
                if (state.get("terminated") or {}).get("exitCode"):
                    self.crashes.append(Sight(time.monotonic(), pod["metadata"]["name"]))
                    return


class Operator:
    """One operator process."""

    def __init__(self, process: ChildProcess, identity: str, port: int) -> None:
        self.process, self.identity, self.port = process, identity, port
        self.started = time.monotonic()

    async def kill(self) -> float:
        """kill -9; the moment it was gone."""
        self.process.send_group(signal.SIGKILL)
        await self.process.wait()
        return time.monotonic()

    async def ready(self, within: float = PATIENCE) -> None:
        """Return when it knows enough to act, as the holder of the Lease or as its understudy."""
        await ready(self.port, within)


class Play:
    """What a story uses. Made by :func:`playing`, for all stories of a session."""

    def __init__(self, cast: LocalCast, kubeconfig: Path, tools: str) -> None:
        self.cast = cast
        self.cluster: LocalCluster = cast.cluster
        self.log = cast.rollout
        self.load = cast.load
        self.sights = Sights()
        self._kubeconfig = kubeconfig
        self._tools = tools
        self._releases = 0
        self._operators: list[Operator] = []
        self._watches: list[asyncio.Task[None]] = []

    # -- operators --------------------------------------------------------------------------------------------------

    async def start_operator(self, identity: str = "operator-a") -> Operator:
        port = free_port()
        words = [
            *(sys.executable, "-m", "canary_rollout.controller"),
            *("--kubeconfig", str(self._kubeconfig), "--namespace", SYSTEM, "--identity", identity),
            *("--host", "127.0.0.1", "--port", str(port), "--log-format", "json"),
        ]
        log = self.cluster.run_dir / f"{identity}.log"
        operator = Operator(self.cluster.table.start(words, name=identity, log=log), identity, port)
        self._operators.append(operator)
        return operator

    @property
    def operators(self) -> list[Operator]:
        """Those that run."""
        self._operators = [one for one in self._operators if one.process.returncode is None]
        return self._operators

    async def one_operator(self) -> Operator:
        """Exactly one that runs and holds the Lease."""
        for extra in self.operators[1:]:
            await extra.process.stop()
        operator = self.operators[0] if self.operators else await self.start_operator()
        await operator.ready()
        return operator

    # -- what a person or a pipeline does -----------------------------------------------------------------------------

    def spec(self, stages: Sequence[Manifest], **changes: Any) -> Manifest:
        spec: Manifest = example("demo/canaryrollout.yaml")[0]["spec"]
        spec["metrics"] |= {"prometheus": self.cluster.prometheus_url, "window": "5s", "timeout": "1s"}
        spec["workload"]["drain"] = "1s"
        return {**spec, "stages": list(stages), "haltRules": [ERROR_RATE_RULE], **changes}

    async def apply(self, spec: Manifest) -> None:
        api_version, kind = ROLLOUT_KIND
        metadata = {"name": ROLLOUT, "namespace": NAMESPACE}
        await apply_when_known(
            self.cluster, {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
        )

    async def release(self, tag: str = "") -> str:
        """Give the canary an image, by default one that was never there; its tag."""
        self._releases += 1
        tag = tag or f"e{self._releases}"
        await self.cast.release(tag)
        return tag

    async def serve(self, spec: Manifest, weight: str, *, tag: str = "") -> str:
        """Release something new and return, with its tag, once it is proven to serve ``weight``."""
        before = self.log.revision
        await self.apply(spec)
        tag = await self.release(tag)
        await self.until(lambda: self.log.revision != before and self.holds(weight), f"{tag} to serve {weight}")
        return tag

    async def canary(self, *words: str, code: int = 0) -> str:
        """``kubectl canary`` as a person runs it; both outputs."""
        process = await asyncio.create_subprocess_exec(
            *("kubectl", "canary", *words, "-n", NAMESPACE),
            env={**os.environ, "PATH": self._tools, "KUBECONFIG": str(self.cluster.kubeconfig), "COLUMNS": "200"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        text = output.decode()
        assert process.returncode == code, text
        assert "Traceback" not in text
        return text

    async def tell_canary(self, what: str) -> None:
        """POST ``/control?what`` to every pod of the canary."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            for pod in await self.pods("app=checkout,track=canary"):
                address = self.cluster.listen_address(pod["status"]["podIP"])
                async with session.post(f"http://{address}:8080/control?{what}") as response:
                    response.raise_for_status()

    # -- what is seen -------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Manifest:
        return self.log.status

    @property
    def phase(self) -> str:
        return self.log.phase

    @property
    def weight(self) -> int:
        """The route's weight as last seen, in basis points."""
        return int(self.sights.weights[-1].what)

    def holds(self, weight: str) -> bool:
        """Whether the data plane has proved ``weight`` and the stage's clock runs; the route is watched by itself."""
        memory = self.status.get("rollout") or {}
        proved = parse_weight(memory.get("confirmed", "0%")) == parse_weight(weight)
        proved = proved and self.weight == parse_weight(weight)
        return self.phase == "Progressing" and proved and "since" in (memory.get("clock") or {})

    def weights_after(self, mark: int) -> list[int]:
        return [sight.what for sight in self.sights.weights[mark:]]

    @property
    def mark(self) -> int:
        """For :meth:`weights_after`: what is written from now on."""
        return len(self.sights.weights)

    async def until(self, holds: Callable[[], bool], what: str, within: float = PATIENCE) -> float:
        """Return, with the moment, when ``holds()`` is true of what is seen."""
        deadline = time.monotonic() + within
        while not holds():
            if time.monotonic() > deadline:
                pytest.fail(
                    f"waited {within:g} s in vain for {what}; weights {self.weights_after(-6)}; status "
                    f"{json.dumps(self.status)[:3000]}"
                )
            await asyncio.sleep(0.01)
        return time.monotonic()

    async def until_weight(self, weight: int, within: float = PATIENCE) -> float:
        """The moment at which the watch showed the route at ``weight``."""
        await self.until(lambda: self.weight == weight, f"the route at {weight} basis points", within)
        return self.sights.weights[-1].at

    async def until_nobody_new(self, version: str) -> Snapshot:
        """Return, with the counts, when nobody has been answered by ``version`` for two seconds."""
        counts, since = await self.load.counts(), time.monotonic()
        deadline = since + PATIENCE
        while (now := await self.load.counts()).monotonic - since < 2:
            assert time.monotonic() < deadline, f"{version} still answers: {now.versions.get(version)}"
            if now.versions.get(version) != counts.versions.get(version):
                counts, since = now, time.monotonic()
            await asyncio.sleep(0.2)
        return counts

    def lag(self) -> Lag:
        """How late calls to the API server are answered from now on."""
        kind, admin = ("v1", "ConfigMap"), self.cluster.admin
        return Lag(lambda: admin.get(*kind, CONFIG_MAP, namespace=NAMESPACE), every=0.1)

    async def held_up(self, lag: Lag) -> float:
        """Seconds that a bound on a whole story is wider by, because the machine was that busy (a tenth of one when it was not)."""
        return CALLS_OF_A_STORY * await lag.longest()

    async def never(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        """Look on for ``seconds``; ``holds()`` must stay false."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert not holds(), f"{what}; weights {self.weights_after(-6)}; status {json.dumps(self.status)[:3000]}"
            await asyncio.sleep(0.02)

    async def pods(self, selector: str) -> list[Manifest]:
        """Pods that are there to stay."""
        pods = await self.cluster.admin.list("v1", "Pod", namespace=NAMESPACE, label_selector=selector)
        return [one for one in pods if not one["metadata"].get("deletionTimestamp")]

    def container(self, pod: str, name: str) -> ChildProcess | None:
        """The process of a pod's container, while it runs."""
        for runner in self.cluster.node.pods.values():
            if (runner.namespace, runner.name) == (NAMESPACE, pod):
                return next(one.process for one in runner.containers if one.name == name)
        return None

    async def canarys_tenants(self, tag: str, wanted: int, candidates: int) -> list[str]:
        """Tenants whose requests the canary answers now."""
        names = [f"lasting-{tag}-{number}" for number in range(candidates)]
        seen = len(self.load.singles)
        for name in names:
            await self.load.single("/", name)
        await self.until(lambda: len(self.load.singles) >= seen + candidates, "answers of single requests")
        found = [one["tenant"] for one in self.load.singles[seen:] if one.get("version") == tag]
        assert len(found) >= wanted, self.load.singles[seen:]
        return found[:wanted]

    async def start(self) -> None:
        """Begin to watch, and replace the operator's pod by a process of ours."""
        admin = self.cluster.admin
        self._watches = [
            asyncio.create_task(
                watch_one(admin, ("v1", "ConfigMap"), NAMESPACE, CONFIG_MAP, self.sights.take_route), name="route"
            ),
            asyncio.create_task(self._watch_canary_pods(), name="pods"),
        ]
        scale = {"spec": {"replicas": 0}}
        await admin.patch("apps/v1", "Deployment", "canary-rollout-operator", scale, namespace=SYSTEM)
        selector = "app.kubernetes.io/component=operator"
        async with asyncio.timeout(PATIENCE):
            while await admin.list("v1", "Pod", namespace=SYSTEM, label_selector=selector):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await self.one_operator()

    async def _watch_canary_pods(self) -> None:
        while True:
            stream = self.cluster.admin.stream("v1", "Pod", namespace=NAMESPACE, label_selector="track=canary")
            async for event in stream:
                if event.type == "MODIFIED":
                    self.sights.take_pod(event.object)

    async def stop(self) -> None:
        for operator in self.operators:
            await operator.process.stop()
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)


def nothing_lost(before: Snapshot, now: Snapshot) -> dict[str, int]:
    """What the load generator counted as nobody's fault but ours between two snapshots; all of it is to be 0."""
    return {name: getattr(now, name) - getattr(before, name) for name in ("transport_errors", "no_app", "not_sent")}


def told(figure: str) -> None:
    """Say what was measured (``pytest -s`` shows it); what is asserted beside it leaves room for a busy machine."""
    print(f"\n    {figure}")  # noqa: T201


@contextlib.asynccontextmanager
async def second_load(address: str, *options: str) -> AsyncIterator[LoadProcess]:
    """Load on one nginx pod, past the Service."""
    load = LoadProcess((address, 8080), ["--canary", CANARY, "--rate", "200", *options])
    await load.start()
    try:
        yield load
    finally:
        await load.stop()


@contextlib.asynccontextmanager
async def playing() -> AsyncIterator[Play]:
    """Everybody on stage: an idle CanaryRollout, load that stable answers, one operator."""
    kubectl = await ensure_tool("kubectl")
    tools = f"{kubectl.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    load = ["--rate", str(RATE), "--tenants", "4000", "--canary", CANARY]
    async with local_cast(Choices(), load, lambda _: None) as cast:
        play = Play(cast, await cast.cluster.kubeconfig_for(SYSTEM, "canary-rollout-operator"), tools)
        try:
            await play.start()
            yield play
        finally:
            await play.stop()


__all__ = [
    "APP_IMAGE",
    "CANARY",
    "HELD_AT_5",
    "HELD_AT_25",
    "LEASE",
    "NAMESPACE",
    "PATIENCE",
    "ROLLOUT",
    "SYSTEM",
    "Play",
    "nothing_lost",
    "playing",
    "second_load",
    "stage",
    "told",
]
