"""The sampler: many rollouts ask, Prometheus is asked once."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from canary_rollout.analysis.readings import MeasureKey, Pair, Reading, Samples
from canary_rollout.metrics.answers import Values, index, one
from canary_rollout.metrics.backoff import Backoff
from canary_rollout.metrics.client import Client, PrometheusClient
from canary_rollout.metrics.errors import BadQueryError, OutageError, SlowQueryError
from canary_rollout.metrics.plan import Lookup, Plan
from canary_rollout.metrics.port import NobodyObserves, Outcome, QueryObserver
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.metrics.tick import Answer, Tick

THREADS: Final = 16
QUERIES_PER_SERVER: Final = 8
SUB_TICKS: Final = 10
"""Parts of an interval in each of which a query is sent at most once."""

FINEST: Final = 0.1
COARSEST: Final = 5.0
GRACE: Final = 1.0
"""Seconds on top of a query's timeout, in which it may wait for a thread."""

LARGEST_HELD_BACK: Final = 1024
"""Queries whose failure is remembered, per server; the oldest are forgotten first."""

Connect = Callable[[str], Client]


def resolution(interval: float) -> float:
    """Return the length of a sub-tick for rollouts that are evaluated every ``interval`` seconds.

    Nobody's samples are older than this, and no query is sent more often.
    """
    return min(COARSEST, max(FINEST, interval / SUB_TICKS))


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
        self._connect = connect or (lambda url: PrometheusClient(url, QUERIES_PER_SERVER))
        self._now = now
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="prometheus")
        self._servers: dict[str, _Server] = {}
        self._registered: dict[str, tuple[MetricRequest, tuple[Lookup, ...]]] = {}

    def register(self, request: MetricRequest) -> None:
        """Take a rollout into the shared queries, or replace what it asked before. Cheap when nothing changed."""
        self._look_up(request)

    def unregister(self, key: str) -> None:
        """Leave a rollout out from now on; one that is not there is no error."""
        known = self._registered.pop(key, None)
        if known is None:
            return
        url = known[0].server
        server = self._servers[url]
        server.plan.remove(key)
        if not len(server.plan):
            del self._servers[url]
            server.close()

    async def sample(self, request: MetricRequest) -> Samples:
        """Return what is known about a rollout now; registers it if it is not. Never raises for want of data."""
        lookups = self._look_up(request)
        tick = self._servers[request.server].tick(self._now(), resolution(request.interval), request.timeout)
        for lookup in lookups:  # all are sent before the first is waited for
            tick.answer(lookup.stable)
            tick.answer(lookup.canary)
        readings: dict[MeasureKey, Pair] = {}
        for lookup in lookups:
            for answer in (tick.answer(lookup.stable), tick.answer(lookup.canary)):
                if answer is not None and not answer.done.is_set():
                    await answer.done.wait()
            readings[lookup.key] = Pair(tick.reading(lookup.stable), tick.reading(lookup.canary))
        return Samples(tick.at, readings)

    async def close(self) -> None:
        """Give up what is under way and close all connections."""
        servers = list(self._servers.values())
        self._servers.clear()
        self._registered.clear()
        for server in servers:
            server.close()
        await asyncio.gather(*(server.ended() for server in servers))
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _look_up(self, request: MetricRequest) -> tuple[Lookup, ...]:
        known = self._registered.get(request.key)
        if known is not None:
            if known[0] is request or known[0] == request:
                return known[1]
            if known[0].server != request.server:
                self.unregister(request.key)
        server = self._servers.get(request.server)
        if server is None:
            client = self._connect(request.server)
            server = self._servers[request.server] = _Server(request.server, client, self._executor, self._observer)
        lookups = server.plan.add(request)
        self._registered[request.key] = (request, lookups)
        return lookups


