"""Own lists and watches: they prime the cache before anything is decided, sweep it for ever, and feed what kopf does not.

One :class:`Informer` per kind (and namespace, in namespaced mode). Kinds that carry our label are watched with a
server-side selector; Services, EndpointSlices and Ingresses are only watched while some rollout reads them. kopf feeds
CanaryRollouts and Deployments (``watch.py``); for those an informer only lists and sweeps, because kopf neither says
when its first list is complete nor tells of deletions it missed.
"""

import asyncio
import random
from contextlib import aclosing
from typing import Any, Final, Never, Protocol, cast

import structlog

from canary_rollout.controller.queue import Backoff
from canary_rollout.kube.cache import Cache, Sweep
from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    LEASES,
    MANAGED_BY,
    OPERATOR,
    ApiError,
    ForbiddenError,
    GoneError,
    KubeApi,
    NotFoundError,
    Object,
    Resource,
    UnavailableError,
)

log: Final = structlog.get_logger(__name__)

FED_BY_KOPF: Final = (CANARY_ROLLOUTS, DEPLOYMENTS)
"""Always cached; watched by kopf, listed and swept here."""
SELECTORS: Final[dict[Resource, str]] = {
    CONFIG_MAPS: f"{MANAGED_BY}={OPERATOR}",
    LEASES: f"{MANAGED_BY}={OPERATOR}",
}
"""Kinds of which only our own objects are cached."""
SWEEP_EVERY: Final = 300.0
_WATCH_FOR: Final = 290.0
_RELIST_AFTER: Final = 5
"""Broken watches in a row after which the kind is listed again."""


class WatchObserver(Protocol):
    """Told how the watches fare, for metrics. Must not block."""

    def watch_restarted(self, what: str, reason: str) -> None:
        """A watch (kind's plural, or ``kopf``) broke and is started again."""
        ...

    def swept(self, resource: Resource, sweep: Sweep, *, first: bool) -> None:
        """A list was taken in; after the ``first`` one, whatever it changed had been missed by the watch."""
        ...


class Informer:
    """Keeps one kind in one scope in the cache: list, watch from there, list again every few minutes."""

    def __init__(  # noqa: PLR0913 - wiring; most have defaults
        self,
        api: KubeApi,
        cache: Cache,
        resource: Resource,
        namespace: str | None = None,
        *,
        watch: bool = True,
        sweep_every: float = SWEEP_EVERY,
        observer: WatchObserver | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Create it; :meth:`run` does the work.

        Args:
            api: the cluster.
            cache: what is filled.
            resource: the kind.
            namespace: ``None`` for all.
            watch: ``False`` when somebody else feeds the changes.
            sweep_every: seconds between lists, jittered.
            observer: metrics.
            rng: source of the jitter.
        """
        self._api = api
        self._cache = cache
        self._resource = resource
        self._namespace = namespace
        self._labels = SELECTORS.get(resource, "")
        self._watch = watch
        self._sweep_every = sweep_every
        self._observer = observer
        self._rng = rng or random.Random()
        self._backoff = Backoff(first=0.5, longest=30.0)
        self._sweep_now = asyncio.Event()
        self.swept_at: float | None = None
        """Loop time of the last complete list."""
        self.problem = ""
        """Why the kind cannot be listed or watched at the moment; empty when it can."""
        self.absent = False
        """Whether the cluster does not know the kind (its CRD is not installed); asked again with back-off."""
        self.refused = False
        """Whether it may not be listed here; asked again with back-off."""

    def sweep_now(self) -> None:
        """List again soon: something may have been missed."""
        self._sweep_now.set()

    async def run(self) -> Never:
        """Work until cancelled; outages are waited out with back-off."""
        failures = 0
        while True:
            try:
                version = await self._sweep()
                failures = 0
                await self._follow(version)
            except GoneError:
                self._restarted("gone")
            except ApiError as error:
                failures += 1
                self.problem = str(error)
                self.absent, self.refused = isinstance(error, NotFoundError), isinstance(error, ForbiddenError)
                self._restarted(type(error).__name__)
                log.warning("cannot list, trying again", resource=self._resource.plural, error=str(error))
                await asyncio.sleep(_delay(self._backoff, failures, error, self._rng))

    # Inside

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _sweep(self) -> str:
        self._sweep_now.clear()
        items, version = await self._api.list_all(self._resource, self._namespace, labels=self._labels)
        sweep = self._cache.replace(self._resource, self._namespace, items, version)
        first, self.swept_at, self.problem = self.swept_at is None, self._now(), ""
        self.absent = self.refused = False
        if self._observer is not None:
            self._observer.swept(self._resource, sweep, first=first)
        return version

    async def _follow(self, version: str) -> None:
        """Keep up until the next sweep is due."""
        due = self._now() + self._sweep_every * self._rng.uniform(0.9, 1.1)
        if not self._watch:
            await self._idle(due)
            return
        failures = 0
        while (left := due - self._now()) > 1 and not self._sweep_now.is_set():
            try:
                version, heard = await self._watch_once(version, min(left, _WATCH_FOR))
                failures = 0 if heard else failures
                self.problem = ""
            except UnavailableError as error:
                failures += 1
                if failures >= _RELIST_AFTER:
                    raise
                self.problem = str(error)
                self._restarted(type(error).__name__)
                await asyncio.sleep(_delay(self._backoff, failures, error, self._rng))

    async def _idle(self, due: float) -> None:
        try:
            async with asyncio.timeout_at(due):
                await self._sweep_now.wait()
        except TimeoutError:
            return

    async def _watch_once(self, version: str, seconds: float) -> tuple[str, bool]:
        """One watch until its end: the resourceVersion to go on from, and whether anything was heard."""
        heard = False
        stream = self._api.watch(
            self._resource, self._namespace, resource_version=version, labels=self._labels, timeout=max(1.0, seconds)
        )
        began = self._now()
        # The protocol promises an iterator; what is closed here is the generator behind it, and with it the connection.
        async with aclosing(cast("Any", stream)):
            async for kind, obj in stream:
                heard = True
                version = obj["metadata"]["resourceVersion"]
                feed(self._cache, self._resource, kind, obj)
                if self._sweep_now.is_set():
                    return version, heard
        if not heard and self._now() - began < 1:
            await asyncio.sleep(
                self._rng.uniform(0.5, 1.0)
            )  # a server that ends watches at once is not asked in a loop
        return version, heard

    def _restarted(self, reason: str) -> None:
        if self._observer is not None:
            self._observer.watch_restarted(self._resource.plural, reason)


def feed(cache: Cache, resource: Resource, kind: str | None, obj: Object) -> None:
    """Take one watch event into the cache. ``kind`` is ``None`` for the initial listing of kopf."""
    if kind == "BOOKMARK":
        return
    metadata = obj["metadata"]
    if kind == "DELETED":
        version = metadata.get("resourceVersion", "")
        cache.remove(resource, metadata.get("namespace"), metadata["name"], resource_version=version)
    else:
        cache.record(resource, obj, quiet=False)


def _delay(backoff: Backoff, failures: int, error: ApiError, rng: random.Random) -> float:
    asked = error.retry_after if isinstance(error, UnavailableError) else 0.0
    return max(asked, backoff.delay(failures, rng))
