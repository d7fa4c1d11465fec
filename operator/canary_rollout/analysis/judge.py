"""One rule or gate against one set of samples: breached, clean, or why neither can be said. No memory of its own."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from canary_rollout.analysis.asked import Asked, asked_by
from canary_rollout.analysis.evidence import Evidence, identity
from canary_rollout.analysis.findings import OUTAGES, Bound, Finding, Kind, nothing, outage
from canary_rollout.analysis.readings import (
    NEITHER,
    REQUESTS,
    MeasureKey,
    Pair,
    Reading,
    ReadingKind,
    Samples,
)
from canary_rollout.analysis.sequential import TestVerdict
from canary_rollout.analysis.special import asks_comparison, asks_share, find_alert, find_in_comparison, find_share
from canary_rollout.analysis.verdict import Lack
from canary_rollout.analysis.wording import clock, quantity, sentence
from canary_rollout.model.presets import EVENTS, Unit, unit_of
from canary_rollout.model.spec import BaselineFrom, CanaryRolloutSpec, Gate, HaltRule, Stage
from canary_rollout.model.units import FULL, format_duration, format_number

_LEAST_SPREAD: Final = 0.05
"""Of the baseline's value: what never varied is not taken for exact."""

_GONE_FOR_GOOD: Final = "; if this version no longer has it, enabled: false on this rule goes on without"
"""The way out that only a person can take: an outage and a series that was given up look the same."""

