"""The sequential comparison of one rollout while this process has it: its evidence, fed tick by tick, and what it says.

Which ticks are missing, and how they are asked for, is in ``comparing``.
"""

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

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
from canary_rollout.model.plain import parse_json
from canary_rollout.model.status import RolloutState

HISTORY_STEP: Final = 60.0
"""Seconds between two ticks of stable's past: the length of a block of the dispersion."""

BEHIND: Final = 3.0
"""Intervals without a tick, after which nothing is said on the strength of older ones."""

PAST_TRIES: Final = 3
"""Times that stable's past is asked for before the comparison begins without it (a query that is too much, say)."""

MOST_WEIGHTS: Final = 12

NEVER_COUNTED: Final = "inactive, this app has never had requests counted (metrics.source says whose series are read)"


class TickObserver(Protocol):
    """Told about every tick, for metrics."""

    def ticked(self, seconds: float, *, replayed: bool) -> None:
        """A tick took so many seconds of CPU time; ``replayed``: it was asked for again."""
        ...


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
    _checkpoint: "Checkpoint | None" = None

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

    def checkpoint(self) -> "Checkpoint":
        """Return what a restart needs, as JSON; the very same object until something in it changes (once a minute)."""
        state = self.comparison.checkpoint()
        known = self._checkpoint
        if known is None or not known.holds(state, self.weights):
            known = self._checkpoint = Checkpoint(self.began, self.weights, state, self.past)
        return known

    def compared(self, latest: float) -> Compared:
        """Return what the comparison says at ``latest`` (POSIX seconds); nothing on the strength of ticks long before it."""
        gate, tests = self.comparison.gate(), self.tests
        if tests and not self.counted and not self.problem:
            # Neither holds nor stops anything, like a standard rule whose series this app has never had.
            gate = PromotionGate(promote=True, upper_error_rate=1.0, message=NEVER_COUNTED)
            tests = tuple(replace(test, state=State.OFF, message=NEVER_COUNTED) for test in tests)
            return Compared(tests, gate, self.checkpoint())
        if latest - self.through > BEHIND * self.interval:
            why = f" ({self.problem})" if self.problem else ""
            words = f"no counts of the last {latest - self.through:.0f} s{why}"
            gate = PromotionGate(promote=False, upper_error_rate=gate.upper_error_rate, message=words)
            tests = tuple(_without_data(test, words) for test in tests)
        return Compared(tests, gate, self.checkpoint())


class Checkpoint(Mapping[str, Any]):
    """What a restart needs, as JSON: written out when somebody reads it.

    A held rollout's changes once a minute and is read every five, and writing it out costs more than a tick.

    The evidence itself is one text: in an object, a merge patch would take every ``null`` for a field to be removed. It is bounded;
    ``left`` names what there was no room for.
    """

    __slots__ = ("_began", "_past", "_state", "_weights", "_written")

    def __init__(
        self, began: float, weights: Sequence[tuple[float, int]], state: Mapping[str, Any], past: HistoryTest
    ) -> None:
        """Take what is to be written; ``state`` (of the comparison) and ``past`` do not change any more."""
        self._began, self._weights, self._state, self._past = began, tuple(weights), state, past
        self._written: dict[str, Any] | None = None

    def holds(self, state: Mapping[str, Any], weights: Sequence[tuple[float, int]]) -> bool:
        """Return whether it is the checkpoint of this very state, under these weights."""
        return self._state is state and self._weights == tuple(weights)

    def written(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        if self._written is None:
            text, left = fitted_comparison(self._state, self._past.export() if self._state else {})
            weights = [list(weight) for weight in self._weights]
            self._written = {"began": self._began, "weights": weights, "evidence": text}
            if left:
                self._written["left"] = list(left)
        return self._written

    def __getitem__(self, name: str) -> Any:
        return self.written()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.written())

    def __len__(self) -> int:
        return len(self.written())


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
