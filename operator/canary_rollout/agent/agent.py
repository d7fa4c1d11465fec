"""The agent's loops: follow the ConfigMap, bring the proxy to it, renew the Lease, look after the proxy, count requests."""

import asyncio
import contextlib
import math
import random
import time
from typing import Final, Generic

import structlog

from canary_rollout.agent.driver import Counting, Desired, Driver, Station
from canary_rollout.agent.errors import ControlError, LapsedError, LoadError, NotRunningError
from canary_rollout.agent.follow import Backoff, follow
from canary_rollout.kube.port import CONFIG_MAPS, LEASES, ApiError, KubeApi, Object
from canary_rollout.model.units import FULL, format_weight
from canary_rollout.traffic.nginx.ack import Ack, lease_name, to_lease
from canary_rollout.traffic.nginx.document import DocumentError, DocumentType

MANAGER: Final = "canary-rollout-agent"
"""Field manager of the Leases."""
UNKNOWN_STALE_AFTER: Final = 120.0
"""Seconds a Lease holds before the first document has said how long."""
CHECK_EVERY: Final = 1.0
"""Seconds between two looks at nginx: a restart of it is noticed within this."""
REFUSED_AGAIN: Final = 30.0
"""Seconds after which a refused configuration is tried once more."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("agent")


class Agent(Generic[DocumentType]):
    """One agent beside one proxy."""

    def __init__(self, api: KubeApi, station: Station, proxy: Driver[DocumentType], counting: Counting) -> None:
        self._api = api
        self._settings = station.settings
        self._workspace = station.workspace
        self._instruments = station.instruments
        self._proxy = proxy
        self.counting = counting
        self._desired: Desired[DocumentType] | None = None
        self._present = False
        self._unreadable = ""
        self._not_loaded = ""
        self._work = asyncio.Event()
        self._say = asyncio.Event()
        self._applying: asyncio.Task[bool] | None = None
        self._checking: asyncio.Task[bool] | None = None
        self.ready = False
        """Whether nginx has had a good load; stays true from then on."""

    async def run(self) -> None:
        """Run until cancelled. A loop that fails in a way nobody foresaw ends the process, which is started again."""
        self._begin_with_last_good()
        where = (self._settings.namespace, self._settings.config_map)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report())
            group.create_task(follow(self._api, CONFIG_MAPS, where, told=self.told, instruments=self._instruments))
            group.create_task(self._bring())
            group.create_task(self._look_after())
            group.create_task(self.counting.run())

    # What should be

    def _begin_with_last_good(self) -> None:
        """Start from what an earlier run has proved, in case the API server is away."""
        data = self._workspace.last_good()
        if data is None:
            return
        try:
            desired = self._proxy.read(data, None)
            self._proxy.adopt(desired)
        except (DocumentError, LoadError) as error:
            _log.warning("the last good configuration is of no use", error=f"{error}")
            return
        self._desired = desired
        self._work.set()

    def told(self, config_map: Object | None) -> None:
        """The ConfigMap as it is now; ``None``: it is gone, and nothing renews a weight below 100 % from here on."""
        self._present = config_map is not None
        if config_map is None:
            self._refuse(f"ConfigMap {self._settings.config_map} does not exist")
            return
        try:
            desired = self._proxy.read(config_map.get("data") or {}, self._desired)
        except DocumentError as error:
            self._refuse(f"{error}")
            return
        self._unreadable = ""
        before = self._desired
        if desired == before and self._proxy.served.proved:
            return
        self._desired = desired
        lowering = before is not None and desired.document.less_than(before.document)
        if lowering and self._applying is not None:
            self._applying.cancel()
        self._work.set()

    def _refuse(self, reason: str) -> None:
        if reason != self._unreadable:
            _log.error("the ConfigMap is not applied", error=reason)
            self._instruments.failures.labels("read").inc()
        self._unreadable = reason
        self._say.set()

    # Bringing nginx there

    async def _bring(self) -> None:
        backoff = Backoff(longest=1.0)
        delay: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._work.wait()
            self._work.clear()
            if self._checking is not None:
                self._checking.cancel()  # a proxy that is slow to say what it serves holds no change up
            task = self._applying = asyncio.create_task(self._apply())
            try:
                done = await task
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    task.cancel()
                    raise
                continue  # a lowering has taken its place
            except (LapsedError, NotRunningError, ControlError) as error:
                # Stable is what everybody needs: a proxy that serves it is kept in service although nobody can renew.
                self.ready = self.ready or isinstance(error, LapsedError)
                delay = backoff.pause()
                _log.info("the proxy is not there yet", reason=f"{error}")
                continue
            finally:
                self._applying = None
            backoff.reset()
            delay = None if done else REFUSED_AGAIN * random.uniform(0.8, 1.2)

    async def _apply(self) -> bool:
        """Apply what is desired; whether it was taken."""
        async with self._proxy.lock:
            desired = self._desired
            if desired is None:
                return True
            try:
                served = await self._proxy.apply(desired)
            except (LoadError, OSError) as error:
                self._instruments.failures.labels("load").inc()
                _log.error("the configuration is not loaded; the last good one goes on serving", error=f"{error}")
                self._not_loaded = f"{error}"
                self._say.set()
                return False
        document = desired.document
        self._instruments.applied.inc()
        self._instruments.weight.set(document.weight / FULL)
        self.ready = True
        self._not_loaded = served.error
        self.counting.begin(document)
        self._say.set()
        _log.info("applied", weight=format_weight(document.weight), identity=document.identity, mode=served.mode)
        return not served.error

    async def _look_after(self) -> None:
        """Notice a restart of nginx and bring it back to what should be."""
        while True:
            await asyncio.sleep(CHECK_EVERY)
            if self._proxy.lock.locked() or self._applying is not None:
                continue
            task = self._checking = asyncio.create_task(self._check())
            try:
                await asyncio.wait({task})
            finally:
                task.cancel()
            if not task.cancelled() and not task.result() and self._desired is not None:
                self._work.set()

    async def _check(self) -> bool:
        async with self._proxy.lock:
            return await self._proxy.check()

    # Saying so

    def _durations(self) -> list[float]:
        """Seconds a renewal holds: as the proxy has been told, and as it is to be told."""
        states = (self._proxy.served.desired, self._desired)
        return [state.document.stale_after for state in states if state is not None] or [UNKNOWN_STALE_AFTER]

    def _stale_after(self) -> float:
        return min(self._durations())

    async def _report(self) -> None:
        """Renew the Lease on time and at every change; each accepted renewal lengthens the lease inside nginx."""
        backoff = Backoff()
        while True:
            self._say.clear()
            sent = time.time()
            try:
                await self._write_lease(sent)
            except ApiError as error:
                self._instruments.retries.labels("lease").inc()
                pause = min(backoff.pause(), renew_interval(self._stale_after()))
                _log.warning("cannot renew the Lease", error=f"{error}", again_in=round(pause, 1))
                await asyncio.sleep(pause)
                continue
            backoff.reset()
            if self._present or not self._proxy.served.leased:
                await self._lengthen(sent)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(renew_interval(self._stale_after())):
                    await self._say.wait()

    async def _lengthen(self, sent: float) -> None:
        async with self._proxy.lock:
            try:
                await self._proxy.renew(sent)
            except (NotRunningError, ControlError, OSError) as error:
                self._instruments.failures.labels("renew").inc()
                _log.warning("the proxy was not told of the renewal", error=f"{error}")
                return
        self._instruments.lease.set(sent + self._stale_after())

    async def _write_lease(self, sent: float) -> None:
        served = self._proxy.served
        document = served.desired.document if served.desired is not None and served.proved else None
        ack = Ack(
            pod=self._settings.pod,
            config_map=self._settings.config_map,
            rollout=self._desired.document.rollout if self._desired is not None else "",
            applied=document.identity if document is not None else "",
            applied_at=served.at,
            config=document.configuration if document is not None else "",
            mode=served.mode or "",
            weight=served.weight,
            error=self._unreadable or self._not_loaded,
            nginx_version=self._proxy.version,
            renewed=sent,
            # Never shorter than what nginx was told: "the Lease is over" must mean that nginx serves stable.
            duration=math.ceil(max(self._durations())),
        )
        settings = self._settings
        await self._api.apply(
            LEASES,
            settings.namespace,
            lease_name(settings.config_map, settings.pod),
            to_lease(ack, settings.namespace, settings.pod_uid),
            manager=MANAGER,
        )


def renew_interval(stale_after: float) -> float:
    """Seconds between two renewals: a quarter of the time they hold, 30 s at most, so that two may fail unnoticed."""
    return min(30.0, stale_after / 4)
