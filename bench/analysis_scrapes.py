"""A service as Prometheus sees it: cumulative counters per pod, scraped at each pod's own phase, lost and late at times.

Everything is drawn in bins of one second (Poisson arrivals, binomial errors), then only what the scrapes saw is handed on:
`Scrapes.events()` are the samples in arrival order (what the product reads), `Scrapes.seen()` the same scrapes without
resets, losses and lateness (what the peers' rules are given: never worse data than the product has).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from analysis_scenarios import Scenario

from canary_rollout.analysis.sequential import Arm, RawSample

Floats = npt.NDArray[np.float64]
EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, math.inf)
OTHER_EDGES = (0.01, 0.025, 0.1, 0.3, 0.5, 1.0, 3.0, math.inf)
MEDIAN, SIGMA = 0.08, math.log(0.408 / 0.08) / 2.3263
MEMORY = 500e6
RESTART_SECONDS = 10.0
LONG_AGO = -30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Weight:
    """The weight, basis points, that is in force from `ts` on."""

    ts: float
    weight: int


def line(event: RawSample | Weight) -> dict[str, object]:
    """The JSON object of `kubectl canary replay` for one sample or weight."""
    if isinstance(event, Weight):
        return {"ts": event.ts, "weight": event.weight}
    raw: dict[str, object] = {
        "ts": event.ts,
        "arrival": event.arrival,
        "arm": event.arm,
        "pod": event.pod,
        "series": event.series,
        "value": event.value,
    }
    if event.le is not None:
        raw["le"] = "+Inf" if math.isinf(event.le) else event.le
    if event.created is not None:
        raw["created"] = event.created
    return raw


@dataclass(slots=True)
class Pod:
    """One pod's whole life: cumulative counts at the end of every second, when it was scraped, when it restarted."""

    arm: Arm
    name: str
    created: float
    rate: Floats
    requests: Floats
    errors: Floats
    scrapes: Floats
    arrivals: Floats
    restarts: Floats
    buckets: npt.NDArray[np.int64] | None = None
    memory: Floats | None = None


