"""The two pages: where browsers send beacons, and where Prometheus reads."""

import time
from typing import Final, Self

from aiohttp import web
from prometheus_client import exposition

from canary_rollout.vitals.beacon import LARGEST_BODY, BeaconError, parse
from canary_rollout.vitals.counts import Counts

BURST: Final = 2.0
"""Seconds' worth of beacons that may come at once."""

_STATUS: Final = {"size": 413, "app": 403, "origin": 403, "rate": 429}


class Collector:
    """``async with Collector(...)``: takes beacons on one port and shows histograms on another until it is left.

    Args:
        counts: where they are counted.
        origins: pages that may send; ``*`` for all.
        host: address of both.
        ports: for beacons, for Prometheus; 0 for any (see :attr:`ports`).
        per_second: beacons that are counted per second; what is above is refused, so that a flood costs little.
    """

    def __init__(
        self, counts: Counts, origins: frozenset[str], host: str, ports: tuple[int, int], per_second: float = 500.0
    ) -> None:
        self._counts = counts
        self._origins = origins
        self._host = host
        self.ports = ports
        self._per_second = per_second
        self._left = per_second * BURST
        self._at = time.monotonic()
        public = web.Application(client_max_size=LARGEST_BODY + 1)
        public.router.add_post("/vitals", self._vitals)
        public.router.add_route("OPTIONS", "/vitals", self._preflight)
        inside = web.Application()
        inside.router.add_get("/metrics", self._metrics)
        inside.router.add_get("/healthz", self._healthz)
        self._runners = [web.AppRunner(app, access_log=None, shutdown_timeout=1.0) for app in (public, inside)]

    async def __aenter__(self) -> Self:
        found = []
        for runner, port in zip(self._runners, self.ports, strict=True):
            await runner.setup()
            await web.TCPSite(runner, self._host, port).start()
            found.append(runner.addresses[0][1])
        self.ports = (found[0], found[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _vitals(self, request: web.Request) -> web.Response:
        headers = self._cors(request)
        try:
            self._admit(request, welcome=bool(headers))
            # The body's type is not looked at: navigator.sendBeacon sends text/plain, which needs no preflight.
            self._counts.take(parse(await _body(request)))
        except BeaconError as error:
            self._counts.refuse(error.reason)
            return web.Response(status=_STATUS.get(error.reason, 400), text=f"{error}\n", headers=headers)
        return web.Response(status=204, headers=headers)

    def _admit(self, request: web.Request, *, welcome: bool) -> None:
        if not welcome and "Origin" in request.headers:
            raise BeaconError("origin", "pages of this origin may not send: name it in --origins")
        if not self._has_room():
            raise BeaconError("rate", "too many beacons")

    async def _preflight(self, request: web.Request) -> web.Response:
        headers = self._cors(request)
        if headers:
            headers |= {
                "Access-Control-Allow-Methods": "POST",
                "Access-Control-Allow-Headers": "Content-Type",
                "Access-Control-Max-Age": "86400",
            }
        return web.Response(status=204 if headers else 403, headers=headers)

    def _cors(self, request: web.Request) -> dict[str, str]:
        """Headers that let a page of this origin send; none for others. Cookies are never wanted."""
        origin = request.headers.get("Origin", "")
        if "*" in self._origins:
            return {"Access-Control-Allow-Origin": "*"}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin in self._origins else {}

    def _has_room(self) -> bool:
        now = time.monotonic()
        self._left = min(self._per_second * BURST, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    async def _metrics(self, request: web.Request) -> web.Response:
        encoder, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encoder(self._counts.registry), headers={"Content-Type": content_type})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise BeaconError("size", f"more than {LARGEST_BODY} bytes") from error
