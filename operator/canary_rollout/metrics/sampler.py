"""The sampler: many rollouts ask, Prometheus is asked once."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from canary_rollout.analysis.readings import EMPTY, NEITHER, CounterReadings, Pair, Samples
from canary_rollout.metrics.baselines import Baselines
from canary_rollout.metrics.client import Client, PrometheusClient
from canary_rollout.metrics.counters import from_ranges, from_tick
from canary_rollout.metrics.errors import PresetError
from canary_rollout.metrics.locate import locate, locate_raw
from canary_rollout.metrics.places import Lookup, Nowhere, RawLookup
from canary_rollout.metrics.port import NobodyObserves, QueryObserver
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.metrics.server import QUERIES_PER_SERVER, Server
from canary_rollout.metrics.target import Target
from canary_rollout.metrics.tick import Answer, reading_of

THREADS: Final = 16
SUB_TICKS: Final = 10
"""Parts of an interval in each of which a query is sent at most once."""

FINEST: Final = 0.1
COARSEST: Final = 5.0

Connect = Callable[[Target], Client]


def resolution(interval: float) -> float:
    """Return the length of a sub-tick for rollouts that are evaluated every ``interval`` seconds.

    Nobody's samples are older than this, and no query is sent more often.
    """
    return min(COARSEST, max(FINEST, interval / SUB_TICKS))


class _Registered(NamedTuple):
    request: MetricRequest
    lookups: tuple[tuple[Lookup, Target], ...]
    raws: tuple[RawLookup, ...]
    raw_problem: str
    targets: frozenset[Target]


class _Asked(NamedTuple):
    """A look-up and where the answers to it are, or will be; ``None``: there is nothing to ask."""

    lookup: Lookup
    target: Target
    stable: Answer | None
    canary: Answer | None

    def pair(self) -> Pair:
        """Return both readings, out of answers that have come; what stands in for stable comes later."""
        canary = reading_of(self.lookup.canary, self.canary)
        stable = EMPTY if self.lookup.key.baseline else reading_of(self.lookup.stable, self.stable)
        return NEITHER if canary is EMPTY is stable else Pair(stable, canary)


class PrometheusSampler:
    """Samples of all rollouts, from any number of Prometheus servers. For one event loop.

    The first rollout that asks in a sub-tick fixes the evaluation time (its present); all others that ask in it share
    the answers. So the number of queries depends on how many things are measured and how often, not on how many
    rollouts there are, and nothing is older than one sub-tick, a tenth of the interval.

    Args:
        observer: told about every query.
        connect: makes the client of a server.
        now: POSIX seconds.
    """

    def __init__(
        self,
        observer: QueryObserver | None = None,
        connect: Connect | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._observer = observer or NobodyObserves()
        self._connect = connect or (lambda target: PrometheusClient(target, QUERIES_PER_SERVER))
        self._now = now
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="prometheus")
        self._servers: dict[Target, Server] = {}
        self._registered: dict[str, _Registered] = {}
        self._baselines = Baselines()

    def register(self, request: MetricRequest) -> None:
        """Take a rollout into the shared queries, or replace what it asked before. Cheap when nothing changed."""
        self._look_up(request)

    def unregister(self, key: str) -> None:
        """Leave a rollout out from now on; one that is not there is no error."""
        known = self._registered.pop(key, None)
        self._baselines.forget(key)
        if known is not None:
            self._leave(key, known.targets)

    async def sample(self, request: MetricRequest) -> Samples:
        """Return what is known about a rollout now; registers it if it is not. Never raises for want of data."""
        known, now = self._look_up(request), self._now()
        length = resolution(request.interval)
        main = self._servers[request.server].tick(now, length, request.timeout)
        asked: list[_Asked] = []
        for lookup, target in known.lookups:  # all are sent before the first is waited for
            tick = main if target is request.server else self._servers[target].tick(now, length, request.timeout)
            stable = canary = tick.answer(lookup.canary)
            if lookup.key.baseline:
                stable = None
            elif not lookup.together:
                stable = tick.answer(lookup.stable)
            asked.append(_Asked(lookup, target, stable, canary))
        for one in asked:
            for answer in (one.canary, one.stable):
                if answer is not None and not answer.done.is_set():
                    await answer.done.wait()
        readings = {one.lookup.key: one.pair() for one in asked}
        # An app without the series is not asked for its past either.
        past = [
            (one.lookup, one.target)
            for one in asked
            if one.lookup.key.baseline and readings[one.lookup.key].canary.value is not None
        ]
        if past:
            baselines = self._baselines.start(request, past, self._servers, main.at)
            for lookup, _ in past:
                readings[lookup.key] = Pair(await baselines.reading(lookup.key), readings[lookup.key].canary)
        return Samples(main.at, readings)

    async def counters(
        self, request: MetricRequest, at: float, created: Mapping[str, float] | None = None
    ) -> CounterReadings:
        """Return the raw counters of a rollout at ``at``; all who ask for the same time share the queries.

        Args:
            request: with ``compared``.
            at: POSIX seconds, on the rollout's tick grid.
            created: by pod name, when it was created, POSIX seconds.
        """
        known = self._look_up(request)
        if known.raw_problem:
            return CounterReadings(at, complete=False, message=known.raw_problem)
        tick = self._servers[request.server].past(at, request.timeout)
        answers = [tick.batched(raw.shape, raw.scope) for raw in known.raws]
        for answer in answers:
            await answer.done.wait()
        return from_tick(at, known.raws, tick, created or {}, tenants=request.tenants)

    async def counters_between(
        self, request: MetricRequest, start: float, end: float, step: float, created: Mapping[str, float] | None = None
    ) -> tuple[CounterReadings, ...]:
        """Return the same for every ``step`` seconds from ``start`` to ``end``, by range queries of this rollout alone."""
        known = self._look_up(request)
        if known.raw_problem:
            return (CounterReadings(end, complete=False, message=known.raw_problem),)
        server = self._servers[request.server]
        return await from_ranges(request, known.raws, server, (start, end, step), created or {})

    async def close(self) -> None:
        """Give up what is under way and close all connections."""
        servers = list(self._servers.values())
        self._servers.clear()
        self._registered.clear()
        for server in servers:
            server.close()
        await asyncio.gather(*(server.ended() for server in servers))
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _look_up(self, request: MetricRequest) -> _Registered:
        known = self._registered.get(request.key)
        if known is not None and (known.request is request or known.request == request):
            return known
        lookups = tuple((lookup, target) for lookup, target in _targeted(request))
        try:
            raws, problem = tuple(locate_raw(request)), ""
        except PresetError as error:
            raws, problem = (), str(error)
        targets = frozenset({request.server, *(target for _, target in lookups)})
        if known is not None:
            self._leave(request.key, known.targets - targets)
        for target in targets:
            server = self._servers.get(target)
            if server is None:
                client = self._connect(target)
                server = self._servers[target] = Server(target, client, self._executor, self._observer)
            mine = [lookup for lookup, other in lookups if other == target]
            server.plan.put(request.key, mine, raws if target == request.server else ())
        registered = self._registered[request.key] = _Registered(request, lookups, raws, problem, targets)
        return registered

    def _leave(self, key: str, targets: frozenset[Target]) -> None:
        for target in targets:
            server = self._servers[target]
            server.plan.remove(key)
            if not len(server.plan):
                del self._servers[target]
                server.close()


def _targeted(request: MetricRequest) -> list[tuple[Lookup, Target]]:
    """Where every value is found, and at which server."""
    found = []
    for lookup in locate(request):
        target = request.target(lookup.key.server)
        if target is None:
            words = f"there is no server {lookup.key.server} among metrics.servers"
            missing = Nowhere(words, mistake=True)
            found.append((Lookup(lookup.key, missing, missing), request.server))
        else:
            found.append((lookup, target))
    return found
