"""The work queue: every key at most once at a time, in order of arrival or at its time, with back-off; and a fast lane.

client-go's semantics with two differences: each run is a task of its own, so that :meth:`WorkQueue.preempt` can cancel
it and go first; and a run says itself when to look again, so a timer that was pending when it began is forgotten.
Nothing polls: an idle queue costs nothing.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from canary_rollout.kube.port import UnavailableError

Key = tuple[str, str]
"""(namespace, name) of a CanaryRollout."""

Reconcile = Callable[[Key], Awaitable[float | None]]
"""One look at a key. Returns the seconds until the next look (``None``: only when something changes); raises to retry."""


class Outcome(StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    PREEMPTED = "preempted"


class QueueObserver(Protocol):
    """Told what the queue does, for metrics and logs. Must not block."""

    def started(self, key: Key, late: float) -> None:
        """A run begins, ``late`` seconds after it was due."""
        ...

    def ended(self, key: Key, outcome: Outcome, seconds: float) -> None:
        """A run has ended."""
        ...

    def retrying(self, key: Key, error: BaseException, delay: float) -> None:
        """A run failed and is repeated after ``delay`` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential, capped, with jitter: ``first * 2**n`` up to ``longest`` seconds, times a random 0.5..1."""

    first: float = 0.2
    longest: float = 60.0

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds after the ``failures``-th failure in a row (1, 2, ...)."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 30)) * rng.uniform(0.5, 1.0)


class _Lane(StrEnum):
    """Where a key waits."""

    NONE = "none"
    NORMAL = "normal"
    FAST = "fast"


class _Item:
    """What is known of one key; kept only while there is something to know."""

    __slots__ = ("began", "due", "entered", "failures", "fast_run", "lane", "task", "wait_since")

    def __init__(self) -> None:
        self.lane = _Lane.NONE
        self.wait_since = 0.0
        self.due: float | None = None
        self.task: asyncio.Task[float | None] | None = None
        self.fast_run = False
        self.began = 0.0
        self.entered = False
        self.failures = 0

    @property
    def asked(self) -> bool:
        """Whether a run is already on its way that will see everything known by now."""
        return self.lane is not _Lane.NONE or (self.task is not None and not self.entered)

    @property
    def idle(self) -> bool:
        return self.lane is _Lane.NONE and self.due is None and self.task is None and self.failures == 0


class WorkQueue:
    """Runs ``reconcile`` for keys. Used from one event loop; ``add`` and its kin never block and never fail."""

    def __init__(
        self,
        reconcile: Reconcile,
        *,
        workers: int = 16,
        fast_workers: int = 64,
        timeout: float = 60.0,
        backoff: Backoff | None = None,
        observer: QueueObserver | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Create a queue; nothing runs before :meth:`run`.

        Args:
            reconcile: looks at one key.
            workers: runs at the same time, those on the fast lane not counted.
            fast_workers: preempting runs at the same time, so that a thousand of them do not time out together.
            timeout: seconds after which a run is cancelled and counted as failed.
            backoff: delays between failing runs of a key.
            observer: is told what happens.
            rng: source of the jitter.
        """
        self._reconcile = reconcile
        self._workers = workers
        self._fast_workers = fast_workers
        self._timeout = timeout
        self._backoff = backoff or Backoff()
        self._observer = observer
        self._rng = rng or random.Random()
        self._items: dict[Key, _Item] = {}
        self._ready: deque[Key] = deque()
        self._fast: deque[Key] = deque()
        self._heap: list[tuple[float, Key]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._busy = 0
        self._busy_fast = 0
        self._fatal: asyncio.Future[None] | None = None

    # Filling

    def add(self, key: Key) -> None:
        """Run ``key`` as soon as its turn comes; again after the run that is under way, if there is one."""
        item = self._item(key)
        if not item.asked:
            self._enqueue(key, item, _Lane.NORMAL, self._now())
        self._pump()

    def add_after(self, key: Key, delay: float) -> None:
        """Run ``key`` in ``delay`` seconds; of two pending times the earlier one counts."""
        if delay <= 0:
            self.add(key)
            return
        item = self._item(key)
        due = self._now() + delay
        if item.due is None or due < item.due:
            item.due = due
            heapq.heappush(self._heap, (due, key))
            self._compact()
            self._arm()

    def preempt(self, key: Key) -> None:
        """Run ``key`` now: before all others, whatever its back-off, cancelling what is under way for it.

        A run that is itself on the fast lane is not cancelled but followed by another, so that a storm of reasons to
        lower a weight cannot keep the lowering from happening.
        """
        item = self._item(key)
        begins = item.task is not None and item.fast_run and not item.entered
        if item.lane is not _Lane.FAST and not begins:
            self._enqueue(key, item, _Lane.FAST, self._now())
        if item.task is not None and not item.fast_run:
            item.task.cancel("preempted")
        self._pump()

    def forget(self, key: Key) -> None:
        """Drop the pending time and the failures of a key that is gone; a run under way ends by itself."""
        if (item := self._items.get(key)) is None:
            return
        item.due, item.failures, item.lane = None, 0, _Lane.NONE
        self._clean(key, item)

    # Looking

    def depth(self) -> int:
        """Keys that wait for a worker now."""
        return sum(item.lane is not _Lane.NONE for item in self._items.values())

    def scheduled(self, key: Key) -> float | None:
        """Loop time of the pending look at ``key``."""
        item = self._items.get(key)
        return item.due if item else None

    def running(self) -> int:
        """Runs under way."""
        return self._busy + self._busy_fast

    def longest_wait(self) -> float:
        """Seconds the key at the head of the queue has been waiting: the heartbeat, large when workers are stuck."""
        now = self._now()
        heads = [self._items[q[0]].wait_since for q in (self._fast, self._ready) if q and q[0] in self._items]
        return max((now - since for since in heads), default=0.0)

    # Running

    async def run(self) -> None:
        """Work until cancelled. Runs under way are cancelled then, and awaited.

        Raises:
            BaseException: what a run raised that is no ``Exception`` (a simulated kill in tests).
        """
        self._fatal = asyncio.get_running_loop().create_future()
        self._arm()
        self._pump()
        try:
            await self._fatal
        finally:
            self._fatal = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            tasks = [item.task for item in self._items.values() if item.task is not None]
            for task in tasks:
                task.cancel("the queue stops")
            await asyncio.gather(*tasks, return_exceptions=True)

    # Inside

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _item(self, key: Key) -> _Item:
        if (item := self._items.get(key)) is None:
            item = self._items[key] = _Item()
        return item

    def _clean(self, key: Key, item: _Item) -> None:
        if item.idle:
            self._items.pop(key, None)

    def _enqueue(self, key: Key, item: _Item, lane: _Lane, since: float) -> None:
        """Put a key in a lane; a key that moves from one to the other leaves a dead entry behind, skipped later."""
        item.lane = lane
        item.wait_since = since
        (self._fast if lane is _Lane.FAST else self._ready).append(key)

    def _pump(self) -> None:
        """Start what may start."""
        if self._fatal is None or self._fatal.done():
            return
        while self._busy_fast < self._fast_workers and (key := self._next(self._fast, _Lane.FAST)):
            self._start(key, fast=True)
        while self._busy < self._workers and (key := self._next(self._ready, _Lane.NORMAL)):
            self._start(key, fast=False)

    def _next(self, lane: deque[Key], name: _Lane) -> Key | None:
        """The first key of a lane that is not in work; those in work keep their place until they are done."""
        waiting: list[Key] = []
        found = None
        while lane and found is None:
            key = lane.popleft()
            item = self._items.get(key)
            if item is None or item.lane is not name:
                continue
            if item.task is None:
                found = key
            else:
                waiting.append(key)
        lane.extendleft(reversed(waiting))
        return found

    def _start(self, key: Key, *, fast: bool) -> None:
        item = self._items[key]
        now = self._now()
        item.lane, item.due, item.fast_run, item.began, item.entered = _Lane.NONE, None, fast, now, False
        if fast:
            self._busy_fast += 1
        else:
            self._busy += 1
        if self._observer is not None:
            self._observer.started(key, now - item.wait_since)
        item.task = asyncio.get_running_loop().create_task(self._one(key, item), name=f"reconcile {key[0]}/{key[1]}")
        item.task.add_done_callback(lambda task: self._done(key, item, task))

    async def _one(self, key: Key, item: _Item) -> float | None:
        item.entered = True
        async with asyncio.timeout(self._timeout):
            return await self._reconcile(key)

    def _done(self, key: Key, item: _Item, task: asyncio.Task[float | None]) -> None:
        item.task = None
        if item.fast_run:
            self._busy_fast -= 1
            item.fast_run = False
        else:
            self._busy -= 1
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Exception):
            if self._fatal is not None and not self._fatal.done():
                self._fatal.set_exception(error)
            return
        outcome = self._settle(key, item, task, error)
        if self._observer is not None:
            self._observer.ended(key, outcome, self._now() - item.began)
        self._clean(key, item)
        self._pump()

    def _settle(self, key: Key, item: _Item, task: asyncio.Task[float | None], error: BaseException | None) -> Outcome:
        """Decide when the key is looked at again."""
        if task.cancelled() and (item.lane is _Lane.FAST or self._fatal is None):
            return Outcome.PREEMPTED
        if task.cancelled() or error is not None:
            item.failures += 1
            delay = self._backoff.delay(item.failures, self._rng)
            if isinstance(error, UnavailableError):
                delay = max(delay, error.retry_after)
            # Back-off is the rule even where a timer was set meanwhile; a change or a preempt still comes at once.
            item.due = None
            self.add_after(key, delay)
            if self._observer is not None:
                self._observer.retrying(key, error or asyncio.CancelledError("cancelled from inside"), delay)
            return Outcome.TIMED_OUT if isinstance(error, TimeoutError) else Outcome.FAILED
        item.failures = 0
        if (delay_asked := task.result()) is not None:
            if delay_asked <= 0 and item.lane is _Lane.NONE:
                self._enqueue(key, item, _Lane.NORMAL, self._now())
            elif delay_asked > 0:
                self.add_after(key, delay_asked)
        return Outcome.DONE

    def _arm(self) -> None:
        """Set the one timer to the earliest pending time."""
        while self._heap and not self._live(self._heap[0]):
            heapq.heappop(self._heap)
        if self._fatal is None or not self._heap:
            return
        due = self._heap[0][0]
        if self._timer is not None:
            if self._timer.when() <= due and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._fire)

    def _fire(self) -> None:
        """Move what is due into the queue."""
        # A timer may fire a clock's resolution early; what it was set for is due all the same.
        now = max(self._now(), self._timer.when() if self._timer is not None else 0.0)
        self._timer = None
        while self._heap and self._heap[0][0] <= now:
            due, key = entry = heapq.heappop(self._heap)
            if not self._live(entry):
                continue
            item = self._items[key]
            item.due = None
            if not item.asked:
                self._enqueue(key, item, _Lane.NORMAL, due)
        self._arm()
        self._pump()

    def _live(self, entry: tuple[float, Key]) -> bool:
        item = self._items.get(entry[1])
        return item is not None and item.due == entry[0]

    def _compact(self) -> None:
        """Throw dead entries away when they outnumber the living ones."""
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._items):
            self._heap = [entry for entry in self._heap if self._live(entry)]
            heapq.heapify(self._heap)