class _Server:
    """One Prometheus: its plan, its present ticks, and what it is held back from."""

    def __init__(self, url: str, client: Client, executor: ThreadPoolExecutor, observer: QueryObserver) -> None:
        self.plan = Plan()
        self._url = url
        self._client = client
        self._executor = executor
        self._observer = observer
        self._free = asyncio.Semaphore(QUERIES_PER_SERVER)
        self._ticks: dict[float, Tick] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outage = Backoff()
        self._held_back: dict[str, tuple[Backoff, Reading]] = {}

    def tick(self, now: float, length: float, timeout: float) -> Tick:
        """Return the tick of the sub-tick that ``now`` lies in; the first to ask opens it, at its present."""
        tick = self._ticks.get(length)
        if tick is None or math.floor(tick.at / length) != math.floor(now / length):
            tick = Tick(round(now, 3), self.plan, lambda text, labels, at: self._send(text, labels, at, timeout))
            self._ticks[length] = tick
        return tick

    def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        self._client.close()

    async def ended(self) -> None:
        """Wait until nothing is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self, text: str, labels: tuple[str, ...] | None, at: float, timeout: float) -> Answer:
        answer = Answer()
        if (held_back := self._holding(text)) is not None:
            self._observer.query_held_back(self._url)
            answer.fill(None, held_back)
            return answer
        task = asyncio.get_running_loop().create_task(self._fetch(answer, text, labels, at, timeout))
        self._tasks.add(task)

        def ended(ended_task: asyncio.Task[None]) -> None:
            self._tasks.discard(ended_task)
            if not answer.done.is_set():  # given up before it began: nobody is left waiting
                answer.fill(None, Reading.unavailable("the query was given up"))

        task.add_done_callback(ended)
        return answer

    def _holding(self, text: str) -> Reading | None:
        now = asyncio.get_running_loop().time()
        if self._outage.holds(now):
            return Reading.unavailable(self._outage.reason)
        mine = self._held_back.get(text)
        return mine[1] if mine is not None and mine[0].holds(now) else None

    async def _fetch(self, answer: Answer, text: str, labels: tuple[str, ...] | None, at: float, limit: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcome: Outcome = "ok"
        values: Values | None = None
        reading: Reading | None = Reading.unavailable("the query was given up")
        try:
            async with asyncio.timeout(limit + GRACE), self._free:
                values, reading = await loop.run_in_executor(self._executor, self._blocking, text, labels, at, limit)
            self._outage.succeeded()
            self._held_back.pop(text, None)
        except BadQueryError as error:
            outcome, reading = "bad_query", Reading.bad_query(str(error))
            self._hold_back(text, reading)
        except (SlowQueryError, TimeoutError) as error:
            outcome, reading = "slow", Reading.unavailable(str(error) or f"no answer within {limit:g} s")
            self._hold_back(text, reading)
        except OutageError as error:
            outcome, reading = "outage", Reading.unavailable(str(error))
            self._outage.failed(loop.time(), str(error))
        finally:
            answer.fill(values, reading)
            self._observer.query_finished(self._url, outcome, loop.time() - began)

    def _blocking(
        self, text: str, labels: tuple[str, ...] | None, at: float, limit: float
    ) -> tuple[Values | None, Reading | None]:
        """Ask, and read the answer once for everybody; runs in a thread."""
        result: list[Any] = self._client.query(text, at, limit)
        try:
            return (None, one(result)) if labels is None else (index(result, labels), None)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise OutageError(f"the answer is not one of Prometheus ({type(error).__name__})") from error

    def _hold_back(self, text: str, reading: Reading) -> None:
        """Hold back one query alone; the others are not to suffer for it."""
        now = asyncio.get_running_loop().time()
        backoff = self._held_back.pop(text, (Backoff(), reading))[0]
        backoff.failed(now, reading.message)
        self._held_back[text] = (backoff, reading)
        while len(self._held_back) > LARGEST_HELD_BACK:
            self._held_back.pop(next(iter(self._held_back)))
