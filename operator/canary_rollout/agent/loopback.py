"""A small HTTP client for the proxy beside us: what its failures mean."""

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import aiohttp

from canary_rollout.agent.errors import ControlError, NotRunningError


class Loopback:
    """One session to one address of the proxy, made and closed with the agent."""

    def __init__(self, who: str, session: aiohttp.ClientSession) -> None:
        self._who = who
        self._session = session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Around one request and the reading of its answer.

        Raises:
            NotRunningError: nothing listens.
            ControlError: no answer in time, or one that makes no sense.
        """
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            raise NotRunningError(f"{self._who} does not answer: {error}") from error
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            raise ControlError(f"{self._who}: {type(error).__name__} {error}") from error
