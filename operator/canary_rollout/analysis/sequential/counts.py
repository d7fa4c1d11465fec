"""What the comparison eats: counts per pod and tick."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Arm = Literal["canary", "stable"]
"""Which version a series belongs to."""

REQUESTS: Final = "requests"
ERRORS: Final = "errors"
BUCKET: Final = "latency_bucket"
GAUGE: Final = "gauge:"
"""The series of a raw sample; a gauge's name follows its prefix."""

TENANT_BUCKET: Final = "bucket:"
"""Prefix of a "pod" that is a bucket of tenants (``bucket:0`` to ``bucket:999``), as the agent counts sticky stages."""


@dataclass(frozen=True, slots=True)
class RawSample:
    """One sample as it was scraped: cumulative for counters and buckets, the value itself for gauges.

    Attributes:
        ts: when it was scraped, POSIX seconds.
        arm: ``canary`` or ``stable``.
        pod: the pod's name, or ``bucket:N``.
        series: ``requests``, ``errors``, ``latency_bucket`` or ``gauge:NAME``.
        value: requests, failed requests, requests that took at most ``le`` seconds, or the gauge's value.
        le: the bucket's upper edge in seconds; ``inf`` for the last; only with ``latency_bucket``.
        created: when the pod was started, POSIX seconds; ``None`` when unknown.
        arrival: when it became known, POSIX seconds; ``None``: at ``ts``.
    """

    ts: float
    arm: Arm
    pod: str
    series: str
    value: float
    le: float | None = None
    created: float | None = None
    arrival: float | None = None


@dataclass(frozen=True, slots=True)
class PodCounts:
    """What one pod (or one bucket of tenants) did since the tick before: increments, never negative.

    Attributes:
        pod: its name, or ``bucket:N``.
        requests: requests.
        errors: requests that failed.
        slow: by bucket edge (seconds), requests that took longer. Empty while the pod warms up.
        timed: requests that ``slow`` is a part of; ``None``: ``requests``.
        span: ticks that the increments cover: 1, or more after missed scrapes.
        behind: ticks between the last one they cover and this one: 0, or more when a scrape arrived late.
        reckoned: requests per tick that were laid to its account (``Tick.absent``) while nothing of it had arrived.
        scraped_at: when the values were scraped, POSIX seconds; ``None`` where only the time of the query is known.
    """

    pod: str
    requests: float
    errors: float
    slow: Mapping[float, float] = field(default_factory=dict)
    timed: float | None = None
    span: int = 1
    scraped_at: float | None = None
    behind: int = 0
    reckoned: float = 0.0


@dataclass(frozen=True, slots=True)
class Tick:
    """One evaluation's counts of both versions. Pods without a new sample are left out.

    Attributes:
        at: time of the evaluation, POSIX seconds; the same for both versions.
        weight: basis points in force.
        canary: the canary's pods.
        stable: stable's pods.
        gauges: by name, version (``canary`` or ``stable``) and pod, the latest value.
        complete: ``False`` when the source of the samples did not answer; then nothing here counts.
        sticky: whether tenants or users stay with a version, so that buckets of tenants are what is independent.
        absent: requests that the canary's pods of which nothing has arrived for this tick will have had, by their last rate.
    """

    at: float
    weight: int
    canary: tuple[PodCounts, ...] = ()
    stable: tuple[PodCounts, ...] = ()
    gauges: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    complete: bool = True
    sticky: bool = False
    absent: float = 0.0
