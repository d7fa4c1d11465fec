"""What a rule or gate says about one set of samples, and the words for why it says nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from canary_rollout.analysis.readings import Reading, ReadingKind
from canary_rollout.analysis.verdict import Lack
from canary_rollout.model.spec import Gate, HaltRule

OUTAGES: Final = (ReadingKind.UNAVAILABLE, ReadingKind.BAD_QUERY, ReadingKind.ABSENT)
"""Readings that say nothing about the app."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule or gate says about one set of samples.

    Attributes:
        breached: whether the bound is breached; ``None`` when it cannot be said.
        lack: why it cannot be said.
        text: the numbers, or what is missing; a clause without the rule's name.
        value: the canary's value; stable: stable's; requests: the canary's requests in the window.
        threshold: the bound the canary's value is held against (for a ratio: ratio times the baseline's value).
        inactive: whether it does not apply because the app has never had the series of its preset.
        few: whether all that is missing is requests.
    """

    breached: bool | None
    lack: Lack | None
    text: str
    value: float | None = None
    stable: float | None = None
    requests: float | None = None
    threshold: float | None = None
    inactive: bool = False
    few: bool = False


class Kind(StrEnum):
    """What a bound is a multiple of."""

    ABSOLUTE = "absolute"
    RATIO = "ratio"
    SIGMA = "sigma"


@dataclass(frozen=True, slots=True)
class Bound:
    """The bound of a rule or gate in one shape.

    Attributes:
        limit: the quantity, the ratio, or the number of spreads.
        above: whether being above it is the breach (else being below).
        kind: which of the three ``limit`` is.
        unless_stable_too: whether stable's breaching it as well takes the word from the rule.
    """

    limit: float
    above: bool
    kind: Kind
    unless_stable_too: bool

    def breached_by(self, value: float, limit: float) -> bool:
        """Return whether a value is on the wrong side; a value equal to the limit is not."""
        return value > limit if self.above else value < limit


def bound_of(measure: HaltRule | Gate) -> Bound:
    """Return the one bound that the resource's validation lets through; an alert's is "none fires"."""
    if isinstance(measure, HaltRule):
        unless = measure.unless_stable_too
        high, low = measure.above, measure.below
        high_ratio, low_ratio, sigma = measure.above_ratio, measure.below_ratio, measure.above_sigma
    else:
        unless = False
        high, low = measure.max, measure.min
        high_ratio, low_ratio, sigma = measure.max_ratio, measure.min_ratio, measure.max_sigma
    for limit, above, kind in (
        (high, True, Kind.ABSOLUTE),
        (low, False, Kind.ABSOLUTE),
        (high_ratio, True, Kind.RATIO),
        (low_ratio, False, Kind.RATIO),
        (sigma, True, Kind.SIGMA),
    ):
        if limit is not None:
            return Bound(limit, above, kind, unless)
    return Bound(0.0, above=True, kind=Kind.ABSOLUTE, unless_stable_too=unless)


def nothing(lack: Lack, text: str, requests: float | None = None) -> Finding:
    """A finding without a verdict."""
    return Finding(None, lack, text, requests=requests)


_OUTAGE_WORDS: Final[dict[ReadingKind, Callable[[str], str]]] = {
    ReadingKind.UNAVAILABLE: lambda message: f"Prometheus does not answer: {message}",
    ReadingKind.BAD_QUERY: lambda message: f"Prometheus does not accept the query, correct it in the spec: {message}",
    ReadingKind.ABSENT: lambda message: f"there is no value: {message}",
}


def outage(reading: Reading) -> Finding:
    """A finding for a reading that says nothing about the app."""
    return nothing(Lack.NO_DATA, _OUTAGE_WORDS[reading.kind](reading.message))