@dataclass(slots=True)
class Scrapes:
    """One simulated rollout. `start` is minus the history's length; the first weight is set at 0."""

    scenario: Scenario
    start: float
    length: float
    pods: list[Pod] = field(default_factory=list)

    def seen(self, step: float = 5.0) -> dict[str, Floats]:
        """Cumulative requests and errors per arm as of each pod's last scrape, every `step` seconds from 0 (first row)."""
        grid = np.arange(0.0, self.length + step / 2, step)
        zero = np.zeros_like(grid)
        out = {"canary n": zero, "canary e": zero, "stable n": zero, "stable e": zero}
        for pod in self.pods:
            at = np.searchsorted(pod.scrapes, grid, side="right") - 1
            ts = np.where(at >= 0, pod.scrapes[np.maximum(at, 0)], self.start)
            second = np.maximum(ts - self.start, 0).astype(np.int64)
            for key, counter in (("n", pod.requests), ("e", pod.errors)):
                out[f"{pod.arm} {key}"] = out[f"{pod.arm} {key}"] + counter[second]
        return {key: values - values[0] for key, values in out.items()}

    def errors_served(self, until: float) -> float:
        """Requests of the canary that failed from the onset to `until`, whether scraped or not."""
        first, last = (int(at - self.start) for at in (max(0.0, self.scenario.onset), min(until, self.length)))
        return float(
            sum(pod.errors[last] - pod.errors[first] for pod in self.pods if pod.arm == "canary" and last > first)
        )

    def events(self) -> Iterator[RawSample | Weight]:
        """Samples and weights in arrival order."""
        weights, at = [], 0.0
        for weight, seconds in self.scenario.stages:
            weights.append(Weight(at, weight))
            at += seconds
        columns = [self._columns(index, pod) for index, pod in enumerate(self.pods)]
        table = np.concatenate([column for column in columns if len(column)])
        table = table[np.lexsort((table[:, 3], table[:, 2], table[:, 0]))]
        for arrival, ts, number, code, value in table.tolist():
            while weights and weights[0].ts <= arrival:
                yield weights.pop(0)
            pod = self.pods[int(number)]
            series, le = self._series(pod, int(code))
            yield RawSample(ts, pod.arm, pod.name, series, value, le, pod.created, arrival)
        yield from weights

    def _series(self, pod: Pod, code: int) -> tuple[str, float | None]:
        if code < 3:
            return ("requests", "errors", "gauge:memory")[code], None
        return "latency_bucket", self.edges(pod.arm)[code - 3]

    def edges(self, arm: str) -> tuple[float, ...]:
        """Upper edges of the arm's latency buckets, seconds."""
        return OTHER_EDGES if arm == "canary" and self.scenario.other_buckets else EDGES

    def _columns(self, number: int, pod: Pod) -> Floats:
        """Rows of (arrival, ts, pod, series code, value) of everything one pod's scrapes showed."""
        if not len(pod.scrapes):
            return np.empty((0, 5))
        second = (pod.scrapes - self.start).astype(np.int64)
        life = np.searchsorted(pod.restarts, pod.scrapes, side="right") - 1
        begun = (
            np.where(life >= 0, pod.restarts[np.maximum(life, 0)], self.start)
            if len(pod.restarts)
            else np.full(len(second), self.start)
        )
        base = (begun - self.start).astype(np.int64)
        rows = []
        requests = pod.requests[second] - pod.requests[base]
        errors = pod.errors[second] - pod.errors[base]
        rows.append((requests, requests >= 0, 0))
        rows.append((errors, errors > 0, 1))  # the first failure is what creates the series
        if pod.memory is not None:
            rows.append((pod.memory[second], requests >= 0, 2))
        if pod.buckets is not None:
            rows += [
                (pod.buckets[second, edge] - pod.buckets[base, edge], requests >= 0, 3 + edge)
                for edge in range(pod.buckets.shape[1])
            ]
        return np.concatenate(
            [
                np.stack(
                    [
                        pod.arrivals[mask],
                        pod.scrapes[mask],
                        np.full(int(mask.sum()), float(number)),
                        np.full(int(mask.sum()), float(code)),
                        values[mask].astype(float),
                    ],
                    axis=1,
                )
                for values, mask, code in rows
            ]
        )


def simulate(scenario: Scenario, seed: int, number: int = 0) -> Scrapes:
    """Draw one rollout; the same scenario, seed and number give the same samples."""
    rng = np.random.default_rng([seed, number, *scenario.name.encode()])
    out = Scrapes(scenario, -scenario.history, scenario.length)
    seconds = np.arange(-scenario.history, scenario.length + 1)
    share = _share(scenario, seconds)
    outage = _outages(rng, scenario, seconds)
    silent = np.zeros(len(seconds), bool)
    if scenario.silent:
        silent = (seconds >= scenario.silent[0]) & (seconds < scenario.silent[1])
    for name, parts, created in _stable(scenario, seconds):
        rate = np.where(silent, 0.0, scenario.rps * (1 - share) * parts)
        sick = 3.0 if scenario.uneven and name == "s3" else 1.0
        _pod(rng, out, seconds, outage, "stable", name, created, rate, sick)
    for name, parts, created in _canary(scenario, seconds):
        rate = np.where(silent, 0.0, scenario.rps * share * parts)
        _pod(rng, out, seconds, outage, "canary", name, created, rate, 1.0)
    return out


def _share(scenario: Scenario, seconds: Floats) -> Floats:
    share, at = np.zeros(len(seconds)), 0.0
    for weight, length in scenario.stages:
        share[(seconds >= at) & (seconds < at + length)] = weight / 10_000
        at += length
    share[seconds >= at] = scenario.stages[-1][0] / 10_000
    return np.where(share < 1, np.minimum(share * scenario.realised, 1.0), share)


