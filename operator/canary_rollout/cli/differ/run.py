"""Sends every request to both versions: bounded in rate, in concurrency and in time."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from yarl import URL

from canary_rollout.cli.differ.compare import Answer, Comparison, Rules, compare
from canary_rollout.cli.differ.requests import Request

LARGEST_BODY: Final = 16 * 1024 * 1024
"""Bytes of a body that is read; a larger one is not compared."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to ask.

    Attributes:
        stable: address of stable, with a path in front of every request's if there is one.
        canary: address of the canary.
        headers: sent with every request.
        rate: pairs of requests a second, at most.
        concurrency: pairs under way, at most.
        timeout: seconds for one answer.
        noise: ask stable twice, and leave out the places in which it differs from itself.
        verify: whether certificates are checked.
        ca_file: authorities to trust instead of the system's.
    """

    stable: str
    canary: str
    headers: Mapping[str, str] = field(default_factory=dict)
    rate: float = 50.0
    concurrency: int = 8
    timeout: float = 10.0
    noise: bool = False
    verify: bool = True
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request and what came of it.

    Attributes:
        comparison: ``None`` when stable did not answer: then there is nothing to compare with.
    """

    request: Request
    stable: Answer
    canary: Answer
    comparison: Comparison | None


async def ask_both(requests: Sequence[Request], settings: Settings, rules: Rules) -> list[Outcome]:
    """Every request's outcome, in their order. Never raises for an answer that is bad or missing."""
    pace = _Pace(settings.rate)
    free = asyncio.Semaphore(settings.concurrency)
    async with _session(settings) as session:

        async def one(request: Request) -> Outcome:
            async with free:
                await pace.turn()
                return await _pair(session, request, settings, rules)

        return list(await asyncio.gather(*(one(request) for request in requests)))


async def _pair(session: aiohttp.ClientSession, request: Request, settings: Settings, rules: Rules) -> Outcome:
    addresses = [settings.stable, settings.canary, *([settings.stable] if settings.noise else [])]
    stable, canary, *again = await asyncio.gather(*(_ask(session, base, request, settings) for base in addresses))
    if stable.error:
        return Outcome(request, stable, canary, None)
    noise: frozenset[str] = frozenset()
    if again and not again[0].error:
        noise = frozenset(compare(stable, again[0], Rules(0.0)).places)
    return Outcome(request, stable, canary, compare(stable, canary, rules, noise))


async def _ask(session: aiohttp.ClientSession, base: str, request: Request, settings: Settings) -> Answer:
    began = time.monotonic()
    url = URL(base.rstrip("/") + request.path, encoded=True)
    try:
        async with session.request(
            request.method,
            url,
            headers={**settings.headers, **request.headers},
            data=request.body,
            allow_redirects=False,
        ) as response:
            body = await _body(response)
            location = response.headers.get("Location", "").removeprefix(str(URL(base).origin()))
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            return Answer(response.status, body, kind, location, time.monotonic() - began)
    except TimeoutError:
        return Answer(0, error=f"no answer within {settings.timeout:g} s", seconds=time.monotonic() - began)
    except aiohttp.ClientConnectorError as error:
        return Answer(0, error=f"no connection ({(error.os_error.strerror or 'refused').lower()})")
    except (aiohttp.ClientError, ValueError) as error:
        return Answer(0, error=" ".join(f"{error}".split())[:200] or type(error).__name__)


async def _body(response: aiohttp.ClientResponse) -> bytes | None:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > LARGEST_BODY:
            return None
        parts.append(part)
    return b"".join(parts)


@contextlib.asynccontextmanager
async def _session(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """Without proxies and credentials of the environment, and without cookies: every request stands for itself."""
    trust: ssl.SSLContext | bool = settings.verify
    if settings.verify and settings.ca_file:
        trust = ssl.create_default_context(cafile=settings.ca_file)
    connector = aiohttp.TCPConnector(limit=3 * settings.concurrency, ssl=trust)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=settings.timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield session


class _Pace:
    """Lets one through every ``1 / rate`` seconds."""

    def __init__(self, rate: float) -> None:
        self._gap = 1.0 / rate
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for one's turn."""
        now = asyncio.get_running_loop().time()
        mine = max(now, self._next)
        self._next = mine + self._gap
        if mine > now:
            await asyncio.sleep(mine - now)
