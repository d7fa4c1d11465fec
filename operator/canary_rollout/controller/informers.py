"""All informers of the operator: which kinds are listed and watched, and who is woken when something there changes."""

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Final, Never

from canary_rollout.controller.informer import FED_BY_KOPF, SWEEP_EVERY, Informer, WatchObserver
from canary_rollout.controller.queue import Key
from canary_rollout.kube.cache import Cache, Change
from canary_rollout.kube.port import CANARY_ROLLOUTS, KubeApi, Resource
from canary_rollout.traffic.port import Watched

_LINGER: Final = 300.0
_PER_ROLLOUT: Final = 8


class Informers:
    """All informers, started and stopped by what the active rollouts read; wakes a rollout when that changes."""

    def __init__(
        self,
        api: KubeApi,
        cache: Cache,
        wake: Callable[[Key], None],
        *,
        namespaces: Iterable[str] = (),
        sweep_every: float = SWEEP_EVERY,
        observer: WatchObserver | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Create the set; nothing is asked before :meth:`start`.

        Args:
            api: the cluster.
            cache: what is filled; this listens to it.
            wake: called with the key of a CanaryRollout that changed or reads what changed.
            namespaces: restrict the operator to these; empty for the whole cluster.
            sweep_every: seconds between full lists of a kind.
            observer: metrics.
            rng: source of the jitter.
        """
        self._api = api
        self._cache = cache
        self._wake = wake
        self._scopes: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._sweep_every = sweep_every
        self._observer = observer
        self._rng = rng or random.Random()
        self._informers: dict[Resource, list[Informer]] = {}
        self._tasks: dict[Resource, list[asyncio.Task[Never]]] = {}
        self._needs: dict[Key, tuple[Watched, ...]] = {}
        self._readers: dict[tuple[Resource, str, str], set[Key]] = {}
        self._groups: dict[tuple[Resource, str, tuple[str, str]], set[Key]] = {}
        self._unneeded: dict[Resource, float] = {}
        self._failed: asyncio.Future[None] | None = None
        cache.listen(self._changed)

    def start(self) -> None:
        """Begin to list what is always needed. Returns at once; see :meth:`primed`."""
        for resource in FED_BY_KOPF:
            self._start(resource)

    async def run(self) -> None:
        """Supervise until cancelled; then stop them all. Raises what an informer raised that it should not have."""
        self._failed = asyncio.get_running_loop().create_future()
        self.start()
        stopper = asyncio.create_task(self._stop_unneeded(), name="stop unneeded informers")
        try:
            await self._failed
        finally:
            tasks = [stopper, *(task for group in self._tasks.values() for task in group)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.clear()
            self._informers.clear()

    def need(self, key: Key, watched: Iterable[Watched]) -> None:
        """Cache what ``key`` reads and wake it when that changes; replaces what it needed before."""
        wanted = tuple(watched)
        if self._needs.get(key) == wanted:
            return
        self._unlink(key)
        self._needs[key] = wanted
        for item in wanted:
            self._index(item).add(key)
            self._unneeded.pop(item.resource, None)
            self._start(item.resource)
        self._note_unneeded()

    def drop(self, key: Key) -> None:
        """``key`` is gone; kinds nobody reads any more are let go after a while."""
        self._unlink(key)
        self._note_unneeded()

    def missing(self, watched: Iterable[Watched]) -> list[str]:
        """What of ``watched`` (and of the kinds always needed) is not completely known yet, one sentence each.

        Of several namespaces those count that something of ``watched`` is in: one whose rights went with it holds up no other.
        """
        lacking: dict[Resource, None] = {}
        namespaces = set()
        for item in watched:
            namespaces.add(item.namespace)
            if not self._cache.primed(item.resource, item.namespace):
                lacking[item.resource] = None
        scopes = [scope for scope in self._scopes if scope is None or scope in namespaces or not namespaces]
        for resource in FED_BY_KOPF:
            if not all(self._cache.primed(resource, scope) for scope in scopes):
                lacking[resource] = None
        return [self._lack(resource) for resource in lacking]

    def absent(self, watched: Iterable[Watched]) -> list[str]:
        """Kinds of ``watched`` that the cluster does not know, one sentence each with what to do."""
        kinds = dict.fromkeys(item.resource for item in watched)
        return [
            f"the cluster does not know {kind.kind} ({kind.api_version}): install what serves it (its CRDs), or choose "
            "another router"
            for kind in kinds
            if any(informer.absent for informer in self._informers.get(kind, ()))
        ]

    def primed(self, watched: Iterable[Watched] = ()) -> bool:
        """Whether everything of ``watched`` and of the kinds always needed has been listed completely."""
        return not self.missing(watched)

    def sweep_now(self, *resources: Resource) -> None:
        """List again soon (all kinds when none is named)."""
        for resource, informers in self._informers.items():
            if not resources or resource in resources:
                for informer in informers:
                    informer.sweep_now()

    def sweep_age(self) -> float:
        """Seconds since the oldest of the kinds was listed completely; infinite while one never was.

        Kinds that the cluster does not know do not count: they concern only the rollouts that name them.
        """
        now = asyncio.get_running_loop().time()
        times = [
            informer.swept_at
            for resource, group in self._informers.items()
            for informer in group
            if not informer.absent or resource in FED_BY_KOPF
        ]
        return max((float("inf") if at is None else now - at for at in times), default=float("inf"))

    def listed_since(self, moment: float) -> bool:
        """Whether everything was listed completely at or after ``moment`` (loop time).

        Kinds that the cluster does not know do not count, nor does one of several namespaces that may not be read.
        """
        several = len(self._scopes) > 1
        return bool(self._informers) and all(
            informer.swept_at is not None and informer.swept_at >= moment
            for resource, group in self._informers.items()
            for informer in group
            if (not informer.absent or resource in FED_BY_KOPF) and not (several and informer.refused)
        )

    def problems(self) -> dict[str, str]:
        """Kinds that cannot be listed or watched at the moment, and why."""
        return {r.plural: i.problem for r, group in self._informers.items() for i in group if i.problem}

    # Inside

    def _lack(self, resource: Resource) -> str:
        problem = next((i.problem for i in self._informers.get(resource, ()) if i.problem), "")
        return f"{resource.plural} not listed yet{': ' + problem if problem else ''}"

    def _start(self, resource: Resource) -> None:
        if resource in self._informers:
            return
        informers = [
            Informer(
                self._api,
                self._cache,
                resource,
                scope if resource.namespaced else None,
                watch=resource not in FED_BY_KOPF,
                sweep_every=self._sweep_every,
                observer=self._observer,
                rng=self._rng,
            )
            for scope in self._scopes
        ]
        self._informers[resource] = informers
        self._tasks[resource] = [
            asyncio.create_task(informer.run(), name=f"informer {resource.plural}") for informer in informers
        ]
        for task in self._tasks[resource]:
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Never]) -> None:
        if not task.cancelled() and (error := task.exception()) and self._failed and not self._failed.done():
            self._failed.set_exception(error)

    def _index(self, item: Watched) -> set[Key]:
        if item.name is not None:
            return self._readers.setdefault((item.resource, item.namespace, item.name), set())
        # Under its last label: ours name the rollout or the Service last, and one is enough to find candidates.
        label = item.labels[-1] if item.labels else ("", "")
        return self._groups.setdefault((item.resource, item.namespace, label), set())

    def _unlink(self, key: Key) -> None:
        for item in self._needs.pop(key, ()):
            self._index(item).discard(key)
        if len(self._readers) > 2 * len(self._needs) * _PER_ROLLOUT + 64:
            self._readers = {place: keys for place, keys in self._readers.items() if keys}
            self._groups = {place: keys for place, keys in self._groups.items() if keys}

    def _changed(self, change: Change) -> None:
        """Wake who reads what changed; a group also when an object leaves it."""
        if change.resource == CANARY_ROLLOUTS:
            self._wake((change.namespace, change.name))
        woken = set(self._readers.get((change.resource, change.namespace, change.name), ()))
        labels = {("", "")}
        for obj in (change.before, change.after):
            if obj is not None:
                labels.update((obj["metadata"].get("labels") or {}).items())
        for label in labels:
            woken |= self._groups.get((change.resource, change.namespace, label), set())
        for key in sorted(woken):
            self._wake(key)

    def _note_unneeded(self) -> None:
        needed = {item.resource for items in self._needs.values() for item in items}
        for resource in self._informers:
            if resource not in needed and resource not in FED_BY_KOPF:
                self._unneeded.setdefault(resource, asyncio.get_running_loop().time())

    async def _stop_unneeded(self) -> None:
        while True:
            await asyncio.sleep(_LINGER / 5)
            now = asyncio.get_running_loop().time()
            for resource in [r for r, since in self._unneeded.items() if now - since >= _LINGER]:
                del self._unneeded[resource], self._informers[resource]
                for task in self._tasks.pop(resource):
                    task.cancel()
                self._cache.forget(resource)
