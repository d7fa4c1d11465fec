"""Kubernetes Events (events.k8s.io/v1): what happened, where people look for it. Never holds a reconcile up.

A repeat of the same Event counts up its series instead of making another one; an object that talks too much is cut
short; what cannot be delivered is counted and logged, not raised.
"""

import asyncio
import random
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import structlog

from canary_rollout.controller.clock import SystemClock, micro_time
from canary_rollout.controller.instruments import Instruments
from canary_rollout.controller.queue import Backoff
from canary_rollout.kube.port import EVENTS, ApiError, Clock, KubeApi, Object, UnavailableError
from canary_rollout.model.conditions import Reason

log: Final = structlog.get_logger(__name__)

CONTROLLER: Final = "canaryrollout.dev/operator"
_WAITING: Final = 1000
_REMEMBERED: Final = 2048
_SERIES_FOR: Final = 600.0
"""Seconds in which a repeat belongs to the same series."""
_COUNT_EVERY: Final = 30.0
"""Seconds between two updates of one series."""
_ATTEMPTS: Final = 4
_NOTE: Final = 1024
_BURST: Final = 25
_REFILL: Final = 15.0
"""Seconds after which an object that talked too much may say one more thing."""

_Same = tuple[str, str, str, str]


@dataclass(slots=True)
class _Series:
    """One Event on the server and how often it happened."""

    namespace: str
    name: str
    first: float
    count: int = 1
    told: float = 0.0


@dataclass(slots=True)
class _Budget:
    """What one object may still say."""

    left: float
    at: float


@dataclass(frozen=True, slots=True)
class _Happening:
    """One call of :meth:`Recorder.event`."""

    regarding: Object
    reason: Reason
    note: str
    warning: bool
    at: float

    @property
    def same(self) -> _Same:
        return (self.regarding["uid"], self.reason, "Warning" if self.warning else "Normal", self.note)


class Recorder:
    """``event()`` from anywhere on the loop; :meth:`run` beside it delivers."""

    def __init__(
        self,
        api: KubeApi,
        instruments: Instruments,
        *,
        instance: str,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Create it.

        Args:
            api: the cluster.
            instruments: counts.
            instance: this replica (``reportingInstance``).
            clock: wall time.
            rng: source of the jitter.
        """
        self._api = api
        self._instruments = instruments
        self._instance = instance[:128]
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._backoff = Backoff(first=0.5, longest=10.0)
        self._waiting: asyncio.Queue[_Happening] = asyncio.Queue(maxsize=_WAITING)
        self._series: OrderedDict[_Same, _Series] = OrderedDict()
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()

    def event(self, rollout: Object, reason: Reason, message: str, *, warning: bool = False) -> None:
        """Say that something happened to a CanaryRollout. Returns at once, whatever the API server does."""
        metadata = rollout["metadata"]
        regarding = {
            "apiVersion": rollout.get("apiVersion", ""),
            "kind": rollout.get("kind", ""),
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
        }
        if not self._may_say(regarding["uid"]):
            self._failed("spam", regarding, reason, "too many Events for one object")
            return
        note = message if len(message) <= _NOTE else message[: _NOTE - 1] + "…"
        try:
            self._waiting.put_nowait(_Happening(regarding, reason, note, warning, self._clock.now()))
        except asyncio.QueueFull:
            self._failed("full", regarding, reason, "too many Events wait for the API server")
            return
        self._instruments["canary_rollout_events_total"].labels(str(reason)).inc()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            happening = await self._waiting.get()
            await self._deliver(happening)
            self._waiting.task_done()

    async def flush(self, seconds: float = 3.0) -> None:
        """Wait until everything said so far is delivered, but not longer than that. :meth:`run` must be running."""
        try:
            async with asyncio.timeout(seconds):
                await self._waiting.join()
        except TimeoutError:
            log.warning("events left undelivered", waiting=self._waiting.qsize())

    # Inside

    def _may_say(self, uid: str) -> bool:
        """A token bucket per object."""
        now = self._clock.now()
        budget = self._budgets.setdefault(uid, _Budget(_BURST, now))
        self._budgets.move_to_end(uid)
        if len(self._budgets) > _REMEMBERED:
            self._budgets.popitem(last=False)
        budget.left = min(_BURST, budget.left + max(0.0, now - budget.at) / _REFILL)
        budget.at = now
        if budget.left < 1:
            return False
        budget.left -= 1
        return True

    async def _deliver(self, happening: _Happening) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._send(happening)
            except UnavailableError as error:
                if attempt == _ATTEMPTS:
                    self._failed("unavailable", happening.regarding, happening.reason, str(error))
                    return
                self._instruments["canary_rollout_retries_total"].labels("event").inc()
                await asyncio.sleep(max(error.retry_after, self._backoff.delay(attempt, self._rng)))
            except ApiError as error:
                self._series.pop(happening.same, None)
                self._failed("refused", happening.regarding, happening.reason, str(error))
                return
            else:
                return

    async def _send(self, happening: _Happening) -> None:
        series = self._series.get(happening.same)
        if series is None or happening.at - series.first > _SERIES_FOR:
            await self._create(happening)
            return
        series.count += 1
        if happening.at - series.told < _COUNT_EVERY:
            return
        body = {"series": {"count": series.count, "lastObservedTime": micro_time(happening.at)}}
        try:
            await self._api.merge_patch(EVENTS, series.namespace, series.name, body)
        except UnavailableError:
            series.count -= 1  # it will be counted by the next attempt
            raise
        series.told = happening.at

    async def _create(self, happening: _Happening) -> None:
        regarding = happening.regarding
        name = f"{regarding['name'][:200]}.{secrets.token_hex(8)}"
        body: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": regarding["namespace"]},
            "eventTime": micro_time(happening.at),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "reason": str(happening.reason),
            "regarding": regarding,
            "note": happening.note,
            "type": "Warning" if happening.warning else "Normal",
        }
        await self._api.create(EVENTS, regarding["namespace"], body)
        self._series[happening.same] = _Series(regarding["namespace"], name, first=happening.at)
        if len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)

    def _failed(self, why: str, regarding: Object, reason: Reason, error: str) -> None:
        self._instruments["canary_rollout_event_failures_total"].labels(why).inc()
        log.warning(
            "event not delivered",
            namespace=regarding["namespace"],
            rollout=regarding["name"],
            reason=str(reason),
            error=error,
        )
