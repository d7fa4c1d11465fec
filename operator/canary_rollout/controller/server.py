"""/healthz, /readyz and /metrics over HTTP.

``/healthz`` fails when only a restart can help (the loop hangs, the queue's workers are stuck, a part has died);
``/readyz`` when this replica does not know enough to act. Who holds the Lease is shown, not judged: a standby is ready.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Never, Self

from aiohttp import web
from prometheus_client import CollectorRegistry, exposition

Check = Callable[[], str]
"""What is wrong, one sentence; empty when all is well."""
Show = Callable[[], object]

_BEAT: Final = 0.5
_MINUTE: Final = int(60 / _BEAT)
LAG_LIMIT: Final = 10.0
"""Seconds the loop may hang before the process counts as sick."""


class LoopLag:
    """How late the event loop is; :meth:`run` measures."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=_MINUTE)
        self._beat: float | None = None

    async def run(self) -> Never:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._beat = loop.time()
            await asyncio.sleep(_BEAT)
            self._lags.append(max(0.0, loop.time() - self._beat - _BEAT))

    def worst(self) -> float:
        """Longest delay of the last minute, the present one included, seconds."""
        now = asyncio.get_running_loop().time()
        present = max(0.0, now - self._beat - _BEAT) if self._beat is not None else 0.0
        return max((*self._lags, present))

    def problem(self) -> str:
        """A :data:`Check`: the last beat is long overdue."""
        now = asyncio.get_running_loop().time()
        if self._beat is not None and now - self._beat > LAG_LIMIT:
            return f"the event loop was last seen {now - self._beat:.0f} s ago"
        return ""


class Server:
    """``async with Server(...)``: serves until it is left."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        host: str,
        port: int,
        live: Mapping[str, Check],
        ready: Mapping[str, Check],
        shown: Mapping[str, Show] | None = None,
        refresh: Callable[[], None] | None = None,
    ) -> None:
        """Create it.

        Args:
            registry: whose metrics are served.
            host: address to listen on.
            port: port; 0 for any (see :attr:`port`).
            live: checks of ``/healthz`` by name.
            ready: checks of ``/readyz`` by name.
            shown: facts that ``/readyz`` shows without judging them (who holds the Lease).
            refresh: called on the event loop before the metrics are read, to set gauges.
        """
        self._registry = registry
        self._host = host
        self.port = port
        self._live = live
        self._ready = ready
        self._shown = shown or {}
        self._refresh = refresh
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return self._answer(self._live, {})

    async def _readyz(self, _: web.Request) -> web.Response:
        return self._answer(self._ready, self._shown)

    async def _metrics(self, request: web.Request) -> web.Response:
        if self._refresh is not None:
            self._refresh()
        encoder, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
        # Thousands of rollouts are a megabyte of text; the loop has better things to do than to write it.
        body = await asyncio.to_thread(encoder, self._registry)
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    @staticmethod
    def _answer(checks: Mapping[str, Check], shown: Mapping[str, Show]) -> web.Response:
        problems = {name: problem for name, check in checks.items() if (problem := check())}
        body = {
            "ok": not problems,
            "checks": {name: problems.get(name, "ok") for name in checks},
            **{name: show() for name, show in shown.items()},
        }
        return web.json_response(body, status=200 if not problems else 503)
