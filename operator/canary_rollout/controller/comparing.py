"""The sequential comparison of one rollout while this process has it: ticks in order, replayed where any are missing.

What counts is the tick grid: evaluation times depend on the rollout's name and interval alone, so a tick that was missed (a
restart, a Prometheus that was away) is asked for again at the very same time, and the evidence is the same.
"""

import asyncio
import math
import time
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import structlog

from canary_rollout.analysis.comparing import Compared
from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.fitting import fitted_comparison
from canary_rollout.analysis.gauges import GaugeTest
from canary_rollout.analysis.history import HistoryTest
from canary_rollout.analysis.readings import CounterReadings
from canary_rollout.analysis.sequential import (
    Comparison,
    CounterTracker,
    PodCounts,
    Policy,
    PromotionGate,
    RawSample,
    State,
    TestVerdict,
    Tick,
)
from canary_rollout.analysis.sequential.counts import TENANT_BUCKET
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.controller.turns import Turns
from canary_rollout.metrics.port import Sampler
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.model.plain import parse_json
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import RolloutState

log = structlog.get_logger(__name__)

SUB_TICKS: Final = 1.0
"""Evaluations fall on whole multiples of this (seconds) within an interval: those of one sub-tick share their queries."""

MOST_TICKS: Final = 1000
"""Ticks that are replayed at a time; the rest follows at the next evaluation."""

LONGEST_REPLAY: Final = 86_400.0
"""Seconds. Ticks further back are given up; the evidence of before is kept."""

HISTORY_STEP: Final = 60.0
"""Seconds between two ticks of stable's past: the length of a block of the dispersion."""

BEHIND: Final = 3.0
"""Intervals without a tick, after which nothing is said on the strength of older ones."""

FEWEST_OF_TENANTS: Final = 5
"""Minutes of the tenants' past that are worth something; with less, a sticky stage pauses instead of rolling back."""

PAST_TRIES: Final = 3
"""Times that stable's past is asked for before the comparison begins without it (a query that is too much, say)."""

MOST_WEIGHTS: Final = 12
SHARED_TICKS: Final = 12
"""Missing ticks that are asked for one by one; more are asked for at once."""

NEVER_COUNTED: Final = "inactive, this app has never had requests counted (metrics.source says whose series are read)"

LONGEST_LOOK: Final = 300.0
"""Seconds for one look back, waiting for a place not counted: who holds one gives it back some day."""

WAITING: Final = "others are looking back first"
LOOKING: Final = "looking back is under way"


def place_of(key: tuple[str, str], interval: float) -> float:
    """Return a rollout's place within its interval, seconds: spread over the sub-ticks.

    A namespace has one place, so that what is asked there is asked of its pods alone: spread by name, every query would be
    answered with the series of nearly all rollouts, ten times in an interval.
    """
    ticks = max(1, math.floor(interval / SUB_TICKS))
    return zlib.crc32(key[0].encode()) % ticks * SUB_TICKS


def latest_tick(key: tuple[str, str], spec: CanaryRolloutSpec, now: float) -> float:
    """Return the latest evaluation time on a rollout's grid whose samples have come, POSIX seconds."""
    interval, place = spec.metrics.interval, place_of(key, spec.metrics.interval)
    lag = spec.metrics.comparison_lag
    return round(math.floor((now - lag - place) / interval) * interval + place, 3)


class TickObserver(Protocol):
    """Told about every tick, for metrics."""

    def ticked(self, seconds: float, *, replayed: bool) -> None:
        """A tick took so many seconds of CPU time; ``replayed``: it was asked for again."""
        ...


@dataclass(slots=True)
class Wanted:
    """What the latest evaluation wants to know; a look back that began before goes by it as well.

    Attributes:
        request: what is asked for.
        created: by pod name, when it was created, POSIX seconds.
        latest: the latest tick whose samples have come, POSIX seconds.
    """

    request: MetricRequest
    created: Mapping[str, float]
    latest: float