def _outages(rng: np.random.Generator, scenario: Scenario, seconds: Floats) -> npt.NDArray[np.bool_]:
    """Whether a dependency of both arms fails half of everything now: 5-15 s at a time."""
    down = np.zeros(len(seconds), bool)
    span = float(seconds[-1] - seconds[0])
    for _ in range(rng.poisson(scenario.outages_per_hour * span / 3600)):
        begin = rng.uniform(seconds[0], seconds[-1])
        down |= (seconds >= begin) & (seconds < begin + rng.uniform(5, 15))
    return down


def _stable(scenario: Scenario, seconds: Floats) -> Iterator[tuple[str, Floats, float]]:
    """Name, share of the arm's traffic in every second, and birth of each stable pod."""
    count = scenario.stable_pods
    weights = np.geomspace(0.25, 4.0, count) if scenario.uneven and count > 1 else np.ones(count)
    alive = np.ones((count, len(seconds)))
    if scenario.dies is not None:
        alive[0, seconds >= scenario.dies] = 0.0
    parts = weights[:, None] * alive
    parts /= parts.sum(axis=0)
    for pod in range(count):
        yield f"s{pod}", parts[pod], LONG_AGO


def _canary(scenario: Scenario, seconds: Floats) -> Iterator[tuple[str, Floats, float]]:
    """The same of canary pods: one, three at 25 %, ten at 100 %; new ones are there a minute before their stage."""
    born, at = [-60.0], 0.0
    for weight, length in scenario.stages:
        wanted = 10 if weight >= 10_000 else 3 if weight >= 2500 else 1
        born += [max(at - 60.0, -60.0)] * (wanted - len(born))
        at += length
    born = [max(birth, float(seconds[0])) for birth in born]
    alive = np.stack([seconds >= birth + (60.0 if birth > 0 else 0.0) for birth in born]).astype(float)
    weights = np.geomspace(0.5, 2.0, len(born)) if scenario.uneven and len(born) > 1 else np.ones(len(born))
    parts = weights[:, None] * alive
    parts /= np.maximum(parts.sum(axis=0), 1e-9)
    for pod, birth in enumerate(born):
        yield f"c{pod}", parts[pod], birth


def _pod(
    rng: np.random.Generator,
    out: Scrapes,
    seconds: Floats,
    outage: npt.NDArray[np.bool_],
    arm: Arm,
    name: str,
    created: float,
    rate: Floats,
    sick: float,
) -> None:
    scenario = out.scenario
    per_hour = scenario.canary_restarts if arm == "canary" and scenario.canary_restarts else scenario.restarts
    restarts = np.sort(rng.uniform(max(created, seconds[0]), seconds[-1], rng.poisson(per_hour * len(seconds) / 3600)))
    for restart in restarts:
        rate[(seconds >= restart) & (seconds < restart + RESTART_SECONDS)] = 0.0
    base = np.full(len(seconds), scenario.error_rate * sick * (scenario.worse if arm == "canary" else 1.0))
    if scenario.season > 1:
        base *= 1 + (scenario.season - 1) * 0.5 * (1 + np.sin(2 * np.pi * seconds / 3600))
    requests = rng.poisson(rate)
    burst = np.zeros(len(seconds), np.int64)
    alone = base
    if scenario.bursts:
        alone = np.zeros(len(seconds))
        requests, burst = _bursts(rng, scenario, requests, base * rate)
    alone = np.where(outage, 0.5, alone)
    if arm == "canary" and scenario.broken_rate is not None:
        alone = np.where(seconds >= scenario.onset, np.maximum(alone, scenario.broken_rate), alone)
    errors = burst + rng.binomial(requests - burst, np.minimum(alone, 1.0))
    scrapes, arrivals = _when(rng, scenario, arm, name, created, restarts, out)
    pod = Pod(arm, name, created, rate, np.cumsum(requests), np.cumsum(errors), scrapes, arrivals, restarts)
    if scenario.latency:
        pod.buckets = _buckets(rng, out, arm, requests, outage)
    if scenario.memory is not None:
        pod.memory = _memory(rng, scenario, arm, seconds)
    out.pods.append(pod)


