"""What a rule or gate asks, worked out once: the same rules are judged at every tick of every rollout."""

from dataclasses import dataclass
from typing import Final
from zlib import crc32

from canary_rollout.analysis.evidence import OF_ALERT, short
from canary_rollout.analysis.findings import Bound, Kind, bound_of
from canary_rollout.analysis.readings import (
    MeasureKey,
    key_of,
    needs_requests,
    requests_key,
    share_key,
    stable_key,
    window_of,
)
from canary_rollout.model.presets import TRAFFIC_SHARE
from canary_rollout.model.spec import BaselineFrom, Gate, HaltRule, Metrics

_MOST: Final = 8192


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rule or gate asks.

    Attributes:
        bound: its bound.
        with_now: whether it is held against stable as it is now.
        key: where its values are.
        stable: where stable's value of now is.
        requests: where the request counts are that its minimum is held against.
        needs_requests: whether it has such a minimum.
        window: seconds it looks back.
        fingerprint: names measure, range and bound; ``for`` and the action may be edited under way.
        name: of at most 16 characters, under which its evidence is kept (halt rules).
    """

    bound: Bound
    with_now: bool
    key: MeasureKey
    stable: MeasureKey
    requests: MeasureKey
    needs_requests: bool
    window: float
    fingerprint: str
    name: str


_known: Final[dict[tuple[int, float, str], tuple[HaltRule | Gate, Asked]]] = {}
"""By identity of the rule or gate, which is kept alive by being in here, and what counts of the metrics: so the standard rules
are worked out once for everybody."""


def asked_by(measure: HaltRule | Gate, metrics: Metrics) -> Asked:
    """Return what a rule or gate asks."""
    key = (id(measure), metrics.window, metrics.source)
    known = _known.get(key)
    if known is not None:
        return known[1]
    if len(_known) >= _MOST:
        _known.clear()
    asked = _worked_out(measure, metrics)
    _known[key] = (measure, asked)
    return asked


def _worked_out(measure: HaltRule | Gate, metrics: Metrics) -> Asked:
    bound, key, window = bound_of(measure), key_of(measure, metrics), window_of(measure, metrics)
    share = measure.preset == TRAFFIC_SHARE
    fixed = measure.baseline.value if measure.baseline is not None else None
    told = (key, bound.limit, bound.above, bound.kind, fixed, metrics.source)
    return Asked(
        bound=bound,
        with_now=bound.kind is not Kind.ABSOLUTE and measure.baseline_from is BaselineFrom.STABLE,
        key=share_key(metrics, window) if share else key,
        stable=stable_key(measure, metrics),
        requests=requests_key(measure, metrics),
        needs_requests=needs_requests(measure),
        window=window,
        fingerprint=f"{OF_ALERT if measure.alert is not None else ''}{crc32(repr(told).encode()):08x}",
        name=short(measure.name or ""),
    )
