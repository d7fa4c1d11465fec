"""Raw cumulative samples in, increments per tick out: resets, late-born series, lost and late scrapes.

The treatment of each case is the table of the analysis method, section 2.0; ``docs/analysis.md`` repeats it. Nothing is
extrapolated: what a tick reports was counted by the pods, and what arrives late is in a later tick.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite, sqrt
from typing import Final

from canary_rollout.analysis.sequential.counts import (
    BUCKET,
    ERRORS,
    GAUGE,
    REQUESTS,
    TENANT_BUCKET,
    Arm,
    PodCounts,
    RawSample,
    Tick,
)
from canary_rollout.model.units import FULL

LONGEST_SPAN: Final = 8
"""Ticks over which an increment is spread at most."""

LONGEST_ABSENCE: Final = 4
"""Ticks for which a canary pod of which nothing arrives is taken to serve what it did; then it is taken to be gone."""

STALE_INTERVALS: Final = 3.0
"""A gauge's value that is older than this many intervals is left out."""

_SMOOTHING: Final = 0.1
_FORGET: Final = 86_400.0
_SURE: Final = 4.0
_LATEST_BIRTH: Final = 3600.0
_HISTOGRAM_PATIENCE: Final = 3

Key = str | float
"""A series of one pod: ``requests``, ``errors``, or the upper edge of a latency bucket."""


@dataclass(slots=True)
class _Pod:
    """What is remembered of one pod."""

    arm: Arm
    name: str
    first_seen: float
    created: float | None
    old: bool
    last: dict[Key, float] = field(default_factory=dict)
    settled: float = -inf
    taken: float = -inf
    ts: float = -inf
    seen: set[Key] = field(default_factory=set)
    unsettled: dict[Key, float] = field(default_factory=dict)
    restarted: bool = False
    short_histograms: int = 0
    requests: float = 0.0
    errors: float = 0.0
    timed: float = 0.0
    slow: dict[float, float] = field(default_factory=dict)
    news: bool = False
    tick: int = 0
    behind: int = 0
    rate: float = 0.0
    reckoned: float = 0.0
    gauges: dict[str, tuple[float, float]] = field(default_factory=dict)


