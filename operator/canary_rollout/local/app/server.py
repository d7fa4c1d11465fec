"""The app itself: what it answers, and how it ends."""

import asyncio
import json
import os
import random
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping

from canary_rollout.local.app.behaviour import (
    MAX_SLOW_SECONDS,
    Behaviour,
    BehaviourError,
    changed,
    from_environment,
    version_of,
)
from canary_rollout.local.app.http import Answer, HttpProtocol, Reply, Request
from canary_rollout.local.app.metrics import CONTENT_TYPE, AppMetrics

DEFAULT_PORT = 8080
CRASH_CODE = 1
_DRAIN_POLL_SECONDS = 0.02
_ECHOED = ("x-canary-cohort", "x-canary-version")


class App:
    """One running app.

    Args:
        version: what it says it is.
        pod: name of its pod.
        behaviour: how it begins to behave.
    """

    def __init__(self, version: str, pod: str, behaviour: Behaviour) -> None:
        self.version = version
        self.pod = pod
        self.behaviour = behaviour
        self.metrics = AppMetrics(version)
        self.closing = False
        self._connections: set[HttpProtocol] = set()
        self._server: asyncio.Server | None = None
        safe_version, safe_pod = (re.sub(r"[^\x20-\x7e]", "?", text) for text in (version, pod))
        self._headers = f"X-App-Version: {safe_version}\r\nX-App-Pod: {safe_pod}\r\n"

    async def start(self, address: str, port: int) -> int:
        """Listen; returns the port (the kernel's choice for 0)."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: HttpProtocol(self, self._connections), address, port)
        if self.behaviour.crash_after:
            loop.call_later(self.behaviour.crash_after, crash)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """End as a pod should: be of service while the endpoints learn of it, then finish what is under way.

        From here on every answer ends its connection, so that proxies let go of those they keep.
        """
        self.closing = True
        await asyncio.sleep(self.behaviour.lame_duck)
        if self._server is not None:
            self._server.close()
        while self._connections:
            for connection in [connection for connection in self._connections if connection.idle]:
                connection.close()
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request, now or after its latency."""
        match request.path:
            case "/healthz":
                ready = self.behaviour.ready and not self.closing
                reply(Answer(200 if ready else 503, b"ok\n" if ready else b"not ready\n", "text/plain", self._headers))
            case "/metrics":
                reply(Answer(200, self.metrics.render().encode(), CONTENT_TYPE))
            case "/control":
                self._control(request, reply)
            case _:
                self._serve(request, reply)

    def _serve(self, request: Request, reply: Reply) -> None:
        began = time.perf_counter()
        failed = random.random() < self.behaviour.error_rate

        def answer() -> None:
            status = 500 if failed else 200
            self.metrics.observe(request.method, status, time.perf_counter() - began)
            reply(Answer(status, self._body(request, failed=failed), headers=self._headers))

        delay = self.behaviour.latency * random.uniform(0.5, 1.5)
        if request.path == "/slow":
            delay += slow_seconds(request.query.get("seconds", ""))
        if delay:
            asyncio.get_running_loop().call_later(delay, answer)
        else:
            answer()

    def _body(self, request: Request, *, failed: bool) -> bytes:
        told = {name: request.headers[name] for name in _ECHOED if name in request.headers}
        body = {
            "app": "demo-app",
            "version": self.version,
            "pod": self.pod,
            "tenant": request.headers.get("x-tenant-id", ""),
            "told": told,
        }
        if failed:
            body["error"] = "this version fails some of its requests"
        return json.dumps(body).encode()

    def _control(self, request: Request, reply: Reply) -> None:
        if request.method != "POST":
            reply(Answer(405, b"use POST\n", "text/plain", self._headers))
            return
        try:
            self.behaviour = changed(self.behaviour, request.query)
        except BehaviourError as error:
            reply(Answer(400, f"{error}\n".encode(), "text/plain", self._headers))
            return
        now = {name: getattr(self.behaviour, name) for name in ("error_rate", "latency", "ready")}
        reply(Answer(200, json.dumps(now).encode(), headers=self._headers))
        if request.query.get("crash") == "true":
            # After the answer is out.
            asyncio.get_running_loop().call_later(0.05, crash)


def slow_seconds(text: str) -> float:
    """Seconds of ``/slow?seconds=…``: 1 when there is no number, bounded."""
    try:
        seconds = float(text)
    except ValueError:
        return 1.0
    return min(seconds, MAX_SLOW_SECONDS) if seconds >= 0 else 1.0  # also not for nan


def crash() -> None:
    """End at once, as a bug would."""
    sys.stderr.write("crashing on request\n")
    sys.stderr.flush()
    os._exit(CRASH_CODE)


async def serve(environment: Mapping[str, str]) -> None:
    """Run until SIGTERM or SIGINT, then end gracefully."""
    pod = environment.get("POD_NAME") or environment.get("HOSTNAME") or socket.gethostname()
    app = App(version_of(environment), pod, from_environment(environment))
    told_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
    address = environment.get("BIND_ADDRESS") or "127.0.0.1"
    try:
        wanted = int(environment.get("PORT") or DEFAULT_PORT)
    except ValueError as error:
        raise BehaviourError(f"PORT={environment['PORT'][:40]!r} is no port") from error
    port = await app.start(address, wanted)
    print(f"demo-app {app.version} ({app.pod}) on {address}:{port}", flush=True)
    await told_to_end.wait()
    await app.stop()


def main() -> int:
    """Entry point; the exit code says whether the environment could be read."""
    try:
        asyncio.run(serve(os.environ))
    except (BehaviourError, OSError) as error:
        sys.stderr.write(f"demo-app: {error}\n")
        return 2
    return 0
