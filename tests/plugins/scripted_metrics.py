"""What Prometheus says to an operator in virtual time: values and counters as a test sets them."""

import asyncio
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import virtual_time
from virtual_time import Wall

from canary_rollout.analysis.readings import (
    EMPTY,
    REQUESTS,
    CounterReadings,
    CounterSample,
    Pair,
    Reading,
    Samples,
)
from canary_rollout.metrics.request import MetricRequest


@dataclass
class Numbers:
    """What Prometheus says: values by preset for each version, or nothing at all."""

    canary: dict[str, float] = field(default_factory=lambda: {"error-rate": 0.0, REQUESTS: 500.0})
    stable: dict[str, float] = field(default_factory=lambda: {"error-rate": 0.0, REQUESTS: 50_000.0})
    down: bool = False
    asked: int = 0
    requests: dict[str, MetricRequest] = field(default_factory=dict)
    per_second: dict[str, float] = field(default_factory=lambda: {"canary": 500.0, "stable": 50_000.0})
    meters: list[tuple[float, dict[str, tuple[float, float]]]] = field(default_factory=list)
    """(time, requests and errors so far by version): what the pods have counted."""
    nothing: bool = False
    """Nobody counts requests."""
    ticks: list[float] = field(default_factory=list)
    """Evaluation times of the instant queries of counters."""
    replays: list[tuple[float, float]] = field(default_factory=list)

    def register(self, request: MetricRequest) -> None:
        """Nothing to share."""

    def unregister(self, key: str) -> None:
        self.requests.pop(key, None)

    async def sample(self, request: MetricRequest) -> Samples:
        self.asked += 1
        self.requests[request.key] = request
        await asyncio.sleep(0.01)
        at = Wall().now()
        if self.down:
            gone = Reading.unavailable("connection refused")
            return Samples(at, dict.fromkeys(request.measures, Pair(gone, gone)))

        def reading(values: dict[str, float], what: str) -> Reading:
            return Reading.of(values[what]) if what in values else EMPTY

        pairs = {key: Pair(reading(self.stable, key.what), reading(self.canary, key.what)) for key in request.measures}
        return Samples(at, pairs)

    def count(self, until: float) -> None:
        """Let the pods' counters run up to a time, at the present rates."""
        if not self.meters:
            self.meters.append((virtual_time.EPOCH - 100_000, {"canary": (0.0, 0.0), "stable": (0.0, 0.0)}))
        since, before = self.meters[-1]
        if until <= since:
            return
        now_counted = {}
        for arm, share in (("canary", self.canary), ("stable", self.stable)):
            requests = self.per_second[arm] * (until - since)
            now_counted[arm] = (before[arm][0] + requests, before[arm][1] + requests * share.get("error-rate", 0.0))
        self.meters.append((until, now_counted))

    def counted(self, at: float) -> CounterReadings:
        """Return what a scrape at a time has shown."""
        if self.nothing:
            return CounterReadings(at)
        self.count(at)
        place = max(1, bisect_left(self.meters, at, key=lambda meter: meter[0]))
        (left, low), (right, high) = self.meters[place - 1], self.meters[min(place, len(self.meters) - 1)]
        share = (at - left) / (right - left) if right > left else 1.0
        samples = []
        for arm in ("stable", "canary"):
            for series, number in (("requests", 0), ("errors", 1)):
                value = low[arm][number] + share * (high[arm][number] - low[arm][number])
                samples.append(CounterSample(arm, f"{arm}-pod", series, round(value)))
        return CounterReadings(at, tuple(samples))

    async def counters(self, request: MetricRequest, at: float, created: Any = None) -> CounterReadings:
        await asyncio.sleep(0.01)
        if self.down:
            return CounterReadings(at, complete=False, message="connection refused")
        self.count(Wall().now())
        self.ticks.append(at)
        return self.counted(at)

    async def counters_between(
        self, request: MetricRequest, start: float, end: float, step: float, created: Any = None
    ) -> tuple[CounterReadings, ...]:
        await asyncio.sleep(0.01)
        if self.down:
            return (CounterReadings(end, complete=False, message="connection refused"),)
        self.count(Wall().now())
        self.replays.append((start, end))
        return tuple(self.counted(round(start + step * number, 3)) for number in range(round((end - start) / step) + 1))
