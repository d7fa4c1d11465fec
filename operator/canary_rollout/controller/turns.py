"""Who may keep the event loop busy, and for how long: renewing the Lease and lowering a weight come in between.

Evaluations of hundreds of rollouts fall due together, and after a start all of them have hours to look back at. Each yields
now and then, but the loop's next turn comes only after *all* that are ready: five hundred turns of ten milliseconds are five
seconds, a renewal needs several of them, and the Lease is lost. So they take turns among themselves as well.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

BUSY: Final = 0.02
"""Seconds of CPU time after which everything else on the loop has its turn."""

LOOKING_BACK: Final = 2
"""Rollouts that look back at one Prometheus at the same time: one waits for the answer while the other reckons."""

ALL_LOOKING_BACK: Final = 16
"""The same of all servers together: each holds a thousand ticks in memory meanwhile."""


class _Places:
    """Of one server; kept while somebody holds one or waits for it."""

    __slots__ = ("free", "users")

    def __init__(self) -> None:
        self.free, self.users = asyncio.Semaphore(LOOKING_BACK), 0


class Turns:
    """Shared by all evaluations of a process."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """Create it.

        Args:
            clock: CPU seconds of the loop's thread.
        """
        self._clock = clock
        self._lock = asyncio.Lock()
        self._began = clock()
        self._all = asyncio.Semaphore(ALL_LOOKING_BACK)
        self._places: dict[str, _Places] = {}

    async def pause(self) -> None:
        """Call before anything that takes about a millisecond: lets others go first once :data:`BUSY` is used up.

        Whoever calls it meanwhile waits behind, in order, so that no turn of the loop takes longer however many they are.
        """
        if not self._lock.locked() and self._clock() - self._began < BUSY:
            return
        async with self._lock:
            if self._clock() - self._began >= BUSY:
                await asyncio.sleep(0)
                self._began = self._clock()

    @asynccontextmanager
    async def looking_back(self, server: str) -> AsyncIterator[None]:
        """Hold one of a Prometheus server's places for what takes long (a stretch of the past); first come, first served.

        A server that is slow keeps those waiting who ask it, and nobody else.
        """
        places = self._places.setdefault(server, _Places())
        places.users += 1
        try:
            async with places.free, self._all:
                yield
        finally:
            places.users -= 1
            if not places.users:
                del self._places[server]
