"""One rule or gate against one set of samples: breached, clean, or why neither can be said. No memory of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from canary_rollout.analysis.evidence import Evidence, identity
from canary_rollout.analysis.readings import (
    REQUESTS,
    MeasureKey,
    Pair,
    Reading,
    ReadingKind,
    Samples,
    key_of,
    requests_key,
    window_of,
)
from canary_rollout.analysis.verdict import Lack
from canary_rollout.analysis.wording import clock, quantity, sentence
from canary_rollout.model.spec import Gate, HaltRule, Measure, Metrics
from canary_rollout.model.units import format_duration, format_number

_OUTAGES: Final = (ReadingKind.UNAVAILABLE, ReadingKind.BAD_QUERY, ReadingKind.ABSENT)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule or gate says about one set of samples.

    Attributes:
        breached: whether the bound is breached; ``None`` when it cannot be said.
        lack: why it cannot be said.
        text: the numbers, or what is missing; a clause without the rule's name.
        value: the canary's value; stable: stable's; requests: the canary's requests in the window.
        threshold: the bound the canary's value is held against (for a ratio: ratio times stable's value).
    """

    breached: bool | None
    lack: Lack | None
    text: str
    value: float | None = None
    stable: float | None = None
    requests: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """The bound of a rule or gate in one shape.

    Attributes:
        limit: the quantity, or the ratio.
        above: whether being above it is the breach (else being below).
        ratio: whether ``limit`` is a multiple of stable's value.
        unless_stable_too: whether stable's breaching it as well takes the word from the rule.
    """

    limit: float
    above: bool
    ratio: bool
    unless_stable_too: bool

    def breached_by(self, value: float, limit: float) -> bool:
        """Return whether a value is on the wrong side; a value equal to the limit is not."""
        return value > limit if self.above else value < limit


def bound_of(measure: HaltRule | Gate) -> Bound:
    """Return the one bound that the resource's validation lets through."""
    if isinstance(measure, HaltRule):
        high, low, ratio, unless = measure.above, measure.below, measure.above_ratio, measure.unless_stable_too
    else:
        high, low, ratio, unless = measure.max, measure.min, measure.max_ratio, False
    if ratio is not None:
        return Bound(ratio, above=True, ratio=True, unless_stable_too=False)
    if high is not None:
        return Bound(high, above=True, ratio=False, unless_stable_too=unless)
    return Bound(low or 0.0, above=False, ratio=False, unless_stable_too=unless)


