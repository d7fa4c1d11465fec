"""Who acts: one Lease, held by one replica, lost rather than held by two.

The holder renews every :attr:`LeaseTimes.retry` seconds and counts from the moment *before* a renewal was sent; it stops
being :meth:`Lease.valid` after ``renew_deadline`` without one. A candidate takes the Lease when it has not changed for the
``duration`` written in it. Since it only looks every ``retry`` seconds, it counts from its last look at the old renewal
(at most one ``retry`` back), and begins a second early, so that a takeover is over within the ``duration`` of a death.
All of that is by clocks that never go back and leaves more than ``renew_deadline`` after any renewal, so the first stops
before the second begins. Every write is fenced by resourceVersion.

kubernetes.aio.leaderelection does not do: a connection error escapes it without stopping the leading task, and it
compares wall clocks.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Never

import structlog

from canary_rollout.controller.clock import SystemClock, micro_time, monotonic
from canary_rollout.errors import CanaryRolloutError
from canary_rollout.kube.port import (
    LEASES,
    ApiError,
    Clock,
    ConflictError,
    KubeApi,
    NotFoundError,
    Object,
)

log: Final = structlog.get_logger(__name__)

_JITTER: Final = 1.2
"""Pauses are ``retry`` times 1 to this."""
_EARLY: Final = 1.0


class LeaseLostError(CanaryRolloutError):
    """The Lease may belong to somebody else by now; the process has to end without another write."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds. ``call`` is the longest wait for one answer, so that one hanging call does not cost the Lease."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0
    call: float = 3.0

    def __post_init__(self) -> None:
        earliest = self.duration - self.retry * _JITTER - _EARLY
        if not 0 < self.retry < self.renew_deadline < earliest:
            raise ValueError(
                f"lease times rise: retry < renew_deadline < duration - {_JITTER:g} * retry - {_EARLY:g}, found {self}"
            )


