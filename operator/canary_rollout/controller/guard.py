"""Whether a raise may be sent: the Lease is surely ours, and our clock agrees with the API server's.

Two clocks are compared through the ``Date`` of every answer. It has whole seconds and was written between our sending
and receiving, so each answer bounds the difference by an interval; only an interval that lies wholly beyond the
tolerance is proof. A wall clock that is set between two answers is noticed against the monotonic one. While it is off,
the API server's time counts for everything else (:class:`AgreedClock`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from canary_rollout.controller.clock import monotonic
from canary_rollout.kube.port import Clock

TOLERANCE: Final = 2.0
"""Seconds by which our clock may differ from the API server's."""
_STALE: Final = 120.0
"""Age in seconds after which the last answer says nothing about the clock any more."""
_SLOW: Final = 5.0
"""An answer that took longer than this bounds the clock too loosely to replace a good one."""


_DRIFT: Final = 0.001
"""Seconds per second by which two clocks may drift apart between answers."""


class Fence(Protocol):
    """The part of the Lease the guard asks."""

    def valid(self) -> bool:
        """Whether nobody else can hold the Lease now."""
        ...


@dataclass(frozen=True, slots=True)
class _Bound:
    """Server time minus monotonic time lies in [low, high]; learned at monotonic ``at``."""

    low: float
    high: float
    at: float


class Guard:
    """Feed it with :meth:`server_date`; ask it with :meth:`refusal` right before a raise is sent."""

    def __init__(
        self,
        fence: Fence,
        *,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = monotonic,
        tolerance: float = TOLERANCE,
    ) -> None:
        self._fence = fence
        self._wall = wall
        self._mono = mono
        self._tolerance = tolerance
        self._bound: _Bound | None = None

    def server_date(self, server: float, sent: float, received: float) -> None:
        """Learn from one answer: the server's ``Date`` (whole POSIX seconds) and our wall clock around the call."""
        if received - sent > _SLOW or received < sent:
            return
        # The server's clock showed something in [server, server + 1) at some moment between sent and received, and
        # ``received`` is now.
        now = self._mono()
        low, high = server - now, server + 1 + (received - sent) - now
        if (old := self._bound) is not None:
            # Answers come at different fractions of a second: together they bound the difference to milliseconds.
            slack = _DRIFT * (now - old.at)
            if max(low, old.low - slack) <= min(high, old.high + slack):
                low, high = max(low, old.low - slack), min(high, old.high + slack)
        self._bound = _Bound(low, high, at=now)

    def skew(self) -> float:
        """Seconds our wall clock is surely ahead (+) or behind (-) of the API server's; 0 while they may agree."""
        bound, now = self._bound, self._mono()
        if bound is None or now - bound.at > _STALE:
            return 0.0
        server_low, server_high = bound.low + now, bound.high + now
        wall = self._wall()
        return max(0.0, wall - server_high) or min(0.0, wall - server_low)

    def clock_ok(self) -> bool:
        """Whether the clock is not proved to be off by more than the tolerance."""
        return abs(self.skew()) <= self._tolerance

    def agreed(self, wall: float) -> float:
        """``wall`` as the API server would tell it, where our clock is proved to be off; else as it is (POSIX seconds).

        What is written into a status by a clock that runs ahead would hold long after it was put right: a hold counted to its
        end, requests cut off in their drain, verdicts ignored because they are older than the moment they count from.
        """
        skew = self.skew()
        return wall - skew if abs(skew) > self._tolerance else wall

    def refusal(self) -> str:
        """Why no raise may be sent now, one sentence; empty when it may."""
        if not self._fence.valid():
            return "this replica's Lease may have run out; no weight is raised until it is renewed"
        if not self.clock_ok():
            skew = self.skew()
            return (
                f"this node's clock is at least {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the API server's "
                f"(limit {self._tolerance:g} s); no weight is raised until the clocks agree: check NTP on the node"
            )
        return ""


@dataclass(frozen=True, slots=True)
class AgreedClock:
    """:class:`kube.port.Clock` for everything that is decided and written down.

    Attributes:
        clock: of this machine.
        guard: knows how far it is off.
    """

    clock: Clock
    guard: Guard

    def now(self) -> float:
        """POSIX seconds."""
        return self.guard.agreed(self.clock.now())