class CounterTracker:
    """Turns raw samples, in the order in which they became known, into ticks.

    Args:
        interval: seconds between two ticks.
        warm_up: seconds for which a new pod's latency is left out.
        began: when the analysis began (the first weight), POSIX seconds; a pod created since counts from zero, an older
            one from its first sample. ``None``: not yet; then the first sample's time stands for it.
        scrape_times: whether ``ts`` is the time of the scrape. ``False`` when it is the time of a query, which returns the
            last value again when a scrape was lost: then a pod without new requests counts as not scraped.
    """

    def __init__(
        self,
        interval: float = 15.0,
        warm_up: float = 120.0,
        began: float | None = None,
        *,
        scrape_times: bool = True,
    ) -> None:
        self._interval = interval
        self._warm_up = warm_up
        self._began = began
        self._scrape_times = scrape_times
        self._first_ts: float | None = None
        self._pods: dict[tuple[str, str], _Pod] = {}
        self._ticks = 0
        self._fresh_at: deque[float] = deque(maxlen=LONGEST_SPAN)
        self._open: set[tuple[str, str]] = set()
        self._scraped: dict[str, float] = {}
        self._gap: dict[str, float] = {}
        self.dropped = 0
        """Samples that were no numbers, not finite or negative."""
        self.ignored = 0
        """Samples that came late; their increase is inside a newer one."""
        self.resets: dict[str, int] = {"canary": 0, "stable": 0}
        """Counter resets, which are restarts of containers, by version."""

    def begin(self, at: float) -> None:
        """Say when the analysis began, once; pods created before it are counted from their first sample."""
        if self._began is None:
            self._began = at

    def add(self, sample: RawSample) -> None:
        """Take in one sample. Samples of one pod with the same ``ts`` are one scrape.

        Raises:
            ValueError: the series is none that is known.
        """
        if self._first_ts is None:
            self._first_ts = sample.ts
        gauge = sample.series.startswith(GAUGE)
        if not isfinite(sample.value) or (sample.value < 0 and not gauge):
            self.dropped += 1
            return
        pod = self._pod(sample)
        if gauge:
            name = sample.series.removeprefix(GAUGE)
            if name not in pod.gauges or pod.gauges[name][0] < sample.ts:
                pod.gauges[name] = (sample.ts, sample.value)
            return
        key = _key(sample)
        if sample.ts > pod.ts:
            self._settle(pod)
            pod.ts, pod.unsettled, pod.seen = sample.ts, {}, set()
            if (
                sample.created is not None
                and pod.created is not None
                and sample.created > max(pod.created, pod.settled)
            ):
                pod.restarted = True
            pod.created = sample.created if sample.created is not None else pod.created
        elif sample.ts < pod.ts or key in pod.seen:
            self.ignored += 1
            return
        pod.seen.add(key)
        pod.unsettled[key] = sample.value
        self._open.add((sample.arm, sample.pod))

    def tick(self, at: float, weight: int, *, complete: bool = True, sticky: bool = False) -> Tick:
        """Return what was counted since the last call.

        Args:
            at: time of the evaluation, POSIX seconds.
            weight: basis points in force.
            complete: whether the source of the samples answered. Where scrape times are known, a version that should be
                serving and was not scraped for three intervals makes the tick incomplete as well.
            sticky: whether users stay with a version.
        """
        for key in self._open:
            self._settle(self._pods[key])
        self._open.clear()
        fresh = sorted((pod for pod in self._pods.values() if pod.news), key=lambda pod: (pod.arm, pod.name))
        if fresh:
            self._ticks += 1
            self._fresh_at.append(at)
        arms: dict[str, list[PodCounts]] = {"canary": [], "stable": []}
        for pod in fresh:
            arms[pod.arm].append(self._take(pod))
        self._forget(at)
        complete = complete and not self._silent(at, weight)
        absent = self._absent() if fresh else 0.0
        return Tick(
            at, weight, tuple(arms["canary"]), tuple(arms["stable"]), self._gauges(at), complete, sticky, absent
        )

    def _silent(self, at: float, weight: int) -> bool:
        """Return whether a version that should be serving was scraped before and is not any more."""
        serving = [arm for arm, does in (("canary", weight > 0), ("stable", weight < FULL)) if does]
        return self._scrape_times and any(
            at - self._scraped[arm] > STALE_INTERVALS * max(self._interval, self._gap.get(arm, 0.0))
            for arm in serving
            if arm in self._scraped
        )

    # -- pods ----------------------------------------------------------------------------------------------------------

    def _pod(self, sample: RawSample) -> _Pod:
        pod = self._pods.get((sample.arm, sample.pod))
        if pod is None:
            began = self._began if self._began is not None else self._first_ts
            born = sample.created
            old = born is None or began is None or born < began or sample.ts - born > _LATEST_BIRTH
            pod = _Pod(sample.arm, sample.pod, sample.ts, sample.created, old, tick=self._ticks)
            self._pods[sample.arm, sample.pod] = pod
        return pod

    def _forget(self, at: float) -> None:
        if self._ticks % 240 == 0:
            for key in [key for key, pod in self._pods.items() if max(pod.ts, pod.first_seen) < at - _FORGET]:
                del self._pods[key]

    def _take(self, pod: _Pod) -> PodCounts:
        gone = self._ticks - pod.tick
        covered = self._covered(pod, gone)
        behind = gone - covered if pod.taken > -inf and 1 <= covered < gone <= LONGEST_SPAN else 0
        span = min(max(gone - behind, covered, 1), LONGEST_SPAN)
        counts = PodCounts(
            pod.name,
            pod.requests,
            pod.errors,
            pod.slow,
            pod.timed,
            span,
            pod.settled if self._scrape_times else None,
            behind,
            pod.reckoned,
        )
        pod.behind, pod.rate, pod.reckoned = behind, pod.requests / span, 0.0
        pod.requests = pod.errors = pod.timed = 0.0
        pod.slow, pod.news, pod.tick, pod.taken = {}, False, self._ticks, pod.settled
        return counts

    def _absent(self) -> float:
        """Return the requests of this tick that the canary's pods will have had whose scrapes of it are still to come.

        Without them stable's bad requests of this tick would cost the canary nothing, though its own of the tick before
        count: an outage that both share would be the canary's for as long as its next scrape is late.
        """
        total = 0.0
        for pod in self._pods.values():
            if pod.arm == "canary" and pod.rate and not pod.name.startswith(TENANT_BUCKET):
                gone = self._ticks - pod.tick
                if (gone == 0 and pod.behind) or 0 < gone <= LONGEST_ABSENCE:
                    pod.reckoned = pod.rate
                    total += pod.rate
        return total

    def _covered(self, pod: _Pod, gone: int) -> int:
        """Ticks that lie between the scrapes of this and the last increment: more than passed, when a late one came first.

        Where only the time of the query is known: all that passed, unless far fewer requests came than the pod has in
        them. Then this is a scrape from between, which was late, and the rest is still to come.
        """
        if pod.taken == -inf:
            return 1
        if not self._scrape_times:
            usual = pod.rate * gone
            late = gone > 1 and usual - pod.requests > _SURE * sqrt(usual)
            return max(1, round(pod.requests / pod.rate)) if late else gone
        passed = sum(at > pod.taken + self._interval for at in self._fresh_at)
        return min(round((pod.settled - pod.taken) / self._interval), passed)

    def _gauges(self, at: float) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        oldest = at - STALE_INTERVALS * self._interval
        gauges: dict[str, dict[str, dict[str, float]]] = {}
        for pod in self._pods.values():
            for name, (ts, value) in pod.gauges.items():
                if ts >= oldest:
                    gauges.setdefault(name, {"canary": {}, "stable": {}})[pod.arm][pod.name] = value
        return gauges

    # -- one scrape ----------------------------------------------------------------------------------------------------

    def _settle(self, pod: _Pod) -> None:
        """Count a scrape's increments. Lines of it that come after a tick are counted with the next one."""
        new = pod.unsettled
        if not new or (REQUESTS in pod.last and REQUESTS not in pod.seen):
            return  # errors without the requests they are a part of wait: the next scrape has both
        pod.unsettled = {}
        known = pod.settled > -inf
        self._scraped[pod.arm] = max(pod.ts, self._scraped.get(pod.arm, -inf))
        if known and pod.ts > pod.settled:
            gap, usual = pod.ts - pod.settled, self._gap.get(pod.arm)
            self._gap[pod.arm] = gap if usual is None else min(gap, usual + _SMOOTHING * (gap - usual))
        if pod.restarted or new.get(REQUESTS, inf) < pod.last.get(REQUESTS, 0.0):
            self.resets[pod.arm] += 1
            pod.last = dict.fromkeys(new, 0.0)
            pod.restarted = False
        requests = self._increment(pod, REQUESTS, new, inf) if REQUESTS in new else 0.0
        errors = self._increment(pod, ERRORS, new, requests) if ERRORS in new else 0.0
        self._histogram(pod, new, requests)
        pod.requests += requests
        pod.errors += errors
        pod.news = pod.news or self._scrape_times or requests > 0 or not known
        pod.settled = pod.ts

    def _increment(self, pod: _Pod, key: Key, new: Mapping[Key, float], requests: float) -> float:
        """Return how much a counter rose.

        Args:
            pod: whose counter.
            key: which.
            new: the scrape.
            requests: what the pod's requests rose by; a series that is born late cannot have risen by more.
        """
        value, last = new[key], pod.last.get(key)
        pod.last[key] = value
        if last is not None:
            return value - last if value >= last else value
        if pod.settled > -inf:
            return value if value <= requests else 0.0
        return 0.0 if pod.old else value

    def _histogram(self, pod: _Pod, new: Mapping[Key, float], requests: float) -> None:
        """Count the requests above each edge; a scrape with a part of the buckets only is left to the next one."""
        edges = sorted(key for key in new if isinstance(key, float))
        if not edges:
            return
        missing = any(isinstance(key, float) and key not in new for key in pod.last)
        if missing and pod.short_histograms < _HISTOGRAM_PATIENCE:
            pod.short_histograms += 1
            return
        if missing:  # the buckets were changed for good: what is new starts here
            pod.last = {key: value for key, value in pod.last.items() if not isinstance(key, float)}
            pod.last.update({edge: new[edge] for edge in edges})
        pod.short_histograms = 0
        most = max(1.5 * requests, requests + 10)
        rises = {edge: self._increment(pod, edge, new, most) for edge in edges}
        born = pod.created if pod.created is not None else self._appeared(pod)
        if pod.ts - born < self._warm_up:
            return
        total = rises.get(inf, requests)
        pod.timed += total
        for edge, rise in rises.items():
            if edge < inf:
                pod.slow[edge] = pod.slow.get(edge, 0.0) + max(total - rise, 0.0)

    def _appeared(self, pod: _Pod) -> float:
        """Return when a pod of unknown age appeared; those that were there from the start are old."""
        start = self._began if self._began is not None else self._first_ts
        return -inf if start is None or pod.first_seen <= start + self._interval else pod.first_seen


def _key(sample: RawSample) -> Key:
    if sample.series in {REQUESTS, ERRORS}:
        return sample.series
    if sample.series != BUCKET or sample.le is None:
        raise ValueError(
            f"series {sample.series!r} is none of requests, errors, latency_bucket (with le) and gauge:NAME"
        )
    return float(sample.le)