@dataclass(slots=True)
class Running:
    """One rollout's comparison.

    Attributes:
        policy: what it was made with.
        interval: seconds between two ticks.
        began: when the analysis began, POSIX seconds.
        comparison: its evidence.
        past: what was usual, which a checkpoint holds apart.
        tracker: its counters.
        through: latest tick that was fed.
        weights: weights in force (basis points) and since when, oldest first.
        tries: times that stable's past may still be asked for; 0: it is in, or there is none.
        replayed: ticks that were asked for again since this process has it.
        problem: why the latest ticks are missing; empty if none are.
        tests: the verdicts of the latest tick.
        counted: whether this app has ever had requests counted.
    """

    policy: Policy
    interval: float
    began: float
    comparison: Comparison
    past: HistoryTest
    tracker: CounterTracker
    through: float
    weights: list[tuple[float, int]] = field(default_factory=list)
    tries: int = PAST_TRIES
    replayed: int = 0
    problem: str = ""
    tests: tuple[TestVerdict, ...] = ()
    counted: bool = False
    _state: tuple[object, str, tuple[str, ...]] = (None, "{}", ())

    def weigh(self, state: RolloutState, now: float) -> None:
        """Note the weight in force."""
        if self.weights and self.weights[-1][1] == state.confirmed:
            return
        since = state.clock.since if state.clock.since is not None else now
        if self.weights:
            since = max(since, self.weights[-1][0] + 0.001)
        self.weights.append((round(min(since, now), 3), state.confirmed))
        del self.weights[:-MOST_WEIGHTS]

    def weight_at(self, at: float) -> int:
        """Return the weight in force at a time, basis points."""
        place = bisect_right(self.weights, at, key=lambda weight: weight[0])
        return self.weights[max(0, place - 1)][1] if self.weights else 0

    async def feed(
        self,
        readings: Sequence[CounterReadings],
        *,
        sticky: bool,
        observer: TickObserver | None = None,
        turns: Turns | None = None,
    ) -> None:
        """Take in ticks, in order; others have their turn in between."""
        turns = turns or Turns()
        for reading in readings:
            await turns.pause()
            began = time.thread_time()
            tick = _tick(self.tracker, reading, self.weight_at(reading.at), sticky=sticky)
            self.tests = self.comparison.step(tick)
            self.counted = self.counted or bool(tick.canary or tick.stable)
            self.replayed += len(readings) > 1
            self.through = reading.at
            if observer is not None:
                observer.ticked(time.thread_time() - began, replayed=len(readings) > 1)

    async def learn(self, readings: Sequence[CounterReadings], *, sticky: bool, turns: Turns | None = None) -> None:
        """Take in stable's past, before the first tick: all of it or, where it is cancelled, nothing.

        A past that were learned twice would count every tenant twice and make stable look wilder than it is.
        """
        turns = turns or Turns()
        tracker = CounterTracker(HISTORY_STEP, self.policy.warm_up, scrape_times=False)
        past, counted = HistoryTest(self.policy), self.counted
        comparison = _fresh(self.policy, past)
        for reading in readings:
            await turns.pause()
            stable = tuple(sample for sample in reading.samples if sample.arm == "stable")
            tick = _tick(tracker, replace(reading, samples=stable), 0, sticky=sticky)
            counted = counted or bool(tick.stable)
            comparison.history(tick)  # its windows learn from it as well
        self.comparison, self.past, self.counted, self.tries = comparison, past, counted, 0

    def checkpoint(self) -> dict[str, Any]:
        """Return what a restart needs, as JSON.

        The evidence itself is one text: in an object, a merge patch would take every ``null`` for a field to be removed. It
        is bounded; ``left`` names what there was no room for.
        """
        state = self.comparison.checkpoint()
        if state is not self._state[0]:  # it changes once a minute
            text, left = fitted_comparison(state, self.past.export() if state else {})
            self._state = (state, text, left)
        _, text, left = self._state
        weights = [list(weight) for weight in self.weights]
        return {"began": self.began, "weights": weights, "evidence": text, **({"left": list(left)} if left else {})}


def begin(policy: Policy, interval: float, at: float) -> Running:
    """Return a comparison that begins with the tick at ``at``."""
    past = HistoryTest(policy)
    began = at - interval
    tracker = CounterTracker(interval, policy.warm_up, began, scrape_times=False)
    return Running(policy, interval, began, _fresh(policy, past), past, tracker, began)


