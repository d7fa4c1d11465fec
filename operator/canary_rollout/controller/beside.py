"""Comparisons that run beside the evaluations: a long look back keeps no halt rule waiting."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from canary_rollout.controller.comparing import Wanted
from canary_rollout.controller.queue import Key
from canary_rollout.controller.running import Running

PATIENCE: Final = 2.0
"""Seconds that an evaluation whose samples are in waits for the comparison that it began, half an interval at most.
Later ones do not wait for it."""


@dataclass(slots=True)
class _Look:
    running: Running
    wanted: Wanted
    task: asyncio.Task[None]


class Beside:
    """One comparison under way for each rollout at most, so that ticks are fed once and in order."""

    def __init__(self) -> None:
        """Create it; nothing is under way."""
        self._looks: dict[Key, _Look] = {}
        self._dropped: set[asyncio.Task[None]] = set()

    def begin(
        self, key: Key, running: Running, wanted: Wanted, compare: Callable[[Wanted], Coroutine[Any, Any, None]]
    ) -> float:
        """Begin ``compare(wanted)``, unless one is under way: that goes by ``wanted`` from now on.

        Returns:
            Seconds to wait for it.
        """
        look = self._looks.get(key)
        if look is not None and look.running is running:
            task = look.task
            if not task.done() or (not task.cancelled() and task.exception() is not None):
                known = look.wanted
                known.request, known.created, known.latest = wanted.request, wanted.created, wanted.latest
                return 0.0
        else:
            self.drop(key)
        task = asyncio.get_running_loop().create_task(compare(wanted), name=f"comparison {key[0]}/{key[1]}")
        self._looks[key] = _Look(running, wanted, task)
        return min(PATIENCE, running.interval / 2)

    async def wait(self, key: Key, patience: float) -> None:
        """Wait until a rollout's is done, ``patience`` seconds at most."""
        look = self._looks.get(key)
        if look is not None and not look.task.done() and patience > 0:
            await asyncio.wait((look.task,), timeout=patience)

    def settle(self, key: Key) -> None:
        """Forget a rollout's once it is done; raises what it failed with."""
        look = self._looks.get(key)
        if look is not None and look.task.done():
            del self._looks[key]
            if not look.task.cancelled():
                look.task.result()

    def drop(self, key: Key) -> None:
        """Cancel a rollout's; what it has fed by then stays right."""
        look = self._looks.pop(key, None)
        if look is not None and not look.task.done():
            look.task.cancel("nobody wants to know any more")
            self._dropped.add(look.task)
            look.task.add_done_callback(self._dropped.discard)

    async def close(self) -> None:
        """Cancel all, and wait until they have ended."""
        for key in list(self._looks):
            self.drop(key)
        await asyncio.gather(*self._dropped, return_exceptions=True)
