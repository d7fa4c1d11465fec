"""How late this process wakes up: what a busy machine, or this process itself, adds to every time that is measured in it."""

import asyncio
import time


class Lag:
    """Measures from its making on, in the running loop."""

    STEP = 0.02

    def __init__(self) -> None:
        self._longest = 0.0
        self._task = asyncio.create_task(self._measure())

    async def _measure(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(self.STEP)
            self._longest = max(self._longest, time.monotonic() - began - self.STEP)

    async def longest(self) -> float:
        """Seconds; ends the measurement."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self._longest
