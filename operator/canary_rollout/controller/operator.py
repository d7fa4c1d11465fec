"""The operator process: every replica keeps a warm cache; the one that holds the Lease decides and writes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from canary_rollout.controller.access import Access
from canary_rollout.controller.checks import Checks
from canary_rollout.controller.clock import SystemClock
from canary_rollout.controller.failures import Failures, logged
from canary_rollout.controller.gather import Gatherer
from canary_rollout.controller.guard import AgreedClock, Guard
from canary_rollout.controller.informer import WatchObserver
from canary_rollout.controller.informers import Informers
from canary_rollout.controller.lease import Lease
from canary_rollout.controller.owners import Owners, urgent
from canary_rollout.controller.queue import Key, QueueObserver, WorkQueue
from canary_rollout.controller.reconcile import Reconciler
from canary_rollout.controller.running import TickObserver
from canary_rollout.controller.shell import Shell, Telemetry
from canary_rollout.kube.cache import Cache, Change
from canary_rollout.kube.port import CANARY_ROLLOUTS, DEPLOYMENTS, Clock, KubeApi
from canary_rollout.kube.recording import RecordingApi
from canary_rollout.metrics.port import Sampler
from canary_rollout.metrics.presets import Presets
from canary_rollout.traffic.port import Router, RouterContext
from canary_rollout.traffic.registry import router_for

log = structlog.get_logger(__name__)

_SWEEP_POLL = 0.02
"""Seconds between looks whether the lists that a new term begins with are in."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an operator is put together from.

    Attributes:
        api: the cluster.
        sampler: asks Prometheus.
        telemetry: metrics and Events.
        lease: who acts.
        guard: whether a raise may be sent.
        namespaces: restrict the operator to these; empty for the whole cluster.
        clock: wall time of this machine; where the guard proves it off, the API server's counts.
        router_for: builds a rollout's router.
        queue_observer: told what the queue of reconciles does.
        checks_observer: told what the queue of evaluations does.
        watch_observer: told how the watches fare.
        presets: preset sets for everybody.
        ticks_observer: told about every tick of a comparison.
    """

    api: KubeApi
    sampler: Sampler
    telemetry: Telemetry
    lease: Lease
    guard: Guard
    namespaces: tuple[str, ...] = ()
    clock: Clock = field(default_factory=SystemClock)
    router_for: Callable[[RouterContext], Router] = router_for
    queue_observer: QueueObserver | None = None
    checks_observer: QueueObserver | None = None
    watch_observer: WatchObserver | None = None
    presets: tuple[Presets, ...] = ()
    ticks_observer: TickObserver | None = None


class Operator:
    """Wires the parts. :meth:`run` needs somebody to feed the cache with changes (kopf, see ``watch.py``)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.cache = Cache()
        self.owners = Owners()
        # First of the listeners: an urgent change goes before everything that is merely woken by it.
        self.cache.listen(self._urgent)
        clock = AgreedClock(parts.clock, parts.guard)
        api = RecordingApi(parts.api, self.cache, noticed=self._noticed)
        gatherer = Gatherer(
            api=api,
            cache=self.cache,
            clock=clock,
            no_raise=parts.guard.refusal,
            term=lambda: parts.lease.term,
            owner=self.owners.owner,
        )
        self.failures = Failures(self._reconcile, self._say_failing)
        self.queue = WorkQueue(logged(self.failures.run, "reconcile"), observer=parts.queue_observer)
        self.informers = Informers(
            parts.api, self.cache, self.queue.add, namespaces=parts.namespaces, observer=parts.watch_observer
        )
        self.checks = Checks(
            parts.sampler,
            gatherer,
            clock,
            self.queue.add,
            lambda: self.reconciler.memories,
            access=Access(parts.api, clock, parts.presets),
            observer=parts.checks_observer,
            ticks=parts.ticks_observer,
        )
        self.reconciler = Reconciler(
            Shell(
                api=api,
                cache=self.cache,
                clock=clock,
                gatherer=gatherer,
                needs=self.informers,
                telemetry=parts.telemetry,
                evaluations=self.checks,
                router_for=parts.router_for,
                term=lambda: parts.lease.term,
            )
        )

    async def run(self) -> None:
        """Keep the cache warm and, while the Lease is ours, act. Ends only by an error or by being cancelled.

        Raises:
            LeaseLostError: somebody else may act now; the process must end.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.informers.run(), name="informers")
            tasks.create_task(self._lead(), name="leader")

    async def _lead(self) -> None:
        lease = self._parts.lease
        await lease.acquire()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(lease.keep(), name="lease")
                await self._begin()
                tasks.create_task(self.queue.run(), name="reconciles")
                tasks.create_task(self.checks.run(), name="evaluations")
        finally:
            await lease.release()

    async def _begin(self) -> None:
        """What was read before the Lease was ours may be old: list again, and only then look at every rollout."""
        began = asyncio.get_running_loop().time()
        self.informers.sweep_now()
        while not self.informers.listed_since(began):  # noqa: ASYNC110 - many lists, no one event
            await asyncio.sleep(_SWEEP_POLL)
        for rollout in self.cache.all(CANARY_ROLLOUTS):
            self.queue.add((rollout["metadata"]["namespace"], rollout["metadata"]["name"]))

    async def _reconcile(self, key: Key) -> float | None:
        return await self.reconciler.reconcile(key)

    async def _say_failing(self, key: Key, error: Exception) -> None:
        await self.reconciler.say_failing(key, error)

    def _noticed(self, change: Change) -> None:
        """An answer to ourselves brought news. Whoever it is urgent for looks again, after the look that is under way."""
        if change.resource == CANARY_ROLLOUTS:
            self.owners.take(change)
            keys = frozenset({(change.namespace, change.name)})
        elif change.resource == DEPLOYMENTS:
            keys = self.owners.keys(change.namespace, change.name)
        else:
            return
        if urgent(change):
            for key in keys:
                self.queue.add(key)

    def _urgent(self, change: Change) -> None:
        if change.resource == CANARY_ROLLOUTS:
            self.owners.take(change)
            if urgent(change):
                self.queue.preempt((change.namespace, change.name))
        elif change.resource == DEPLOYMENTS and urgent(change):
            for key in self.owners.keys(change.namespace, change.name):
                self.queue.preempt(key)
