"""Talks to nginx's control address: reads back what the workers serve, pushes routes into shared memory."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from canary_rollout.agent.errors import ControlError
from canary_rollout.agent.loopback import Loopback

ATTEMPTS: Final = (0.3, 0.6, 2.0)
"""Seconds that each attempt may take, 3 s together. An answer takes 1 ms; a connection that a worker took which ends under
a reload may get none, and a new one is another worker's."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a worker answers.

    Attributes:
        generation: of the configuration it runs.
        route: string in shared memory; empty when there is none (nginx restarted, or no njs).
        number: of the push that brought it.
        members: number of cohort members in shared memory.
    """

    generation: str
    route: str
    number: int
    members: int


class Control(Loopback):
    """One client; every attempt opens a connection of its own, so that a worker that is going away cannot answer.

    Args:
        address: of nginx's control server.
        token: what it asks for.
        retried: told of every attempt after the first.
    """

    def __init__(self, address: str, token: str, retried: Callable[[], None]) -> None:
        connector = aiohttp.TCPConnector(force_close=True)
        session = aiohttp.ClientSession(connector=connector, headers={"X-Canary-Token": token})
        super().__init__("nginx's control address", session)
        # Rises over restarts of the agent too: begins with the time, and goes on from what nginx reads back.
        self._number = time.time_ns() // 1000
        self._url = f"http://{address}/canary"
        self._retried = retried

    async def _call(self, method: str, body: Callable[[], dict[str, Any]] = dict) -> ReadBack:
        """One question, asked again (at once: each on a connection of its own) when it got no answer at all.

        Args:
            method: of HTTP.
            body: makes what is sent, anew for each attempt.
        """
        for limit in ATTEMPTS[:-1]:
            with self._understood(), contextlib.suppress(TimeoutError):
                return await self._once(method, body(), limit)
            self._retried()
        with self._understood():
            return await self._once(method, body(), ATTEMPTS[-1])

    async def _once(self, method: str, body: dict[str, Any], limit: float) -> ReadBack:
        within = aiohttp.ClientTimeout(total=limit)
        async with self._session.request(method, self._url, json=body or None, timeout=within) as response:
            if response.status != 200:
                raise ControlError(f"nginx's control address answered {response.status} to {method}")
            raw = await response.json(content_type=None)
            answer = ReadBack(raw["generation"], raw["route"], raw["number"], raw["members"])
            self._number = max(self._number, answer.number)
            return answer

    async def read(self) -> ReadBack:
        """What is served now.

        Raises:
            NotRunningError: nothing listens.
            ControlError: an answer that makes no sense, or none in time.
        """
        return await self._call("GET")

    async def push(self, route: str, members: dict[str, str]) -> ReadBack:
        """Put a route into shared memory, for all workers at once; what is there afterwards.

        Raises:
            NotRunningError: nothing listens.
            ControlError: an answer that makes no sense, or none in time.
        """

        def numbered() -> dict[str, Any]:
            # A number for each attempt: one that had its effect, but was slow to say so, must not make the next one old.
            self._number += 1
            return {"number": self._number, "route": route, "members": members}

        return await self._call("PUT", numbered)
