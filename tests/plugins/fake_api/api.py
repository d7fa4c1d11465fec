"""The API server without a network: verbs, watches, faults, and the client that a test hands to the operator.

Deterministic: nothing here draws a random number, and every wait is on the event loop's clock, so it runs under
virtual time.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from canary_rollout.kube.answers import error_of, watch_error
from canary_rollout.kube.port import FIELD_MANAGER, NotFoundError, Object, Resource, UnavailableError
from fake_api.faults import Answer, Before, Drop, Faults, Hang, Kill, Killed, Match, Rule, Slow
from fake_api.rows import Event, Failure, copy, wire
from fake_api.store import Store


@dataclass(frozen=True)
class Call:
    """One request, as the audit log would have it. ``code`` is filled in when it was answered (0: never)."""

    client: str
    verb: str
    resource: Resource
    namespace: str | None
    name: str | None
    subresource: str
    at: float
    body: object = None

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name, self.subresource) if part)
        return f"{self.verb} {self.resource.plural} {where}"


class Dropped(Exception):  # noqa: N818 - a thing that happens to a connection
    """The connection was closed without an answer."""


class Watch:
    """One open watch."""

    def __init__(self, api: "FakeApi", call: Call, *, labels: str, fields: str) -> None:
        self.api, self.call = api, call
        self._labels, self._fields = api.store._selectors(labels, fields)
        self.queue: asyncio.Queue = asyncio.Queue()

    def _in(self, obj: Object | None) -> bool:
        return (
            obj is not None
            and self.call.namespace in {None, obj["metadata"].get("namespace")}
            and self._labels(obj)
            and self._fields(obj)
        )

    def feed(self, event: Event) -> None:
        """Queue what this watch sees of a change: entering a selector is ADDED, leaving it DELETED."""
        if event.resource != self.call.resource:
            return
        before, after = self._in(event.before), self._in(event.after)
        if after:
            self.queue.put_nowait(("ADDED" if not before else "MODIFIED", copy(event.after)))
        elif before:
            gone = copy(event.before)
            gone["metadata"]["resourceVersion"] = str(event.version)
            self.queue.put_nowait(("DELETED", gone))

    def bookmark(self) -> None:
        resource = self.call.resource
        obj = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"resourceVersion": str(self.api.store.version), "creationTimestamp": None},
        }
        self.queue.put_nowait(("BOOKMARK", obj))


class FakeApi:
    """An API server in this process. ``store`` holds the objects; ``calls`` what was asked; ``client()`` talks to it."""

    def __init__(self, *, wall: Callable[[], float] = time.time, latency: float = 0.0) -> None:
        self.store = Store(wall=wall)
        self.store.listeners.append(self._event)
        self.latency = latency
        """Seconds before and after the effect of every call."""
        self.bookmark_every = 60.0
        self.faults = Faults()
        self.calls: list[Call] = []
        self.watches: list[Watch] = []
        self.frozen = False
        """Watches stay open and are told nothing (a stuck load balancer); what happens meanwhile is lost to them."""
        self.killed = asyncio.Event()
        self._clients: list[FakeClient] = []

    def client(self, name: str = "operator", **options) -> "FakeClient":
        """A connection: implements ``KubeApi``. A killed process needs a new one."""
        client = FakeClient(self, name, **options)
        self._clients.append(client)
        return client

    # Faults

    def fault(self, fault, *, times: int | None = 1, **match) -> Rule:
        """Let ``fault`` happen to the next ``times`` calls (``None``: to all) that match (see :class:`Match`)."""
        rule = Rule(Match(**match), fault, times)
        self.faults.rules.append(rule)
        return rule

    def clear_faults(self) -> None:
        self.faults = Faults()

    def kill_at(self, n: int, *, after: bool = False, client: str = "operator") -> None:
        """End the process of ``client`` at its ``n``-th call from its (next) start: before or after the effect."""
        self.faults.kill = Kill(n, after, client)

    def gone_watches(self) -> None:
        """Compact the history and end all watches with 410."""
        self.store.compact()
        failure = Failure(410, "Expired", f"too old resource version ({self.store.compacted})")
        self.end_watches(failure)

    def end_watches(self, failure: Failure | None = None) -> None:
        """End all watches: as their timeout would, or with an ERROR event."""
        for watch in self.watches:
            watch.queue.put_nowait(("ERROR", failure.status()) if failure else None)

    def calls_of(self, client: str = "operator", *verbs: str) -> list[Call]:
        """Recorded calls of one client; watches are left out unless asked for by verb."""
        return [
            call
            for call in self.calls
            if call.client == client and (call.verb in verbs if verbs else call.verb != "watch")
        ]

    # The verbs

    async def call(self, call: Call, act: Callable[[], Object], *, client: "FakeClient | None" = None) -> Object:
        """One request: faults, latency, the effect, the answer. Raises Failure, Dropped, Killed; may never return."""
        self.calls.append(call)
        kill = client is not None and client.counts(call)
        if kill and not self.faults.kill.after:
            self._kill(client)
        await asyncio.sleep(self.latency)
        fault = self.faults.take(call)
        match fault:
            case Answer():
                raise Failure(fault.code, fault.reason, fault.message, retry_after=fault.retry_after)
            case Drop(after_effect=False):
                raise Dropped
            case Hang(after_effect=False):
                await asyncio.Event().wait()
            case Before():
                fault.act()
        answer = act()
        if kill:
            self._kill(client)
        match fault:
            case Drop():
                raise Dropped
            case Hang():
                await asyncio.Event().wait()
            case Slow():
                await asyncio.sleep(fault.seconds)
        await asyncio.sleep(self.latency)
        return answer

    async def watch(
        self, call: Call, *, version: str, labels: str = "", fields: str = "", seconds: float | None = None
    ) -> AsyncIterator[tuple[str, Object]]:
        """Events until the timeout. The first of them is an ERROR when ``version`` is no longer kept."""
        self.calls.append(call)
        await asyncio.sleep(self.latency)
        fault = self.faults.take(call)
        match fault:
            case Answer():
                raise Failure(fault.code, fault.reason, fault.message, retry_after=fault.retry_after)
            case Drop():
                raise Dropped
            case Hang():
                await asyncio.Event().wait()
        self.store._table(call.resource)
        watch = Watch(self, call, labels=labels, fields=fields)
        if version in {"", "0"}:
            for row in self.store._rows[call.resource].values():
                watch.feed(Event(self.store.version, call.resource, None, row.obj))
        elif int(version) < self.store.compacted:
            said = f"too old resource version: {version} ({self.store.compacted})"
            watch.queue.put_nowait(("ERROR", Failure(410, "Expired", said).status()))
        else:
            for event in self.store.history:
                if event.version > int(version):
                    watch.feed(event)
        self.watches.append(watch)
        try:
            async for event in self._stream(watch, seconds):
                yield event
        finally:
            self.watches.remove(watch)

    async def _stream(self, watch: Watch, seconds: float | None) -> AsyncIterator[tuple[str, Object]]:
        loop = asyncio.get_running_loop()
        end = loop.time() + (seconds if seconds is not None else 1800.0)
        mark = loop.time() + self.bookmark_every
        while True:
            try:
                async with asyncio.timeout_at(min(end, mark)):
                    event = await watch.queue.get()
            except TimeoutError:
                if not self.frozen:
                    watch.bookmark()
                # A timer may fire a clock's resolution early; under virtual time that moment never passes.
                if loop.time() >= end - 1e-3:
                    while not watch.queue.empty():
                        yield watch.queue.get_nowait()
                    return
                mark = loop.time() + self.bookmark_every
                continue
            if event is None:
                return
            yield event
            if event[0] == "ERROR":
                return

    # Inside

    def _event(self, event: Event) -> None:
        if not self.frozen:
            for watch in self.watches:
                watch.feed(event)

    def _kill(self, client: "FakeClient") -> None:
        self.faults.kill = None
        client.dead = True
        self.killed.set()
        raise Killed(f"{client.name} was killed")


class FakeClient:
    """``KubeApi`` straight into a :class:`FakeApi`, with the time limits and errors of the real client."""

    def __init__(self, api: FakeApi, name: str, *, timeout: float = 10.0, observer=None) -> None:
        self.api, self.name, self.timeout, self.observer = api, name, timeout, observer
        self.dead = False
        self.n = 0
        self.skew = 0.0
        """Seconds the server's ``Date`` is ahead of the wall clock."""

    def with_timeout(self, seconds: float) -> "FakeClient":
        twin = _Twin(self.api, self.name, timeout=seconds, observer=self.observer)
        twin.of = self
        return twin

    async def close(self) -> None:
        """Nothing to close."""

    def counts(self, call: Call) -> bool:
        """Count a call of this process; whether it is the one to die at."""
        self.n += 1
        kill = self.api.faults.kill
        return kill is not None and kill.client == self.name and self.n == kill.n

    def process(self) -> "FakeClient":
        """The client that stands for the whole process."""
        return self

    async def get(self, resource, namespace, name):
        return await self._do("get", resource, namespace, name, lambda s: s.get(resource, namespace, name))

    async def list_all(self, resource, namespace=None, *, labels="", fields=""):
        def act(store):
            return store.list_objects(resource, namespace, labels=labels, fields=fields)

        answer = await self._do("list", resource, namespace, None, act)
        for item in answer["items"]:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return answer["items"], answer["metadata"]["resourceVersion"]

    async def create(self, resource, namespace, body):
        body = wire(body)
        name = body["metadata"].get("name")
        return await self._do(
            "create",
            resource,
            namespace,
            name,
            lambda s: s.create(resource, namespace, body, manager=FIELD_MANAGER),
            body=body,
        )

    async def apply(self, resource, namespace, name, body, *, manager=FIELD_MANAGER, force=True):
        metadata = {**body.get("metadata", {}), "name": name}
        body = wire({"apiVersion": resource.api_version, "kind": resource.kind, **body, "metadata": metadata})

        def act(store):
            return store.apply(resource, namespace, name, body, manager=manager, force=force)

        return await self._do("patch", resource, namespace, name, act, body=body)

    async def merge_patch(self, resource, namespace, name, body, *, subresource=None, manager=FIELD_MANAGER):
        body = wire(body)

        def act(store):
            return store.merge_patch(resource, namespace, name, body, subresource=subresource or "", manager=manager)

        return await self._do("patch", resource, namespace, name, act, subresource=subresource, body=body)

    async def json_patch(
        self, resource, namespace, name, operations, *, subresource=None, manager=FIELD_MANAGER, dry_run=False
    ):
        operations = wire(operations)

        def act(store):
            return store.json_patch(
                resource,
                namespace,
                name,
                operations,
                subresource=subresource or "",
                manager=manager,
                dry_run=dry_run,
            )

        return await self._do("patch", resource, namespace, name, act, subresource=subresource, body=operations)

    async def delete(self, resource, namespace, name):
        try:
            await self._do("delete", resource, namespace, name, lambda s: s.delete(resource, namespace, name))
        except NotFoundError:
            return

    async def watch(self, resource, namespace=None, *, resource_version, labels="", fields="", timeout=290.0):  # noqa: ASYNC109 - the port's own
        self._alive()
        call = self._call("watch", resource, namespace, None, "", None)
        target = resource.path(namespace)
        stream = self.api.watch(call, version=resource_version, labels=labels, fields=fields, seconds=timeout)
        try:
            async for kind, obj in stream:
                self._alive()
                if kind == "ERROR":
                    raise watch_error(target, obj)
                yield kind, obj
        except Failure as failure:
            raise self._error("watch", target, failure, None) from failure
        except Dropped as dropped:
            raise UnavailableError(f"watch {target} broke off") from dropped
        finally:
            await stream.aclose()

    # Inside

    def _alive(self) -> None:
        if self.process().dead:
            raise Killed(f"{self.name} was killed")

    def _call(self, verb, resource, namespace, name, subresource, body) -> Call:
        at = asyncio.get_running_loop().time()
        return Call(self.name, verb, resource, namespace, name, subresource or "", at, body)

    async def _do(self, verb, resource, namespace, name, act, *, subresource=None, body=None):
        self._alive()
        call = self._call(verb, resource, namespace, name, subresource, body)
        target = resource.path(namespace, name, subresource)
        sent, code = self.api.store.wall(), 0
        try:
            async with asyncio.timeout(self.timeout):
                answer = await self.api.call(call, lambda: act(self.api.store), client=self.process())
            self._alive()
            code = 201 if verb == "create" else 200
        except TimeoutError as error:
            raise UnavailableError(
                f"{verb} {target}: no answer from the API server within {self.timeout:g} s"
            ) from error
        except Dropped as error:
            raise UnavailableError(f"{verb} {target}: no answer from the API server: connection reset") from error
        except Failure as failure:
            code = failure.code
            raise self._error(verb, target, failure, body) from failure
        finally:
            if self.observer is not None:
                self.observer.call(verb, resource, code, asyncio.get_running_loop().time() - call.at)
                if code:
                    wall = self.api.store.wall()
                    self.observer.server_date(float(int(wall + self.process().skew)), sent, wall)
        return answer

    @staticmethod
    def _error(verb, target, failure: Failure, body):
        headers = {"Retry-After": str(failure.retry_after)} if failure.retry_after else {}
        return error_of(verb, target, failure.code, json.dumps(failure.status()).encode(), headers, operations=body)


class _Twin(FakeClient):
    """The same process with another time limit."""

    of: FakeClient

    def process(self) -> FakeClient:
        return self.of.process()
