"""A rollout that holds 5 % while somebody else writes its route every second: what the route said, and who wrote it when."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from lag import Lag
from live_operator import deployment
from route_adapters import CANARY, ROLLOUT, STABLE, Adapter, http_service
from route_bench import SPEC

from canary_rollout.kube.client import Client
from canary_rollout.kube.port import CANARY_ROLLOUTS, EVENTS, LEASES, ApiError, Object, Resource

WANTED = 500
EVERY = 1.0
"""Seconds from one sync to the next."""
TIMES = 4
PATIENCE = 120.0

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the route as a watch showed it; ``at`` is this process' monotonic clock."""

    at: float
    share: float
    version: str


@dataclass
class Round:
    """What happened while somebody synced ``TIMES`` times."""

    versions: list[Version]
    foreign: set[str]
    reported: set[str]
    ends: float
    held_up: float
    """The longest time for which the machine kept this process (and so likely the operator) from running, seconds."""
    asked: float
    """The longest time that the API server took to answer a simple question meanwhile, seconds."""

    @property
    def ours(self) -> list[tuple[Version, Version]]:
        """What the operator wrote: the version before, and its own."""
        pairs = zip(self.versions, self.versions[1:], strict=False)
        return [(before, after) for before, after in pairs if after.version not in self.foreign | self.reported]

    @property
    def theirs(self) -> int:
        """How often somebody else wrote the route."""
        return sum(version.version in self.foreign for version in self.versions)

    @property
    def raises(self) -> list[float]:
        return [after.at for before, after in self.ours if after.share > before.share]

    @property
    def longest_above(self) -> float:
        """The longest time without interruption above the wanted weight, seconds."""
        longest, since = 0.0, None
        for version in [*self.versions, Version(self.ends, 0.0, "")]:
            if since is not None:
                longest = max(longest, version.at - since)
            above = version.share > WANTED + 1e-6
            since = (since or version.at) if above else None
        return longest


