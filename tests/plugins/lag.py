"""How late this process wakes up, and its calls are answered: what a busy machine adds to every time that is measured here."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class Lag:
    """Measures from its making on, in the running loop.

    Args:
        ask: a call of the kind that what is measured makes too. A process that mostly sleeps is woken in time by a machine
            on which one that works gets nowhere, so its own wake-ups alone say too little.
        every: seconds between two looks.
    """

    def __init__(self, ask: Callable[[], Awaitable[object]] | None = None, every: float = 0.02) -> None:
        self._ask = ask
        self._every = every
        self._longest = 0.0
        self._began = 0.0
        self._task = asyncio.create_task(self._measure())

    async def _measure(self) -> None:
        while True:
            self._began = time.monotonic()
            await asyncio.sleep(self._every)
            if self._ask is not None:
                await self._ask()
            self._note()

    def _note(self) -> None:
        self._longest = max(self._longest, time.monotonic() - self._began - self._every)

    async def longest(self) -> float:
        """Seconds; ends the measurement."""
        self._note()
        self._task.cancel()
        for error in await asyncio.gather(self._task, return_exceptions=True):
            if not isinstance(error, asyncio.CancelledError):
                raise error
        return self._longest