_PAST: Final = {
    BaselineFrom.BEFORE_ROLLOUT: "before the rollout",
    BaselineFrom.SAME_HOUR: "at this hour of the last days",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What is judged in.

    Attributes:
        spec: the rollout's spec.
        stage: the stage; ``None``: before the first one, when the canary serves nothing.
        samples: what was measured.
        evidence: what was seen before.
        tests: verdicts of the sequential comparison; ``None`` where there is none.
        age: seconds since the samples were taken.
        longest_age: seconds after which they are no longer about now.
    """

    spec: CanaryRolloutSpec
    stage: Stage | None
    samples: Samples
    evidence: Evidence
    tests: tuple[TestVerdict, ...] | None
    age: float
    longest_age: float

    @property
    def alone(self) -> bool:
        """Whether there is no stable arm to compare with (the stage gives the canary everything)."""
        return self.stage is not None and self.stage.weight >= FULL

    @property
    def countable(self) -> bool:
        """Whether requests are what the weight distributes: no tenants, no members of a cohort among them."""
        with_members = self.spec.metrics.source != "agent" and self.stage is not None and self.stage.cohort is not None
        return self.spec.traffic.sticky is None and not with_members


@lru_cache(1024)
def never_had(preset: str) -> Finding:
    """What is said of a rule whose series the app never had; the very same each time."""
    text = f"inactive, this app has never had the series of {preset}"
    return Finding(None, Lack.NOT_APPLICABLE, text, inactive=True)


class Judge:
    """Judges the rules and gates of one rollout against one set of samples."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._metrics = scene.spec.metrics
        self._samples = scene.samples
        self._evidence = scene.evidence
        self._measure: HaltRule | Gate | None = None
        self._its: Asked | None = None

    def find(self, measure: HaltRule | Gate, *, muted: bool = False) -> Finding:
        """Return what a rule or gate says. The checks run in this order, the first that objects answers.

        Args:
            measure: the rule or gate.
            muted: of an alert: whether it fired when somebody resumed.
        """
        asked = self._asked(measure)
        if self._scene.age > self._scene.longest_age:
            return nothing(Lack.NO_DATA, f"the latest samples are {self._scene.age:.0f} s old")
        if special := self._special(measure, asked, muted=muted):
            return special
        if self._samples.pair(asked.key) is NEITHER and (silent := self._silent(measure, asked)):
            return silent
        for check in (self._no_counterpart, self._outage, self._inactive, self._afresh, self._too_few, self._no_value):
            if finding := check(measure):
                return finding
        value = self._reading(measure).value
        assert value is not None  # noqa: S101 - _no_value objected otherwise
        judged = self._absolute if asked.bound.kind is Kind.ABSOLUTE else self._relative
        return judged(measure, asked.bound, value)

    def _silent(self, measure: HaltRule | Gate, asked: Asked) -> Finding | None:
        """The shortest way for most standard rules: their series are nobody's, and never were. The checks say the same."""
        if (
            measure.preset is None
            or asked.with_now
            or not isinstance(measure, HaltRule)
            or self._seen_anywhere(measure)
        ):
            return None
        if asked.needs_requests and self._count(measure).canary.kind in OUTAGES:
            return None
        return never_had(measure.preset)

    def _special(self, measure: HaltRule | Gate, asked: Asked, *, muted: bool) -> Finding | None:
        if measure.alert is not None:
            return find_alert(measure.alert, self._pair(measure), known=bool(asked.key.baseline), muted=muted)
        if asks_share(measure):
            pair = self._samples.pair(asked.key)
            finding = find_share(measure, asked.bound.limit, pair, self._scene.stage, countable=self._scene.countable)
            return self._afresh(measure) or finding if finding.breached is not None else finding
        if asks_comparison(measure) and isinstance(measure, HaltRule):
            wanted = self._scene.spec.analysis.actions.errors
            return find_in_comparison(measure, asked.bound.limit, self._scene.tests, wanted)
        return None

    # -- what can be in the way --------------------------------------------------------------------------------------

    def _no_counterpart(self, measure: HaltRule | Gate) -> Finding | None:
        """Only one of the two versions serves anything."""
        if not self._asked(measure).with_now:
            return None
        if self._scene.alone:
            return nothing(Lack.NOT_APPLICABLE, "stable gets no traffic in this stage, so there is nothing to compare")
        if self._scene.stage is None:
            return nothing(Lack.NOT_APPLICABLE, "the canary serves nothing yet, so there is nothing to compare")
        return None

    def _outage(self, measure: HaltRule | Gate) -> Finding | None:
        """Nothing came back that says anything about the app."""
        reading = self._reading(measure)
        if reading.kind in OUTAGES:
            return outage(reading)
        if self._needs_requests(measure) and (count := self._count(measure).canary).kind in OUTAGES:
            return outage(count)
        return None

    def _inactive(self, measure: HaltRule | Gate) -> Finding | None:
        """The app never had what a preset asks for: the rule is listed and asks nothing of anybody."""
        if measure.preset is None or self._reading(measure).value is not None or self._seen_anywhere(measure):
            return None
        return never_had(measure.preset)

    def _afresh(self, measure: HaltRule | Gate) -> Finding | None:
        """The window still holds requests from before the rule began afresh."""
        fresh_after, window = self._evidence.fresh_after, self._asked(measure).window
        if fresh_after is None or self._samples.at - window >= fresh_after:
            return None
        return nothing(
            Lack.NOT_ENOUGH,
            f"begun afresh at {clock(fresh_after)}, judged from {clock(fresh_after + window)} on, "
            f"when {format_duration(window)} of new data are there",
        )

    def _too_few(self, measure: HaltRule | Gate) -> Finding | None:
        """The canary had too few requests."""
        if not self._needs_requests(measure):
            return None
        count = self._count(measure).canary
        if count.value is None:
            return self._no_count(measure)
        if count.value >= measure.min_requests:
            return None
        text = self._of_minimum("the canary", measure, count)
        return Finding(None, Lack.NOT_ENOUGH, text, requests=count.value, few=True)

    def _no_count(self, measure: HaltRule | Gate) -> Finding:
        """Nobody knows how many requests the canary had."""
        key = self._asked(measure).requests
        if self._seen_canary(key):
            return nothing(Lack.NO_DATA, "the canary's request count was there and is gone")
        if self._seen_stable(key):
            return Finding(None, Lack.NOT_ENOUGH, "no request of the canary was recorded yet", few=True)
        return nothing(
            Lack.NOT_ENOUGH,
            "the number of requests is unknown, since this app has never had a request count; minRequests: 0 judges without",
        )

    def _no_value(self, measure: HaltRule | Gate) -> Finding | None:
        """Prometheus answered and had no number."""
        reading = self._reading(measure)
        if reading.value is not None:
            return None
        requests = self._requests(measure)
        if isinstance(measure, HaltRule) and measure.preset in EVENTS:
            window = format_duration(self._asked(measure).window)
            return nothing(Lack.NOT_APPLICABLE, f"the canary had nothing to measure in {window}", requests)
        what = measure.preset or "the query"
        how = "is not a number" if reading.kind is ReadingKind.NOT_A_NUMBER else "has no value"
        if self._seen_canary(self._asked(measure).key):
            return nothing(Lack.NO_DATA, f"{what} {how} for the canary, and had one before", requests)
        if not self._seen_anywhere(measure):
            return nothing(Lack.NOT_APPLICABLE, f"{what} {how}; this app has never had one", requests)
        lack = Lack.NO_DATA if self._needs_requests(measure) else Lack.NOT_ENOUGH
        out = _GONE_FOR_GOOD if lack is Lack.NO_DATA and isinstance(measure, HaltRule) else ""
        return nothing(lack, f"{what} {how} for the canary, though stable has one{out}", requests)

    # -- the kinds of bound ------------------------------------------------------------------------------------------

    def _absolute(self, measure: HaltRule | Gate, bound: Bound, value: float) -> Finding:
        side = f"{'above' if bound.above else 'below'} {quantity(measure, bound.limit)}"
        return self._weigh(measure, bound, value, bound.limit, side)

    def _relative(self, measure: HaltRule | Gate, bound: Bound, value: float) -> Finding:
        """Hold the value against a multiple of the baseline, or so many spreads above it."""
        requests = self._requests(measure)
        if measure.baseline is not None and measure.baseline.value is not None:
            base, whose = measure.baseline.value, f"the fixed {quantity(measure, measure.baseline.value)}"
        else:
            reading = self._pair(measure).stable
            if finding := self._no_stable(measure, reading):
                return finding
            assert reading.value is not None  # noqa: S101 - _no_stable objected otherwise
            base, past = reading.value, _PAST.get(measure.baseline_from)
            whose = f"stable's {quantity(measure, base)}{f' {past}' if past else ''}"
        if bound.kind is Kind.RATIO:
            if base <= 0:
                text = f"{self._sentence(measure, value)}, {whose}: a ratio to nothing"
                return Finding(None, Lack.NOT_APPLICABLE, text, value, base, requests)
            limit = bound.limit * base
            side = f"{'above' if bound.above else 'below'} {format_number(bound.limit)} times {whose}"
            return self._weigh(measure, bound, value, limit, side)
        spread = self._spread(measure, base, requests)
        if spread <= 0:
            text = f"{self._sentence(measure, value)}; {whose} has no spread to hold it against"
            return Finding(None, Lack.NOT_APPLICABLE, text, value, base, requests)
        limit = base + bound.limit * spread
        side = (
            f"above {quantity(measure, limit)}, which is {format_number(bound.limit)} spreads of "
            f"{quantity(measure, spread)} above {whose}"
        )
        return self._weigh(measure, bound, value, limit, side)

    def _spread(self, measure: HaltRule | Gate, base: float, requests: float | None) -> float:
        """Spread of the baseline and, for shares, of the canary's own few requests: they are not stable's many."""
        known = self._pair(measure).stable.spread or 0.0
        spread = max(known, _LEAST_SPREAD * abs(base))
        if requests and unit_of(measure.preset) in {Unit.FAILED, Unit.SHARE}:
            share = min(1.0, max(base, 1 / requests))
            return math.hypot(spread, math.sqrt(share * (1 - share) / requests))
        return spread

    def _weigh(self, measure: HaltRule | Gate, bound: Bound, value: float, limit: float, side: str) -> Finding:
        """Whether the value is on the wrong side, and stable is not there too."""
        stable, requests = self._stable_now(measure), self._requests(measure)
        breached, lack = bound.breached_by(value, limit), None
        text = self._sentence(measure, value)
        asked = bound.unless_stable_too and not self._asked(measure).with_now
        if not breached:
            text = f"{text}, not {side}"
        elif asked and stable.kind is ReadingKind.UNAVAILABLE:
            lack = Lack.NO_DATA
            text = f"{text}, {side}, but whether stable is too is unknown: {stable.message}"
        elif asked and self._stable_breaches(measure, bound, stable.value, limit):
            lack = Lack.NOT_APPLICABLE
            text = f"{text}, but stable is {side} too ({quantity(measure, stable.value or 0.0)})"
        else:
            text = f"{text}, {side}"
        return Finding(breached if lack is None else None, lack, text, value, stable.value, requests, limit)

    def _stable_now(self, measure: HaltRule | Gate) -> Reading:
        """Stable as it is now, also where the baseline is its past."""
        asked = self._asked(measure)
        return self._samples.pair(asked.key if asked.with_now else asked.stable).stable

    def _no_stable(self, measure: HaltRule | Gate, stable: Reading) -> Finding | None:
        """Stable has nothing the canary could be held against."""
        requests = self._requests(measure)
        if stable.kind is ReadingKind.ABSENT:
            return nothing(Lack.NOT_APPLICABLE, f"there is no stable to compare with: {stable.message}", requests)
        if past := _PAST.get(measure.baseline_from):
            if stable.value is not None:
                return None
            absent = nothing(Lack.NOT_APPLICABLE, f"stable had no value {past}", requests)
            return outage(stable) if stable.kind in OUTAGES else absent
        return self._no_stable_now(measure, stable)

    def _no_stable_now(self, measure: HaltRule | Gate, stable: Reading) -> Finding | None:
        requests = self._requests(measure)
        count = self._count(measure).stable if measure.min_requests else stable
        for reading in (stable, count):
            if reading.kind in OUTAGES:
                return outage(reading)
        if measure.min_requests and count.value is not None and count.value < measure.min_requests:
            text = self._of_minimum("stable", measure, count)
            return Finding(None, Lack.NOT_ENOUGH, text, requests=requests, few=True)
        gone = count if count.value is None else stable
        if gone.value is not None:
            return None
        of_count = gone is count and gone is not stable
        key = self._asked(measure).requests if of_count else self._asked(measure).key
        if self._seen_stable(key):
            return nothing(Lack.NO_DATA, "stable's value was there and is gone", requests)
        return nothing(Lack.NOT_APPLICABLE, "stable has never had a value to compare with", requests)

    # -- look-ups ----------------------------------------------------------------------------------------------------

    def _asked(self, measure: HaltRule | Gate) -> Asked:
        if self._its is None or self._measure is not measure:  # one after the other, and each is asked for many times
            self._measure, self._its = measure, asked_by(measure, self._metrics)
        return self._its

    def _needs_requests(self, measure: HaltRule | Gate) -> bool:
        """Before the first stage the canary cannot have had a request."""
        return self._asked(measure).needs_requests and not (isinstance(measure, Gate) and self._scene.stage is None)

    def _pair(self, measure: HaltRule | Gate) -> Pair:
        return self._samples.pair(self._asked(measure).key)

    def _reading(self, measure: HaltRule | Gate) -> Reading:
        """The canary's reading. Gates before the first stage, when it serves nothing, are asked of stable where it has none."""
        pair = self._pair(measure)
        if self._scene.stage is None and isinstance(measure, Gate) and pair.canary.value is None:
            return self._samples.pair(self._asked(measure).stable).stable
        return pair.canary

    def _count(self, measure: HaltRule | Gate) -> Pair:
        return self._samples.pair(self._asked(measure).requests)

    def _requests(self, measure: HaltRule | Gate) -> float | None:
        return self._count(measure).canary.value

    def _stable_breaches(self, measure: HaltRule | Gate, bound: Bound, value: float | None, limit: float) -> bool:
        """Whether stable breaches the same threshold, with enough requests for that to mean something."""
        enough = not measure.min_requests or (self._count(measure).stable.value or 0.0) >= measure.min_requests
        return enough and value is not None and bound.breached_by(value, limit)

    def _seen_canary(self, key: MeasureKey) -> bool:
        return identity(key) in self._evidence.seen_canary

    def _seen_stable(self, key: MeasureKey) -> bool:
        return identity(key) in self._evidence.seen_stable

    def _seen_anywhere(self, measure: HaltRule | Gate) -> bool:
        key = self._asked(measure).key
        return self._seen_canary(key) or self._seen_stable(key)

    def _sentence(self, measure: HaltRule | Gate, value: float) -> str:
        asked = self._asked(measure)
        requests = self._requests(measure) if asked.needs_requests else None
        return sentence(measure, value, requests, asked.window)

    def _of_minimum(self, who: str, measure: HaltRule | Gate, count: Reading) -> str:
        window = format_duration(self._asked(measure).window)
        return f"{who} had {count.value or 0:.0f} of the {measure.min_requests} {REQUESTS} needed in {window}"
