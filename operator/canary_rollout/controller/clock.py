"""The operator's two clocks: wall time for what is written down, monotonic time for what is measured."""

import time
from datetime import UTC, datetime


class SystemClock:
    """:class:`kube.port.Clock` of this machine."""

    def now(self) -> float:
        """POSIX seconds."""
        return time.time()


def monotonic() -> float:
    """Seconds that only go forward, and also while the machine sleeps (Linux' BOOTTIME where there is one)."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def micro_time(posix: float) -> str:
    """POSIX seconds as Kubernetes' MicroTime (``2026-01-02T03:04:05.678901Z``)."""
    return datetime.fromtimestamp(posix, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
