"""Talks to nginx's control address: reads back what the workers serve, pushes routes into shared memory."""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from canary_rollout.agent.errors import ControlError, NotRunningError

TIMEOUT: Final = 2.0


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


class Control:
    """One client; every call opens a connection of its own, so that a worker that is going away cannot answer."""

    def __init__(self, address: str, token: str) -> None:
        # Rises over restarts of the agent too: begins with the time, and goes on from what nginx reads back.
        self._number = time.time_ns() // 1000
        self._url = f"http://{address}/canary"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            headers={"X-Canary-Token": token},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def _call(self, method: str, body: dict[str, Any] | None = None) -> ReadBack:
        try:
            async with self._session.request(method, self._url, json=body) as response:
                if response.status != 200:
                    raise ControlError(f"nginx's control address answered {response.status} to {method}")
                raw = await response.json(content_type=None)
                answer = ReadBack(raw["generation"], raw["route"], raw["number"], raw["members"])
                self._number = max(self._number, answer.number)
                return answer
        except aiohttp.ClientConnectorError as error:
            raise NotRunningError(f"nginx does not answer on its control address: {error}") from error
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            raise ControlError(f"nginx's control address: {type(error).__name__} {error}") from error

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
        self._number += 1
        return await self._call("PUT", {"number": self._number, "route": route, "members": members})