class Lease:
    """``await acquire()``, then ``await keep()`` beside the work, then ``await release()``."""

    def __init__(  # noqa: PLR0913 - wiring; all but the name have defaults
        self,
        api: KubeApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
        on_lost: Callable[[str], None] | None = None,
        clock: Clock | None = None,
        mono: Callable[[], float] = monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Create a candidate.

        Args:
            api: where the Lease lives.
            namespace: of the Lease.
            name: of the Lease (one per shard).
            identity: of this pod, the same after a restart of its container: its own Lease is taken back at once.
            times: durations.
            on_lost: called at once, before anything is awaited, with the reason; ends the process.
            clock: wall time, for the times written into the Lease (they inform people; nothing compares them).
            mono: seconds that never go back.
            rng: source of the jitter.
        """
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times or LeaseTimes()
        self._on_lost = on_lost
        self._clock = clock or SystemClock()
        self._mono = mono
        self._rng = rng or random.Random()
        self._renewed: float | None = None
        self._acquired = ""
        self._version = ""
        self._seen: tuple[str, float] | None = None
        self._looked: float | None = None
        self._due: float | None = None
        self.term = 0
        """Counts the times this process acquired the Lease; 0 before the first."""
        self.acquired_at = 0.0
        """Monotonic seconds of the last acquisition: what was read before belongs to an older term."""
        self.holder = ""
        """Identity of the holder as last seen."""

    @property
    def held(self) -> bool:
        """Whether this process took the Lease and has not lost or released it. For acting, ask :meth:`valid`."""
        return self._renewed is not None

    def valid(self) -> bool:
        """Whether nobody else can hold the Lease now; a raise is not sent otherwise."""
        return self._renewed is not None and self._mono() - self._renewed < self._times.renew_deadline

    async def acquire(self) -> int:
        """Wait until the Lease is ours; the new term. Outages of the API are waited out."""
        while True:
            try:
                if await self._try():
                    self.term += 1
                    self.acquired_at = self._mono()
                    log.info("lease acquired", lease=self._name, identity=self._identity, term=self.term)
                    return self.term
            except (ApiError, TimeoutError) as error:
                log.warning("lease not readable, trying again", lease=self._name, error=_text(error))
            await self._pause(self._due)

    async def keep(self) -> Never:
        """Renew until it cannot be done in time.

        Raises:
            LeaseLostError: the Lease was taken by somebody else, or may have been.
        """
        while True:
            await self._pause()
            if not self.valid():
                self._lose(f"not renewed for {self._times.renew_deadline:g} s")
            try:
                await self._renew()
            except (ApiError, TimeoutError) as error:
                log.warning("lease not renewed, trying again", lease=self._name, error=_text(error))
            # Asked again at once: the answer may have come after a freeze.
            if not self.valid():
                self._lose(f"not renewed for {self._times.renew_deadline:g} s")

    async def release(self) -> None:
        """Give the Lease back so that another replica need not wait for it to run out. Never fails."""
        if not self.valid():
            self._renewed = None
            return
        self._renewed = None  # before the write: nothing may be raised once it is on its way
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(self._clock.now())}
        try:
            try:
                await self._write(spec)
            except ConflictError:
                # A renewal that was cancelled on its way took effect all the same.
                lease = await self._call(self._api.get(LEASES, self._namespace, self._name))
                if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                    self._version = lease["metadata"]["resourceVersion"]
                    await self._write(spec)
        except (ApiError, TimeoutError) as error:
            log.warning("lease not released; it runs out by itself", lease=self._name, error=_text(error))

    # Inside

    async def _pause(self, until: float | None = None) -> None:
        """Sleep for about ``retry``, or until that moment if it comes first."""
        pause = self._times.retry * self._rng.uniform(1.0, _JITTER)
        if until is not None:
            pause = min(pause, max(0.05, until - self._mono()))
        await asyncio.sleep(pause)

    async def _try(self) -> bool:
        """One attempt to take the Lease."""
        self._due = None
        try:
            lease = await self._call(self._api.get(LEASES, self._namespace, self._name))
        except NotFoundError:
            return await self._create()
        spec = lease.get("spec") or {}
        self._version = lease["metadata"]["resourceVersion"]
        self.holder = spec.get("holderIdentity") or ""
        if self.holder in {"", self._identity} or self._run_out(spec):
            return await self._take(spec)
        return False

    def _run_out(self, spec: Object) -> bool:
        """Whether the Lease has not changed for as long as its holder asked for, by our own clock."""
        now = self._mono()
        if self._seen is None or self._seen[0] != self._version:
            # It changed after the look before this one; how long after, only the holder knows.
            before = now if self._looked is None else self._looked
            self._seen = (self._version, max(before, now - self._times.retry * _JITTER))
        self._looked = now
        asked = float(spec.get("leaseDurationSeconds") or self._times.duration)
        self._due = self._seen[1] + max(asked, self._times.duration) - _EARLY
        return now >= self._due

    async def _create(self) -> bool:
        sent = self._mono()
        self._acquired = micro_time(self._clock.now())
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            # Without our label: the informer of the agents' Leases would otherwise be told of every renewal.
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": self._spec(transitions=0),
        }
        try:
            lease = await self._call(self._api.create(LEASES, self._namespace, body))
        except ConflictError:
            return False
        self._took(lease, sent)
        return True

    async def _take(self, spec: Object) -> bool:
        sent = self._mono()
        self._acquired = micro_time(self._clock.now())
        transitions = int(spec.get("leaseTransitions") or 0) + (spec.get("holderIdentity") != self._identity)
        try:
            lease = await self._write(self._spec(transitions=transitions))
        except ConflictError:
            return False
        self._took(lease, sent)
        return True

    def _spec(self, *, transitions: int) -> Object:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._times.duration),
            "acquireTime": self._acquired,
            "renewTime": self._acquired,
            "leaseTransitions": transitions,
        }

    def _took(self, lease: Object, sent: float) -> None:
        self._version = lease["metadata"]["resourceVersion"]
        self._renewed = sent
        self._seen = None
        self.holder = self._identity

    async def _renew(self) -> None:
        sent = self._mono()
        try:
            lease = await self._write({"renewTime": micro_time(self._clock.now())})
        except ConflictError:
            # Either a renewal of ours took effect without an answer, or somebody else was here.
            lease = await self._call(self._api.get(LEASES, self._namespace, self._name))
            spec = lease.get("spec") or {}
            if (spec.get("holderIdentity"), spec.get("acquireTime")) != (self._identity, self._acquired):
                self.holder = spec.get("holderIdentity") or ""
                self._lose(f"taken by {self.holder or 'nobody'}")
            self._version = lease["metadata"]["resourceVersion"]
            return  # that renewal was counted from no moment we know; the next one will be
        except NotFoundError:
            self._lose("the Lease was deleted")
        self._version = lease["metadata"]["resourceVersion"]
        self._renewed = sent

    async def _write(self, spec: Object) -> Object:
        body = {"metadata": {"resourceVersion": self._version}, "spec": spec}
        return await self._call(self._api.merge_patch(LEASES, self._namespace, self._name, body))

    async def _call(self, call: Awaitable[Object]) -> Object:
        async with asyncio.timeout(self._times.call):
            return await call

    def _lose(self, reason: str) -> Never:
        self._renewed = None
        log.error("lease lost", lease=self._name, identity=self._identity, reason=reason)
        if self._on_lost is not None:
            self._on_lost(reason)
        raise LeaseLostError(
            f"Lease {self._namespace}/{self._name} lost: {reason}; this process must end and start again"
        )


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
