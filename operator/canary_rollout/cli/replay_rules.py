"""Halt rules over replayed counts: the values that Prometheus would have given, from the increments of the last window."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from canary_rollout.analysis.comparing import Compared
from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.readings import EMPTY, REQUESTS, MeasureKey, Pair, Reading, Samples, keys_needed, window_of
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.sequential import PodCounts, PromotionGate, TestVerdict, Tick
from canary_rollout.analysis.verdict import Verdict
from canary_rollout.model.spec import CanaryRolloutSpec, Stage
from canary_rollout.model.units import format_weight

_QUANTILES: Final = {"latency-p50": 0.5, "latency-p75": 0.75, "latency-p95": 0.95, "latency-p99": 0.99}
_ABSENT: Final = Reading.absent("a replay has requests, errors, latency buckets and gauges, and nothing else")


@dataclass(slots=True)
class _Counts:
    """One version's counts in a tick or a window."""

    requests: float = 0.0
    errors: float = 0.0
    timed: float = 0.0
    slow: dict[float, float] = field(default_factory=dict)

    def add(self, pods: Sequence[PodCounts]) -> None:
        for pod in pods:
            self.requests += pod.requests
            self.errors += pod.errors
            if pod.slow:
                self.timed += pod.requests if pod.timed is None else pod.timed
                for edge, slow in pod.slow.items():
                    self.slow[edge] = self.slow.get(edge, 0.0) + slow

    def join(self, other: "_Counts") -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.timed += other.timed
        for edge, slow in other.slow.items():
            self.slow[edge] = self.slow.get(edge, 0.0) + slow

    def quantile(self, share: float) -> float | None:
        """Return what ``histogram_quantile`` gives: linear between the edges, the last edge above them."""
        if self.timed <= 0:
            return None
        wanted, below, under = share * self.timed, 0.0, 0.0
        for edge in sorted(self.slow):
            within = self.timed - self.slow[edge]
            if within >= wanted:
                return below + (edge - below) * (wanted - under) / max(within - under, 1e-9)
            below, under = edge, within
        return below


@dataclass(frozen=True, slots=True)
class _Row:
    at: float
    arms: dict[str, _Counts]


class ReplayedRules:
    """The halt rules of a policy, tick by tick; memory is that of the longest window.

    Args:
        spec: whose halt rules are judged.
    """

    def __init__(self, spec: CanaryRolloutSpec) -> None:
        self._spec = spec
        windows = [window_of(rule, spec.metrics) for rule in spec.halt_rules]
        self._longest = max([spec.metrics.window, *windows])
        self._rows: deque[_Row] = deque()
        self._evidence = Evidence()

    def judge(self, tick: Tick, tests: tuple[TestVerdict, ...], gate: PromotionGate) -> tuple[Verdict, ...]:
        """Return the verdicts of the halt rules as of a tick, given the comparison's."""
        row = _Row(tick.at, {"stable": _Counts(), "canary": _Counts()})
        row.arms["stable"].add(tick.stable)
        row.arms["canary"].add(tick.canary)
        self._rows.append(row)
        while self._rows[0].at <= tick.at - self._longest:
            self._rows.popleft()
        stage = _stage(tick.weight)
        samples = self._samples(tick, keys_needed(self._spec, stage))
        assessment, self._evidence = assess(self._spec, stage, samples, self._evidence, tick.at, Compared(tests, gate))
        return assessment.rules

    def _samples(self, tick: Tick, keys: frozenset[MeasureKey]) -> Samples:
        if not tick.complete:
            lost = Reading.unavailable("no new samples")
            return Samples(tick.at, {key: Pair(lost, lost) for key in keys})
        windows: dict[float, dict[str, _Counts]] = {}
        for window in {key.window for key in keys}:
            arms = windows[window] = {"stable": _Counts(), "canary": _Counts()}
            for row in self._rows:
                if row.at > tick.at - window:
                    for arm, counts in row.arms.items():
                        arms[arm].join(counts)
        return Samples(tick.at, {key: self._pair(key, windows[key.window]) for key in keys})

    def _pair(self, key: MeasureKey, arms: dict[str, _Counts]) -> Pair:
        if key.own or key.alerts or key.baseline:
            return Pair(_ABSENT, _ABSENT)
        return Pair(_reading(key, arms["stable"]), _reading(key, arms["canary"]))


def _reading(key: MeasureKey, counts: _Counts) -> Reading:
    if key.what == REQUESTS:
        return Reading.of(counts.requests)
    if key.what == "request-rate":
        return Reading.of(counts.requests / key.window)
    if key.what == "error-rate":
        return Reading.of(counts.errors / counts.requests) if counts.requests > 0 else EMPTY
    if key.what in _QUANTILES:
        value = counts.quantile(_QUANTILES[key.what])
        return EMPTY if value is None or value == inf else Reading.of(value)
    return _ABSENT


def _stage(weight: int) -> Stage | None:
    if weight <= 0:
        return None
    return Stage.model_validate({"name": "replay", "weight": format_weight(weight), "hold": "1h"})
