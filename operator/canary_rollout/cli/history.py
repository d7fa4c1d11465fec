"""What the sampler would have answered at every tick of a stretch of the past: by range queries, read by the same readers."""

from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from canary_rollout.analysis.readings import EMPTY, CounterReadings, Pair, Reading, Samples
from canary_rollout.metrics.answers import one
from canary_rollout.metrics.baselines import HOUR, Baselines
from canary_rollout.metrics.client import PrometheusClient
from canary_rollout.metrics.counters import MOST_STEPS, SLACK, from_ranges, grid
from canary_rollout.metrics.locate import locate, locate_raw
from canary_rollout.metrics.places import Firing, InBatch, Lookup, Nowhere, OtherThan, Place
from canary_rollout.metrics.plan import ALERTS, render_batch
from canary_rollout.metrics.port import NobodyObserves
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.metrics.server import QUERIES_PER_SERVER, Server
from canary_rollout.metrics.target import Target
from canary_rollout.metrics.tick import Reader, nowhere, read, reader_of

THREADS: Final = 8

Rows = Mapping[float, list[dict[str, Any]]]
"""By evaluation time, what an instant query would have answered with."""


Query = tuple[str, Reader] | None
"""A query and what makes a look-up table of its answer; ``None``: nothing is asked."""


class _Asked(NamedTuple):
    """One measure: where it is found, and by which queries."""

    lookup: Lookup
    target: Target
    stable: Query
    canary: Query


@dataclass(frozen=True, slots=True)
class Past:
    """One tick: what the rules and gates see, and what the comparison sees."""

    samples: Samples
    counters: CounterReadings | None


class History:
    """Reads one rollout's past. Use as an async context manager, in one event loop.

    Args:
        request: what to read; ``measures`` of all stages together.
    """

    def __init__(self, request: MetricRequest) -> None:
        self._request = request
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="prometheus")
        self._servers: dict[Target, Server] = {}
        self._baselines = Baselines()
        self._asked = [self._ask(lookup) for lookup in locate(request)]
        self._raws = tuple(locate_raw(request))
        self._server(request.server)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers.values():
            server.close()
        for server in self._servers.values():
            await server.ended()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def ticks(self, start: float, end: float, step: float) -> AsyncIterator[Past]:
        """Yield what was known at every ``step`` seconds from ``start`` to ``end``, both included (POSIX seconds)."""
        for first, last in parts(start, end, step):
            rows = await self._rows(first, last, step)
            counters = await self.counters(first, last, step)
            for place, at in enumerate(grid(first, last, step)):
                readings = {one.lookup.key: await self._pair(one, rows, at) for one in self._asked}
                yield Past(Samples(at, readings), counters[place] if place < len(counters) else None)

    async def counters(self, start: float, end: float, step: float) -> tuple[CounterReadings, ...]:
        """The raw counters at every tick; none where the rollout is not compared."""
        if not self._raws:
            return ()
        return await from_ranges(self._request, self._raws, self._server(self._request.server), (start, end, step), {})

    # -- readings ------------------------------------------------------------------------------------------------------

    async def _rows(self, first: float, last: float, step: float) -> dict[tuple[Target, str], Rows | Reading]:
        """By server and query, its answers; a failed one is the reading that all ticks of this part get."""
        texts = {
            (one.target, query[0]): None
            for one in self._asked
            for query in (one.stable, one.canary)
            if query is not None
        }
        limit = self._request.timeout * SLACK
        answers = {}
        for target, text in texts:
            server = self._server(target)
            ask = partial(server.client.query_range, text, first, last, step, limit)
            answers[target, text] = server.start(f"{text} [{first:g}]", ask, _by_time, limit)
        found: dict[tuple[Target, str], Rows | Reading] = {}
        for key, answer in answers.items():
            await answer.done.wait()
            found[key] = answer.value if answer.failure is None else answer.failure
        return found

    async def _pair(self, one: _Asked, rows: Mapping[tuple[Target, str], Rows | Reading], at: float) -> Pair:
        lookup, target = one.lookup, one.target
        canary = _reading(lookup.canary, one.canary, target, rows, at)
        if lookup.key.baseline:
            run = self._baselines.start(self._request, [(lookup, target)], self._servers, at // HOUR * HOUR)
            return Pair(await run.reading(lookup.key), canary)
        return Pair(_reading(lookup.stable, one.stable, target, rows, at), canary)

    # -- servers -------------------------------------------------------------------------------------------------------

    def _ask(self, lookup: Lookup) -> _Asked:
        target = self._request.target(lookup.key.server)
        if target is None:
            missing = Nowhere(f"there is no server {lookup.key.server} among metrics.servers", mistake=True)
            lookup, target = Lookup(lookup.key, missing, missing), self._request.server
        self._server(target)
        stable = None if lookup.key.baseline else _query(lookup.stable)
        return _Asked(lookup, target, stable, _query(lookup.canary))

    def _server(self, target: Target) -> Server:
        if target not in self._servers:
            client = PrometheusClient(target, QUERIES_PER_SERVER)
            self._servers[target] = Server(target, client, self._executor, NobodyObserves())
        return self._servers[target]


def parts(start: float, end: float, step: float) -> Iterator[tuple[float, float]]:
    """A stretch in parts that Prometheus answers at once, each end included."""
    first = start
    while first <= end + 1e-6:
        last = min(end, round(first + step * (MOST_STEPS - 1), 3))
        yield first, last
        first = round(last + step, 3)


def _query(place: Place) -> Query:
    """The query that a place's value is in."""
    if isinstance(place, Nowhere):
        return None
    if isinstance(place, (InBatch, OtherThan)):
        batch = render_batch(place.shape, (place.scope,))
        return batch.text, reader_of(place.shape, batch)
    return (ALERTS, list) if isinstance(place, Firing) else (place.text, one)


def _reading(
    place: Place, query: Query, target: Target, rows: Mapping[tuple[Target, str], Rows | Reading], at: float
) -> Reading:
    if isinstance(place, Nowhere) or query is None:
        return nowhere(place) if isinstance(place, Nowhere) else EMPTY
    text, reader = query
    answer = rows.get((target, text), EMPTY)
    if isinstance(answer, Reading):
        return answer
    return read(place, reader(answer.get(at, [])))


def _by_time(result: list[Any]) -> dict[float, list[dict[str, Any]]]:
    """A range query's answer as the instant answers it stands for."""
    rows: dict[float, list[dict[str, Any]]] = {}
    for series in result:
        for at, value in series["values"]:
            rows.setdefault(round(float(at), 3), []).append({"metric": series["metric"], "value": [at, value]})
    return rows
