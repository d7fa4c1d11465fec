"""kopf's part: it watches CanaryRollouts and Deployments, and hands every event to the cache. It writes nothing.

kopf runs on a thread with an event loop of its own, because ``kopf.operator()`` takes over the signal handlers of the
loop it runs on and cancels every task that was created after it started, ours among them. An event crosses over with
``call_soon_threadsafe``. When kopf dies (it does, on a watch error other than 410) it is started again with back-off,
counted, and what may have been missed is listed again.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import kopf
import structlog

from canary_rollout.controller.informer import FED_BY_KOPF, WatchObserver, feed
from canary_rollout.controller.queue import Backoff
from canary_rollout.kube.cache import Cache
from canary_rollout.kube.client import Client, Connection
from canary_rollout.kube.port import Resource

log: Final = structlog.get_logger(__name__)

_CALM: Final = 60.0
"""Seconds after which a kopf that still runs counts as healthy again."""
_STOP_WITHIN: Final = 8.0


def kopf_settings() -> kopf.OperatorSettings:
    """Settings under which kopf is a passive watcher: no peering, no Events, no scanning of CRDs, every call with a limit."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.server_timeout = 290
    settings.watching.connect_timeout = 5
    settings.watching.chunk_size = 500
    # A worker task lives this long after the last event of its object; five seconds of them are thousands of tasks.
    settings.queueing.idle_timeout = 1
    # kopf would SIGKILL our thread, and so the process, ten minutes after it was stopped.
    settings.process.ultimate_exiting_timeout = None
    return settings


def connection_info(connection: Connection) -> kopf.ConnectionInfo:
    """Our credentials in kopf's words."""
    scheme, _, token = (connection.authorization or "").partition(" ")
    return kopf.ConnectionInfo(
        server=connection.server,
        ca_path=connection.ca_path,
        insecure=not connection.verify,
        scheme=scheme.capitalize() or None,
        token=token or None,
        certificate_path=connection.certificate_path,
        private_key_path=connection.key_path,
        proxy_url=connection.proxy,
    )


@dataclass
class _Life:
    """One run of kopf."""

    ended: asyncio.Future[BaseException | None]
    ready: bool = False
    thread: threading.Thread | None = None
    loop: asyncio.AbstractEventLoop | None = None
    operator: asyncio.Task[None] | None = None
    stopping: threading.Event = field(default_factory=threading.Event)


class KopfWatch:
    """Runs kopf, supervised. :meth:`run` never returns by itself."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        *,
        namespaces: Iterable[str] = (),
        resources: Iterable[Resource] = FED_BY_KOPF,
        on_restart: Callable[[], None] | None = None,
        observer: WatchObserver | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Create it.

        Args:
            client: whose credentials kopf uses.
            cache: what is filled (on the loop that runs :meth:`run`).
            namespaces: restrict the watch to these; empty for the whole cluster.
            resources: what is watched.
            on_restart: called before kopf starts again, to list what may have been missed.
            observer: metrics.
            rng: source of the jitter.
        """
        self._client = client
        self._cache = cache
        self._namespaces = tuple(namespaces)
        self._resources = tuple(resources)
        self._on_restart = on_restart
        self._observer = observer
        self._rng = rng or random.Random()
        self._backoff = Backoff(first=1.0, longest=30.0)
        self._life: _Life | None = None
        self._ready = asyncio.Event()
        self.restarts = 0
        """How often kopf died and was started again."""

    @property
    def alive(self) -> bool:
        """Whether kopf runs at the moment."""
        life = self._life
        return life is not None and life.ready and not life.ended.done()

    async def ready(self) -> None:
        """Wait until kopf has started for the first time (its lists may still be under way)."""
        await self._ready.wait()

    async def run(self) -> None:
        """Run kopf until cancelled, starting it again whenever it dies."""
        loop = asyncio.get_running_loop()
        failures = 0
        try:
            while True:
                began = loop.time()
                self._life = self._start(loop)
                # Shielded: cancelling us must not look like the end of the thread.
                error = await asyncio.shield(self._life.ended)
                failures = 1 if loop.time() - began > _CALM else failures + 1
                self.restarts += 1
                reason = type(error).__name__ if error is not None else "ended"
                log.error("kopf stopped, starting it again", reason=reason, error=str(error or ""))
                if self._observer is not None:
                    self._observer.watch_restarted("kopf", reason)
                await asyncio.sleep(self._backoff.delay(failures, self._rng))
                if self._on_restart is not None:
                    self._on_restart()
        finally:
            await self._stop()

    # Inside

    def _start(self, loop: asyncio.AbstractEventLoop) -> _Life:
        life = _Life(ended=loop.create_future())
        life.thread = threading.Thread(target=self._thread, args=(life, loop), name="kopf", daemon=True)
        life.thread.start()
        return life

    def _thread(self, life: _Life, main: asyncio.AbstractEventLoop) -> None:
        """The thread: a loop of its own around ``kopf.operator()``."""
        error: BaseException | None = None
        try:
            asyncio.run(self._operate(life, main))
        except BaseException as raised:  # noqa: BLE001 - whatever ended the thread is handed to the supervisor, who acts
            error = raised

        def end() -> None:
            if not life.ended.done():
                life.ended.set_result(error)

        if not main.is_closed():
            main.call_soon_threadsafe(end)

    async def _operate(self, life: _Life, main: asyncio.AbstractEventLoop) -> None:
        life.loop = asyncio.get_running_loop()
        life.loop.set_exception_handler(_left_behind)
        if life.stopping.is_set():
            return
        started = asyncio.Event()
        # Stopped by cancelling it: its stop flag leaves a task behind, for which kopf then waits five seconds.
        life.operator = asyncio.create_task(
            kopf.operator(
                registry=self._registry(main),
                settings=kopf_settings(),
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                ready_flag=started,
            )
        )
        if life.stopping.is_set():  # asked for between the first look and the task that it would have cancelled
            life.operator.cancel()
        ready = asyncio.create_task(started.wait())
        await asyncio.wait((life.operator, ready), return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            main.call_soon_threadsafe(self._started, life)
        ready.cancel()
        await life.operator

    def _started(self, life: _Life) -> None:
        life.ready = True
        self._ready.set()

    def _registry(self, main: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            return connection_info(await self._client.connection())

        for resource in self._resources:
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(
                self._handler(resource, main)
            )
        return registry

    def _handler(self, resource: Resource, main: asyncio.AbstractEventLoop) -> Any:
        async def on_event(event: Any, **_: Any) -> None:
            main.call_soon_threadsafe(feed, self._cache, resource, event["type"], event["object"])

        return on_event

    async def _stop(self) -> None:
        life, self._life = self._life, None
        if life is None or life.ended.done():
            return
        life.stopping.set()
        if life.loop is not None and life.operator is not None and not life.loop.is_closed():
            life.loop.call_soon_threadsafe(life.operator.cancel)
        try:
            async with asyncio.timeout(_STOP_WITHIN):
                await asyncio.shield(life.ended)
        except TimeoutError:
            log.warning("kopf did not stop in time; it ends with the process", seconds=_STOP_WITHIN)


def _left_behind(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tasks that kopf leaves with their errors when it dies of one; the error itself is told by the supervisor.

    Said without a traceback: asyncio's own handler formats one, in whatever thread the garbage is collected, and
    CPython 3.11 gets confused when that happens inside a compilation (gh-106905).
    """
    log.debug("left behind by kopf", what=context.get("message"), error=str(context.get("exception") or ""))
