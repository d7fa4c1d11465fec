"""One Prometheus: its plan, its present ticks, and what it is held back from."""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from canary_rollout.analysis.readings import Reading
from canary_rollout.metrics.backoff import Backoff
from canary_rollout.metrics.client import Client
from canary_rollout.metrics.errors import BadQueryError, OutageError, SlowQueryError
from canary_rollout.metrics.plan import Plan
from canary_rollout.metrics.port import Outcome, QueryObserver
from canary_rollout.metrics.target import Target
from canary_rollout.metrics.tick import Answer, Reader, Tick

QUERIES_PER_SERVER: Final = 8
GRACE: Final = 1.0
"""Seconds on top of a query's timeout, in which it may wait for a thread."""

LARGEST_HELD_BACK: Final = 1024
"""Queries whose failure is remembered; the oldest are forgotten first."""

PAST_TICKS: Final = 256
KEPT: Final = 5.0
"""Evaluation times in the past whose answers are kept for others who ask for the same, and for how many seconds after they were
first asked for: those who share them fall due together. (Of 100 rollouts, 256 of them held 4 MB.)"""

Ask = Callable[[], list[Any]]


class Server:
    """One Prometheus, for one event loop.

    Args:
        target: where it is.
        client: speaks to it.
        executor: where blocking calls run.
        observer: told about every query.
    """

    def __init__(self, target: Target, client: Client, executor: ThreadPoolExecutor, observer: QueryObserver) -> None:
        self.plan = Plan()
        self.client = client
        self._target = target
        self._executor = executor
        self._observer = observer
        self._free = asyncio.Semaphore(QUERIES_PER_SERVER)
        self._ticks: dict[float, Tick] = {}
        self._past: dict[float, tuple[float, Tick]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outage = Backoff()
        self._held_back: dict[str, tuple[Backoff, Reading]] = {}

    def tick(self, now: float, length: float, timeout: float) -> Tick:
        """Return the tick of the sub-tick that ``now`` lies in; the first to ask opens it, at its present."""
        tick = self._ticks.get(length)
        if tick is None or math.floor(tick.at / length) != math.floor(now / length):
            tick = self._ticks[length] = self._new(round(now, 3), timeout)
        return tick

    def past(self, at: float, timeout: float) -> Tick:
        """Return the tick of an evaluation time in the past, shared by all who ask for exactly that."""
        at, now = round(at, 3), asyncio.get_running_loop().time()
        known = self._past.get(at)
        if known is not None and now - known[0] <= KEPT:
            return known[1]
        self._past.pop(at, None)
        while self._past and (len(self._past) >= PAST_TICKS or now - next(iter(self._past.values()))[0] > KEPT):
            self._past.pop(next(iter(self._past)))
        tick = self._new(at, timeout)
        self._past[at] = (now, tick)
        return tick

    def send(self, text: str, reader: Reader, at: float, timeout: float) -> Answer:
        """Start an instant query."""
        return self.start(text, lambda: self.client.query(text, at, timeout), reader, timeout)

    def start(self, text: str, ask: Ask, reader: Reader, timeout: float) -> Answer:
        """Start any query; ``text`` is what is held back after a failure."""
        answer = Answer()
        if (held_back := self._holding(text)) is not None:
            self._observer.query_held_back(self._target.url)
            answer.fill(None, held_back)
            return answer
        task = asyncio.get_running_loop().create_task(self._fetch(answer, text, ask, reader, timeout))
        self._tasks.add(task)

        def ended(ended_task: asyncio.Task[None]) -> None:
            self._tasks.discard(ended_task)
            if not answer.done.is_set():  # given up before it began: nobody is left waiting
                answer.fill(None, Reading.unavailable("the query was given up"))

        task.add_done_callback(ended)
        return answer

    def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        self.client.close()

    async def ended(self) -> None:
        """Wait until nothing is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _new(self, at: float, timeout: float) -> Tick:
        return Tick(at, self.plan, lambda text, reader, when: self.send(text, reader, when, timeout))

    def _holding(self, text: str) -> Reading | None:
        if self._target.problem:
            return Reading.unavailable(self._target.problem)
        now = asyncio.get_running_loop().time()
        if self._outage.holds(now):
            return Reading.unavailable(self._outage.reason)
        mine = self._held_back.get(text)
        return mine[1] if mine is not None and mine[0].holds(now) else None

    async def _fetch(self, answer: Answer, text: str, ask: Ask, reader: Reader, limit: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcome: Outcome = "ok"
        value: Any = None
        failure: Reading | None = Reading.unavailable("the query was given up")
        try:
            async with asyncio.timeout(limit + GRACE), self._free:
                value = await loop.run_in_executor(self._executor, _blocking, ask, reader)
            failure = None
            self._outage.succeeded()
            self._held_back.pop(text, None)
        except BadQueryError as error:
            outcome, failure = "bad_query", Reading.bad_query(str(error))
            self._hold_back(text, failure)
        except (SlowQueryError, TimeoutError) as error:
            outcome, failure = "slow", Reading.unavailable(str(error) or f"no answer within {limit:g} s")
            self._hold_back(text, failure)
        except OutageError as error:
            outcome, failure = "outage", Reading.unavailable(str(error))
            self._outage.failed(loop.time(), str(error))
        finally:
            answer.fill(value, failure)
            self._observer.query_finished(self._target.url, outcome, loop.time() - began)

    def _hold_back(self, text: str, reading: Reading) -> None:
        """Hold back one query alone; the others are not to suffer for it."""
        now = asyncio.get_running_loop().time()
        backoff = self._held_back.pop(text, (Backoff(), reading))[0]
        backoff.failed(now, reading.message)
        self._held_back[text] = (backoff, reading)
        while len(self._held_back) > LARGEST_HELD_BACK:
            self._held_back.pop(next(iter(self._held_back)))


def _blocking(ask: Ask, reader: Reader) -> Any:
    """Ask, and read the answer once for everybody; runs in a thread."""
    result = ask()
    try:
        return reader(result)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise OutageError(f"the answer is not one of Prometheus ({type(error).__name__})") from error