def _fresh(policy: Policy, past: HistoryTest) -> Comparison:
    return Comparison(policy, (GaugeTest(policy), past))


def restored(policy: Policy, interval: float, raw: Mapping[str, Any]) -> Running:
    """Return the comparison that a checkpoint describes; ticks after its ``through`` are to be fed again.

    Raises:
        EvidenceError: somebody else wrote it.
    """
    try:
        began = float(raw["began"])
        weights = [(float(since), int(weight)) for since, weight in raw["weights"]][-MOST_WEIGHTS:]
        parts = parse_json(raw["evidence"])
        state, usual = dict(parts.get("state", {})), dict(parts.get("usual", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EvidenceError(f"the comparison's evidence in status does not read ({error!r})") from error
    past = HistoryTest(policy, usual or None)
    comparison = Comparison.restore(policy, state, (GaugeTest(policy), past))
    through = max(began, comparison.replay_from) if state else began
    tracker = CounterTracker(interval, policy.warm_up, began, scrape_times=False)
    return Running(
        policy, interval, began, comparison, past, tracker, through, weights, tries=0 if state else PAST_TRIES
    )


def on_grid(running: Running, latest: float) -> float:
    """Return the first tick that is missing, on the grid of ``latest``; not further back than a day."""
    step = running.interval
    missing = math.floor((latest - running.through) / step + 1e-6)
    missing = min(missing, math.floor(LONGEST_REPLAY / step))
    return round(latest - (missing - 1) * step, 3)


async def compare(
    spec: CanaryRolloutSpec,
    running: Running,
    sampler: Sampler,
    wanted: Wanted,
    *,
    observer: TickObserver | None = None,
    turns: Turns | None = None,
) -> Compared:
    """Feed the ticks that are missing and return what the comparison says at ``wanted.latest``.

    Where there is much to look back at it waits for a place and takes its time: whoever must not wait runs it beside, one at a
    time for a rollout, and asks :func:`compared` meanwhile. It may be cancelled at any time and called again.

    Args:
        spec: the rollout's.
        running: its comparison.
        sampler: asks Prometheus.
        wanted: what it is asked for; may be brought up to date meanwhile.
        observer: told about every tick.
        turns: shared with all others on this event loop.
    """
    turns, sticky = turns or Turns(), spec.traffic.sticky is not None
    if not running.tries and wanted.latest - running.through <= SHARED_TICKS * running.interval:
        await _catch_up(running, sampler, wanted, turns, sticky=sticky, observer=observer)
        return compared(running, wanted.latest)
    running.problem = WAITING
    try:
        async with turns.looking_back(wanted.request.server.url), asyncio.timeout(LONGEST_LOOK):
            running.problem = LOOKING
            # Otherwise the ticks of meanwhile are asked for again.
            if not running.tries or await _learn(running, spec, sampler, wanted, turns, sticky=sticky):
                await _catch_up(running, sampler, wanted, turns, sticky=sticky, observer=observer)
    except TimeoutError:
        running.tries = max(0, running.tries - 1)
        running.problem = f"looking back took longer than {LONGEST_LOOK:.0f} s"
    finally:
        if running.problem in {WAITING, LOOKING}:
            running.problem = ""
    return compared(running, wanted.latest)


async def _catch_up(
    running: Running,
    sampler: Sampler,
    wanted: Wanted,
    turns: Turns,
    *,
    sticky: bool,
    observer: TickObserver | None,
) -> None:
    """Feed the ticks that are missing, those of one look at most."""
    step, latest = running.interval, wanted.latest
    if latest <= running.through + step / 2:
        return
    first = on_grid(running, latest)
    last = min(latest, round(first + (MOST_TICKS - 1) * step, 3))
    found = await _missing(sampler, wanted, (first, last, step))
    whole = [reading for reading in found if reading.complete]
    await running.feed(whole, sticky=sticky, observer=observer, turns=turns)
    running.problem = next((reading.message for reading in found if not reading.complete), "")


async def _missing(sampler: Sampler, wanted: Wanted, stretch: tuple[float, float, float]) -> Sequence[CounterReadings]:
    """The ticks of a stretch (first, last, step: seconds).

    A few are asked for one by one: many rollouts miss the same ones, and share these answers, which those of a range they cannot.
    """
    first, last, step = stretch
    count = round((last - first) / step) + 1
    if count > SHARED_TICKS:
        log.info("asking for missed ticks", rollout=wanted.request.key, first=first, last=last)
        return await sampler.counters_between(wanted.request, first, last, step, wanted.created)
    found = []
    for number in range(count):
        found.append(await sampler.counters(wanted.request, round(first + number * step, 3), wanted.created))
        if not found[-1].complete:
            break
    return found


async def _learn(
    running: Running, spec: CanaryRolloutSpec, sampler: Sampler, wanted: Wanted, turns: Turns, *, sticky: bool
) -> bool:
    """Stable's past, before the first tick; whether it is in, or is not waited for any longer."""
    steps = math.floor(min(spec.metrics.history, LONGEST_REPLAY) / HISTORY_STEP)
    end, request = running.began, wanted.request
    if request.tenants:
        # The order of the tenants is the revision's own: before it, a bucket held others.
        steps = min(steps, math.floor((end - (request.began or end)) / HISTORY_STEP))
        steps = steps if steps >= FEWEST_OF_TENANTS else 0
    if steps:
        readings = await sampler.counters_between(request, end - steps * HISTORY_STEP, end, HISTORY_STEP, {})
        running.tries -= 1  # a look that is cancelled costs none
        problem = next((reading.message for reading in readings if not reading.complete), "")
        if problem and running.tries:
            running.problem = problem
            return False
        if whole := [reading for reading in readings if reading.complete]:
            await running.learn(whole, sticky=sticky, turns=turns)
    running.tries = 0
    return True


def compared(running: Running, latest: float) -> Compared:
    """Return what the comparison says at ``latest`` (POSIX seconds); nothing on the strength of ticks long before it."""
    gate, tests = running.comparison.gate(), running.tests
    if tests and not running.counted and not running.problem:
        # Neither holds nor stops anything, like a standard rule whose series this app has never had.
        gate = PromotionGate(promote=True, upper_error_rate=1.0, message=NEVER_COUNTED)
        tests = tuple(replace(test, state=State.OFF, message=NEVER_COUNTED) for test in tests)
        return Compared(tests, gate, running.checkpoint())
    if latest - running.through > BEHIND * running.interval:
        why = f" ({running.problem})" if running.problem else ""
        words = f"no counts of the last {latest - running.through:.0f} s{why}"
        gate = PromotionGate(promote=False, upper_error_rate=gate.upper_error_rate, message=words)
        tests = tuple(_without_data(test, words) for test in tests)
    return Compared(tests, gate, running.checkpoint())


def _without_data(test: TestVerdict, words: str) -> TestVerdict:
    if test.outcome is Outcome.FAIL:
        return test  # a fail stays
    return replace(test, outcome=Outcome.NONE, state=State.NO_DATA, message=words)


def _tick(tracker: CounterTracker, reading: CounterReadings, weight: int, *, sticky: bool) -> Tick:
    at = reading.at
    for arm, pod, series, value, le, created in reading.samples:
        tracker.add(RawSample(at, arm, pod, series, value, le, created))
    tick = tracker.tick(at, weight, complete=reading.complete, sticky=sticky)
    return _by_tenant(tick) if reading.tenants else tick


def _by_tenant(tick: Tick) -> Tick:
    """Where requests are counted by bucket of tenants, pods are left for latency alone: each request counts once."""
    if not any(pod.pod.startswith(TENANT_BUCKET) for pod in (*tick.canary, *tick.stable)):
        return tick
    canary, stable = (tuple(map(_timed_only, pods)) for pods in (tick.canary, tick.stable))
    return replace(tick, canary=canary, stable=stable, absent=0.0)


def _timed_only(pod: PodCounts) -> PodCounts:
    if pod.pod.startswith(TENANT_BUCKET):
        return pod
    timed = pod.requests if pod.timed is None else pod.timed
    return replace(pod, requests=0.0, errors=0.0, timed=timed)
