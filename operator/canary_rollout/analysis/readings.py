"""What the sampler hands over: one reading per measure and version, all taken at one evaluation time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from canary_rollout.model.spec import CanaryRolloutSpec, HaltRule, Measure, Metrics, Stage

REQUESTS: Final = "requests"
"""The measure every minimum and the received share rest on: requests in the window, a count."""


class ReadingKind(StrEnum):
    """What came back for one measure and one version."""

    VALUE = "value"
    EMPTY = "empty"
    """Prometheus answered and had nothing. Whether it ever had is known to :class:`Evidence`, not to the sampler."""
    NOT_A_NUMBER = "notANumber"
    """NaN or an infinity: a division by nothing."""
    UNAVAILABLE = "unavailable"
    """Prometheus is down, too slow or refuses; says nothing about the app."""
    BAD_QUERY = "badQuery"
    """Prometheus does not accept the query; it stays so until somebody mends it."""
    ABSENT = "absent"
    """There is nothing to ask: no such version, or a query that does not tell the versions apart."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One number, or why there is none.

    Attributes:
        kind: which of the two.
        value: ratio 0..1, seconds, requests per second or a count, finite; ``None`` unless ``kind`` is ``VALUE``.
        message: what was wrong, in words for a person; empty for values and empty answers.
    """

    kind: ReadingKind
    value: float | None = None
    message: str = ""

    @classmethod
    def of(cls, value: float) -> "Reading":
        """Return a reading of ``value``, or of no number where it is NaN or infinite."""
        return cls(ReadingKind.VALUE, value) if math.isfinite(value) else NOT_A_NUMBER

    @classmethod
    def unavailable(cls, message: str) -> "Reading":
        """Return the reading of a Prometheus that did not answer."""
        return cls(ReadingKind.UNAVAILABLE, None, message)

    @classmethod
    def bad_query(cls, message: str) -> "Reading":
        """Return the reading of a query that Prometheus does not accept."""
        return cls(ReadingKind.BAD_QUERY, None, message)

    @classmethod
    def absent(cls, message: str) -> "Reading":
        """Return the reading of something that cannot be asked."""
        return cls(ReadingKind.ABSENT, None, message)


EMPTY: Final = Reading(ReadingKind.EMPTY)
NOT_A_NUMBER: Final = Reading(ReadingKind.NOT_A_NUMBER)
_NOT_SAMPLED: Final = Reading(ReadingKind.ABSENT, None, "it was not sampled")


class MeasureKey(NamedTuple):
    """Names one measure: rules and gates that ask for the same thing share it.

    Attributes:
        what: a preset's name, :data:`REQUESTS`, or the text of a query of the user's own.
        window: range of the rates, seconds.
        weighted_only: leave cohort members out, as a comparison of the versions must (design invariant 14).
        own: whether ``what`` is a query.
    """

    what: str
    window: float
    weighted_only: bool = False
    own: bool = False


class Pair(NamedTuple):
    """The readings of one measure for both versions, at the same time."""

    stable: Reading
    canary: Reading


_UNKNOWN: Final = Pair(_NOT_SAMPLED, _NOT_SAMPLED)


@dataclass(frozen=True, slots=True)
class Samples:
    """Everything known about one rollout at one evaluation time.

    Attributes:
        at: evaluation time of every reading, POSIX seconds.
        readings: by measure; one that is missing counts as never sampled.
    """

    at: float
    readings: Mapping[MeasureKey, Pair]

    def pair(self, key: MeasureKey) -> Pair:
        """Return both versions' readings of a measure."""
        return self.readings.get(key, _UNKNOWN)


def window_of(measure: Measure, metrics: Metrics) -> float:
    """Return the range a measure looks back over, seconds."""
    return metrics.window if measure.window is None else measure.window


def compares(measure: Measure) -> bool:
    """Return whether a rule or gate holds the canary against stable."""
    return (measure.above_ratio if isinstance(measure, HaltRule) else getattr(measure, "max_ratio", None)) is not None


def key_of(measure: Measure, metrics: Metrics) -> MeasureKey:
    """Return the key under which a rule's or gate's values are found."""
    what = measure.preset or measure.query or ""
    own = measure.preset is None
    return MeasureKey(what, window_of(measure, metrics), compares(measure) and not own, own)


def requests_key(measure: Measure, metrics: Metrics) -> MeasureKey:
    """Return the key of the request count that a rule's or gate's ``minRequests`` is held against."""
    return MeasureKey(REQUESTS, window_of(measure, metrics), compares(measure))


def share_key(metrics: Metrics) -> MeasureKey:
    """Return the key of the request count that the received share rests on."""
    return MeasureKey(REQUESTS, metrics.window, weighted_only=True)


def keys_needed(spec: CanaryRolloutSpec, stage: Stage | None) -> frozenset[MeasureKey]:
    """Return all that must be sampled for a rollout in a stage (``None``: the halt rules alone)."""
    measures: list[Measure] = [rule for rule in spec.halt_rules if rule.enabled]
    measures += stage.exit if stage is not None else ()
    keys = {share_key(spec.metrics)}
    for measure in measures:
        keys.add(key_of(measure, spec.metrics))
        if measure.min_requests:
            keys.add(requests_key(measure, spec.metrics))
    return frozenset(keys)
