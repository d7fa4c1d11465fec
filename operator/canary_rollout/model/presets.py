"""Names of the ready-made measures and what their numbers are. The queries themselves are data of the ``metrics`` room.

Users may add presets of their own (``metrics/presets``), so a name that is not in here is no mistake yet: whether there is such
a preset is said when it is asked.
"""

from enum import StrEnum
from typing import Annotated, Final

from canary_rollout.model.fields import Text


class Unit(StrEnum):
    """How a measure's value is written for people."""

    FAILED = "failed"
    """Share of the requests that failed, 0..1."""
    SHARE = "share"
    """Any other share, 0..1."""
    SECONDS = "seconds"
    PER_SECOND = "requests/s"
    COUNT = "count"
    PLAIN = ""


PRESETS: Final[dict[str, Unit]] = {
    "error-rate": Unit.FAILED,
    "latency-p50": Unit.SECONDS,
    "latency-p75": Unit.SECONDS,
    "latency-p95": Unit.SECONDS,
    "latency-p99": Unit.SECONDS,
    "latency-average": Unit.SECONDS,
    "request-rate": Unit.PER_SECOND,
    "timeout-rate": Unit.FAILED,
    "engine-timeout-rate": Unit.SHARE,
    "denial-rate": Unit.SHARE,
    "failed-transaction-rate": Unit.SHARE,
    "data-inconsistencies": Unit.COUNT,
    "db-connections": Unit.SHARE,
    "memory": Unit.SHARE,
    "cpu": Unit.SHARE,
    "lcp-p75": Unit.SECONDS,
    "inp-p75": Unit.SECONDS,
    "cls-p95": Unit.PLAIN,
    "cache-hit-ratio": Unit.SHARE,
    "error-logs": Unit.COUNT,
    "other-version": Unit.COUNT,
    "traffic-share": Unit.SHARE,
}
"""Presets the operator comes with, and the unit of each.

``other-version`` counts the canary's pods that report another version than the one rolled out. ``traffic-share`` needs no
query: how far the canary's share of the requests is from its weight, as a share of the weight (0.5: half as much again, or half).
"""

EVENTS: Final = frozenset(
    {
        "engine-timeout-rate",
        "denial-rate",
        "failed-transaction-rate",
        "data-inconsistencies",
        "error-logs",
        "other-version",
        "lcp-p75",
        "inp-p75",
        "cls-p95",
        "cache-hit-ratio",
    }
)
"""Presets of things that need not happen in every window, and of counters that are born with their first event: where one has no
value, nothing happened, which is neither lost data nor too few requests."""

TRAFFIC_SHARE: Final = "traffic-share"

Preset = Annotated[
    str,
    Text(
        r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
        63,
        'the name of a preset: lower-case words joined by "-", as in error-rate (kubectl canary presets lists them)',
    ),
]


def unit_of(preset: str | None) -> Unit:
    """The unit of a preset's value; plain for the user's own presets and queries."""
    return PRESETS.get(preset or "", Unit.PLAIN)