def _bursts(
    rng: np.random.Generator, scenario: Scenario, requests: npt.NDArray[np.int64], expected: Floats
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Requests and those of them that fail in clusters; `expected` failures a second."""
    low, high = scenario.burst_sizes
    requests, failed = requests.copy(), np.zeros(len(requests), np.int64)
    count = rng.poisson(expected / ((low + high) / 2))
    for second in np.repeat(np.arange(len(requests)), count).tolist():
        size = int(rng.integers(low, high + 1))
        if scenario.bursts == "batch":
            requests[second] += size
            failed[second] += size
            continue
        left = size
        while left > 0 and second < len(requests):
            now = min(left, int(requests[second] - failed[second]))
            failed[second] += now
            left -= now
            second += 1  # noqa: PLW2901
    return requests, failed


def _when(
    rng: np.random.Generator, scenario: Scenario, arm: str, name: str, created: float, restarts: Floats, out: Scrapes
) -> tuple[Floats, Floats]:
    """When a pod was scraped with success, and when the samples arrived."""
    interval = scenario.slow_pod if scenario.slow_pod and (arm, name) == ("stable", "s0") else scenario.scrape
    begin = max(out.start, created)
    ts = np.arange(begin + rng.uniform(0, interval), out.length, interval)
    kept = rng.random(len(ts)) >= scenario.lost
    for restart in restarts:
        kept &= (ts < restart) | (ts >= restart + RESTART_SECONDS)
    if scenario.dies is not None and (arm, name) == ("stable", "s0"):
        kept &= ts < scenario.dies
    ts = ts[kept]
    delay = rng.uniform(0.02, 0.3, len(ts))
    late = rng.random(len(ts)) < scenario.late
    ts = np.round(ts, 3)
    return ts, ts + np.where(late, rng.uniform(interval, 3 * interval, len(ts)), delay)


def _below(edge: float, shift: str) -> float:
    """Share of requests answered within `edge` seconds: lognormal, median 80 ms, p99 408 ms, shifted."""

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-(math.log(x / MEDIAN) / SIGMA) / math.sqrt(2)) if x > 0 else 0.0

    if math.isinf(edge):
        return 1.0
    if shift.startswith("x"):
        return normal(edge / float(shift[1:]))
    if "%+" in shift:
        share, _, plus = shift.partition("%+")
        part = float(share) / 100
        return (1 - part) * normal(edge) + part * normal(edge - float(plus.removesuffix("s")))
    return normal(edge)


def _buckets(
    rng: np.random.Generator, out: Scrapes, arm: str, requests: npt.NDArray[np.int64], outage: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Cumulative histogram: (second, edge) -> requests answered within the edge so far. Everything is 3x slower in an outage."""
    shift = out.scenario.latency if arm == "canary" else "same"
    edges = out.edges(arm)
    counts = rng.multinomial(requests, np.diff([0.0, *(_below(edge, shift) for edge in edges)]))
    if outage.any():
        counts[outage] = rng.multinomial(requests[outage], np.diff([0.0, *(_below(edge, "x3") for edge in edges)]))
    return np.cumsum(np.cumsum(counts, axis=1), axis=0)


def _memory(rng: np.random.Generator, scenario: Scenario, arm: str, seconds: Floats) -> Floats:
    """Working set in bytes: pod-to-pod sd 8 %, AR(1) 0.97 a quarter of a minute with sd 3 %."""
    steps = len(seconds) // 15 + 2
    noise = np.empty(steps)
    noise[0] = rng.normal(0, 0.03)
    innovations = rng.normal(0, 0.03 * math.sqrt(1 - 0.97**2), steps)
    for step in range(1, steps):
        noise[step] = 0.97 * noise[step - 1] + innovations[step]
    level = np.repeat(noise, 15)[: len(seconds)] + rng.normal(0, 0.08)
    factor = np.ones(len(seconds))
    if arm == "canary":
        factor = (scenario.memory or 1.0) * (1 + scenario.leak * np.maximum(seconds, 0) / 3600)
    return MEMORY * np.exp(level) * factor