@dataclass
class Contest:
    """One adapter's rollout in a namespace of its own."""

    cluster: Any
    client: Client
    namespace: str
    adapter: Adapter
    versions: list[Version] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    rounds: dict[str, Round] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    foreign: set[str] = field(default_factory=set)
    reported: set[str] = field(default_factory=set)
    _watches: list[asyncio.Task[None]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def playing(self) -> AsyncIterator[None]:
        """The rollout holds 5 %."""
        await self._set_up()
        watches = self._watches = [
            asyncio.create_task(self._watch(self.adapter.resource, self.adapter.name_of, self._route)),
            asyncio.create_task(self._watch(CANARY_ROLLOUTS, ROLLOUT, self._status)),
        ]
        try:
            await self._until(lambda: self._says("Holding 5%"))
            yield
        finally:
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

    async def _set_up(self) -> None:
        objects = [http_service(STABLE, STABLE), http_service(CANARY, CANARY), *self.adapter.needs]
        objects += [deployment(STABLE, "idle:v1"), deployment(CANARY, "idle:v2")]
        objects += [] if self.adapter.owned else [self.adapter.git(0)]
        spec = {
            **SPEC,
            "workload": {**SPEC["workload"], "drain": "1s"},
            "traffic": self.adapter.traffic,
            "metrics": {"prometheus": self.cluster.prometheus_url, "interval": "5s"},
            "haltRules": [],
        }
        rollout = {"apiVersion": CANARY_ROLLOUTS.api_version, "kind": "CanaryRollout", "metadata": {"name": ROLLOUT}}
        for one in (*objects, {**rollout, "spec": spec}):
            await self.cluster.admin.create({**one, "metadata": {**one["metadata"], "namespace": self.namespace}})

    async def _until(self, condition: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    for task in self._watches:
                        if task.done():
                            task.result()
                            raise AssertionError("a watch has ended")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self.adapter.name}: {self.messages[-5:]}, {self.versions[-5:]}") from None

    def _says(self, words: str) -> bool:
        return bool(self.messages) and self.messages[-1].startswith(words)

    # What is seen

    async def _watch(self, resource: Resource, name: str, take: Callable[[Object], Awaitable[None]]) -> None:
        while True:  # a kind whose CRD is new ends its first watches
            stream = self.cluster.admin.stream(
                resource.api_version, resource.kind, namespace=self.namespace, field_selector=f"metadata.name={name}"
            )
            async for event in stream:
                if event.type in {"ADDED", "MODIFIED"}:
                    await take(event.object)
            await asyncio.sleep(0.1)

    async def _route(self, route: Object) -> None:
        share = self.adapter.share(route)
        metadata = route["metadata"]
        if self.versions and self.versions[-1].version == metadata["resourceVersion"]:
            return
        self.versions.append(Version(time.monotonic(), share, metadata["resourceVersion"]))
        if (lease := self.adapter.confirms(route)) is not None:
            name = lease["metadata"]["name"]
            await self.client.apply(LEASES, self.namespace, name, lease, manager="canary-rollout-agent")
        status = self.adapter.status(route)
        if status is None or route.get("status") == status:
            return
        # The data plane's controller; what it writes is nobody's weight.
        with contextlib.suppress(ApiError):
            written = await self.client.merge_patch(
                self.adapter.resource,
                self.namespace,
                self.adapter.name_of,
                {"status": status},
                subresource="status",
                manager="controller",
            )
            self.reported.add(written["metadata"]["resourceVersion"])

    async def _status(self, rollout: Object) -> None:
        self.messages.append((rollout.get("status") or {}).get("message") or "")

    # What somebody else does

    async def sync(self, name: str, share: int | None, *, force: bool) -> None:
        """Apply a manifest every second; ``share`` of the canary in it, ``None``: the live one's (ignore rules)."""
        began, version = len(self.versions), self.versions[-1:]
        name_of = self.adapter.name_of
        lag, asking = (
            Lag(),
            Lag(lambda: self.client.get(self.adapter.resource, self.namespace, name_of), every=0.1),
        )
        for number in range(TIMES):
            if number:
                await asyncio.sleep(EVERY)
            live = await self.client.get(self.adapter.resource, self.namespace, self.adapter.name_of)
            manifest = self.adapter.git(self.adapter.overwrite if share is None else share)
            if share is None:
                manifest = self.adapter.keep(manifest, live)
            answer = await (self._forced(manifest) if force else self._patched(manifest))
            if answer["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
                self.foreign.add(answer["metadata"]["resourceVersion"])
        await asyncio.sleep(EVERY)
        seen = version + self.versions[began:]
        held_up, asked = await lag.longest(), await asking.longest()
        self.rounds[name] = Round(seen, self.foreign, self.reported, time.monotonic(), held_up, asked)

    async def _forced(self, manifest: Manifest) -> Object:
        """Server-side apply with force, as Argo CD and Flux do it."""
        name = self.adapter.name_of
        return await self.client.apply(
            self.adapter.resource, self.namespace, name, manifest, manager="argocd-controller"
        )

    async def _patched(self, manifest: Manifest) -> Object:
        """What kubectl's client-side apply sends for a custom resource: a merge patch of what differs."""
        name = self.adapter.name_of
        body = {field: value for field, value in manifest.items() if field in {"spec", "data"}}
        return await self.client.merge_patch(
            self.adapter.resource, self.namespace, name, body, manager="kubectl-client-side-apply"
        )

    async def back(self) -> None:
        """Until the wanted weight is there again and counts."""
        await self._until(lambda: self.versions[-1].share == WANTED and self._says("Holding 5%"))

    async def told(self, reason: str) -> list[str]:
        """Reasons of the Events so far, at the latest when there is one with this reason: Events are sent in their own time."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found, _ = await self.client.list_all(EVENTS, self.namespace)
            reasons = [event["reason"] for event in found if event.get("regarding", {}).get("name") == ROLLOUT]
            if reason in reasons or time.monotonic() > deadline:
                return reasons
            await asyncio.sleep(0.2)