class Judge:
    """Judges the rules and gates of one rollout against one set of samples.

    Args:
        metrics: the rollout's metrics settings.
        samples: what was measured.
        evidence: what was seen before.
        alone: whether there is no stable arm to compare with (the stage gives the canary everything).
        now: POSIX seconds.
        longest_age: seconds after which samples are no longer about now.
    """

    def __init__(
        self, metrics: Metrics, samples: Samples, evidence: Evidence, *, alone: bool, now: float, longest_age: float
    ) -> None:
        self._metrics = metrics
        self._samples = samples
        self._evidence = evidence
        self._alone = alone
        self._age = now - samples.at
        self._longest_age = longest_age

    def find(self, measure: HaltRule | Gate) -> Finding:
        """Return what a rule or gate says. The checks run in this order, the first that objects answers."""
        bound = bound_of(measure)
        if bound.ratio and self._alone:
            return _nothing(Lack.NOT_APPLICABLE, "stable gets no traffic in this stage, so there is nothing to compare")
        for check in (self._outage, self._afresh, self._too_few, self._no_value):
            if finding := check(measure):
                return finding
        value = self._pair(measure).canary.value
        assert value is not None  # noqa: S101 - _no_value objected otherwise
        return self._ratio(measure, bound, value) if bound.ratio else self._absolute(measure, bound, value)

    # -- what can be in the way --------------------------------------------------------------------------------------

    def _outage(self, measure: Measure) -> Finding | None:
        """Nothing came back that says anything about the app."""
        if self._age > self._longest_age:
            return _nothing(Lack.NO_DATA, f"the latest samples are {self._age:.0f} s old")
        readings = [self._pair(measure).canary]
        if measure.min_requests:
            readings.append(self._count(measure).canary)
        return next((_outage(reading) for reading in readings if reading.kind in _OUTAGES), None)

    def _afresh(self, measure: Measure) -> Finding | None:
        """The window still holds requests from before the rule began afresh."""
        fresh_after, window = self._evidence.fresh_after, window_of(measure, self._metrics)
        if fresh_after is None or self._samples.at - window >= fresh_after:
            return None
        return _nothing(
            Lack.NOT_ENOUGH,
            f"begun afresh at {clock(fresh_after)}, judged from {clock(fresh_after + window)} on, "
            f"when {format_duration(window)} of new data are there",
        )

    def _too_few(self, measure: Measure) -> Finding | None:
        """The canary had too few requests."""
        if not measure.min_requests:
            return None
        count = self._count(measure).canary
        if count.value is None:
            return self._no_count(measure)
        if count.value >= measure.min_requests:
            return None
        return _nothing(Lack.NOT_ENOUGH, self._of_minimum("the canary", measure, count), count.value)

    def _no_count(self, measure: Measure) -> Finding:
        """Nobody knows how many requests the canary had."""
        key = requests_key(measure, self._metrics)
        if self._seen_canary(key):
            return _nothing(Lack.NO_DATA, "the canary's request count was there and is gone")
        if self._seen_stable(key):
            return _nothing(Lack.NOT_ENOUGH, "no request of the canary was recorded yet")
        if measure.query is None and not self._seen_anywhere(measure):
            return _nothing(Lack.NOT_APPLICABLE, f"this app has never had the series of {measure.preset}")
        return _nothing(
            Lack.NOT_ENOUGH,
            "the number of requests is unknown, since this app has never had a request count; minRequests: 0 judges without",
        )

    def _no_value(self, measure: Measure) -> Finding | None:
        """Prometheus answered and had no number."""
        reading = self._pair(measure).canary
        if reading.value is not None:
            return None
        requests = self._requests(measure)
        what = measure.preset or "the query"
        how = "is not a number" if reading.kind is ReadingKind.NOT_A_NUMBER else "has no value"
        if self._seen_canary(key_of(measure, self._metrics)):
            return _nothing(Lack.NO_DATA, f"{what} {how} for the canary, and had one before", requests)
        if not self._seen_anywhere(measure):
            return _nothing(Lack.NOT_APPLICABLE, f"{what} {how}; this app has never had one", requests)
        lack = Lack.NO_DATA if measure.min_requests else Lack.NOT_ENOUGH
        return _nothing(lack, f"{what} {how} for the canary, though stable has one", requests)

    # -- the two kinds of bound --------------------------------------------------------------------------------------

    def _absolute(self, measure: HaltRule | Gate, bound: Bound, value: float) -> Finding:
        pair, requests = self._pair(measure), self._requests(measure)
        breached = bound.breached_by(value, bound.limit)
        limit = f"{'above' if bound.above else 'below'} {quantity(measure, bound.limit)}"
        text = self._sentence(measure, value)
        lack = None
        if not breached:
            text = f"{text}, not {limit}"
        elif bound.unless_stable_too and pair.stable.kind is ReadingKind.UNAVAILABLE:
            lack = Lack.NO_DATA
            text = f"{text}, {limit}, but whether stable is too is unknown: {pair.stable.message}"
        elif bound.unless_stable_too and self._stable_breaches(measure, bound, pair.stable.value):
            lack = Lack.NOT_APPLICABLE
            text = f"{text}, but stable is {limit} too ({quantity(measure, pair.stable.value or 0.0)})"
        else:
            text = f"{text}, {limit}"
        return Finding(breached if lack is None else None, lack, text, value, pair.stable.value, requests, bound.limit)

    def _ratio(self, measure: HaltRule | Gate, bound: Bound, value: float) -> Finding:
        stable = self._pair(measure).stable
        requests = self._requests(measure)
        if finding := self._no_stable(measure, stable):
            return finding
        assert stable.value is not None  # noqa: S101 - _no_stable objected otherwise
        text = self._sentence(measure, value)
        if stable.value <= 0:
            text = f"{text}, stable's is {quantity(measure, stable.value)}: a ratio to nothing"
            return Finding(None, Lack.NOT_APPLICABLE, text, value, stable.value, requests)
        limit = bound.limit * stable.value
        breached = bound.breached_by(value, limit)
        side = "above" if breached else "not above"
        text = f"{text}, {side} {format_number(bound.limit)} times stable's {quantity(measure, stable.value)}"
        return Finding(breached, None, text, value, stable.value, requests, limit)

    def _no_stable(self, measure: HaltRule | Gate, stable: Reading) -> Finding | None:
        """Stable has nothing the canary could be held against."""
        requests = self._requests(measure)
        if stable.kind is ReadingKind.ABSENT:
            return _nothing(Lack.NOT_APPLICABLE, f"there is no stable to compare with: {stable.message}", requests)
        count = self._count(measure).stable if measure.min_requests else stable
        for reading in (stable, count):
            if reading.kind in _OUTAGES:
                return _outage(reading)
        if measure.min_requests and count.value is not None and count.value < measure.min_requests:
            return _nothing(Lack.NOT_ENOUGH, self._of_minimum("stable", measure, count), requests)
        gone = count if count.value is None else stable
        if gone.value is not None:
            return None
        key = (
            requests_key(measure, self._metrics)
            if gone is count and gone is not stable
            else key_of(measure, self._metrics)
        )
        if self._seen_stable(key):
            return _nothing(Lack.NO_DATA, "stable's value was there and is gone", requests)
        return _nothing(Lack.NOT_APPLICABLE, "stable has never had a value to compare with", requests)

    # -- look-ups ----------------------------------------------------------------------------------------------------

    def _pair(self, measure: Measure) -> Pair:
        return self._samples.pair(key_of(measure, self._metrics))

    def _count(self, measure: Measure) -> Pair:
        return self._samples.pair(requests_key(measure, self._metrics))

    def _requests(self, measure: Measure) -> float | None:
        return self._count(measure).canary.value

    def _stable_breaches(self, measure: Measure, bound: Bound, value: float | None) -> bool:
        """Whether stable breaches the same threshold, with enough requests for that to mean something."""
        enough = not measure.min_requests or (self._count(measure).stable.value or 0.0) >= measure.min_requests
        return enough and value is not None and bound.breached_by(value, bound.limit)

    def _seen_canary(self, key: MeasureKey) -> bool:
        return identity(key) in self._evidence.seen_canary

    def _seen_stable(self, key: MeasureKey) -> bool:
        return identity(key) in self._evidence.seen_stable

    def _seen_anywhere(self, measure: Measure) -> bool:
        key = key_of(measure, self._metrics)
        return self._seen_canary(key) or self._seen_stable(key)

    def _sentence(self, measure: Measure, value: float) -> str:
        return sentence(measure, value, self._requests(measure), window_of(measure, self._metrics))

    def _of_minimum(self, who: str, measure: Measure, count: Reading) -> str:
        window = format_duration(window_of(measure, self._metrics))
        return f"{who} had {count.value or 0:.0f} of the {measure.min_requests} {REQUESTS} needed in {window}"


def _nothing(lack: Lack, text: str, requests: float | None = None) -> Finding:
    return Finding(None, lack, text, requests=requests)


_OUTAGE_WORDS: Final[dict[ReadingKind, Callable[[str], str]]] = {
    ReadingKind.UNAVAILABLE: lambda message: f"Prometheus does not answer: {message}",
    ReadingKind.BAD_QUERY: lambda message: f"Prometheus does not accept the query, correct it in the spec: {message}",
    ReadingKind.ABSENT: lambda message: f"there is no value: {message}",
}


def _outage(reading: Reading) -> Finding:
    return _nothing(Lack.NO_DATA, _OUTAGE_WORDS[reading.kind](reading.message))
