"""What the sampler hands over: one reading per measure and version, all taken at one evaluation time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from canary_rollout.model.presets import TRAFFIC_SHARE
from canary_rollout.model.spec import (
    AlertSelector,
    BaselineFrom,
    CanaryRolloutSpec,
    Gate,
    HaltRule,
    Measure,
    Metrics,
    Stage,
)

REQUESTS: Final = "requests"
"""The measure every minimum and the received share rest on: requests in the window, a count."""


BEFORE: Final = "before"
"""Baseline: stable's value over the window that ended when the rollout began."""

SAME_HOUR: Final = "sameHour"
"""Baseline: median and spread of stable's values at this hour of the last seven days."""


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
        spread: of a baseline over several days: 1.4826 times the median absolute deviation, in units of ``value``.
    """

    kind: ReadingKind
    value: float | None = None
    message: str = ""
    spread: float | None = None

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
        server: name of one of ``metrics.servers``; empty: ``metrics.prometheus``.
        baseline: what stands in for stable in the :class:`Pair`: empty (stable itself, now), :data:`BEFORE` or
            :data:`SAME_HOUR`.
        alerts: whether ``what`` is a selector of firing alerts (PromQL matchers without braces, with ``$namespace``,
            ``$service`` and ``$deployment`` still to be filled in); the canary's value is then the number of alerts that fire, 0
            included. With ``baseline`` :data:`BEFORE`, stable's is how many of these very alerts already fired when the
            rollout began; without, there is no stable.
        source: whose series the preset reads; empty: ``metrics.source``, or wherever the preset is found.
    """

    what: str
    window: float
    weighted_only: bool = False
    own: bool = False
    server: str = ""
    baseline: str = ""
    alerts: bool = False
    source: str = ""


class Pair(NamedTuple):
    """The readings of one measure for both versions, at the same time."""

    stable: Reading
    canary: Reading


NEITHER: Final = Pair(EMPTY, EMPTY)
"""Prometheus has nothing of either version: the very same object each time."""

_UNKNOWN: Final = Pair(_NOT_SAMPLED, _NOT_SAMPLED)


class CounterSample(NamedTuple):
    """One cumulative counter of one pod as Prometheus had it, or one gauge; the fields of a line of ``canary replay``.

    Attributes:
        arm: ``stable`` or ``canary``.
        pod: name of the pod (of whatever is scraped), or ``bucket:17`` for a bucket of tenants.
        series: ``requests``, ``errors``, ``latency_bucket`` or ``gauge:NAME``.
        value: cumulative since the pod began, or the gauge's value.
        le: with ``latency_bucket``, the bucket's upper edge, seconds; infinity for the last.
        created: the pod's creation, POSIX seconds; ``None``: older than the analysis.
    """

    arm: Literal["stable", "canary"]
    pod: str
    series: str
    value: float
    le: float | None = None
    created: float | None = None


@dataclass(frozen=True, slots=True)
class CounterReadings:
    """Raw counters of both versions, all at one evaluation time: one tick of the sequential comparison.

    Attributes:
        at: evaluation time on the rollout's tick grid, POSIX seconds; one scrape behind the present.
        samples: all of them; what is not there was not scraped.
        complete: whether every query was answered; evidence is frozen while it is not.
        message: why not, in words for a person.
        tenants: whether buckets of tenants are among the samples.
    """

    at: float
    samples: tuple[CounterSample, ...] = ()
    complete: bool = True
    message: str = ""
    tenants: bool = False


@dataclass(frozen=True, slots=True)
class Samples:
    """Everything known about one rollout at one evaluation time.

    Attributes:
        at: evaluation time of every reading, POSIX seconds.
        readings: by measure; one that is missing counts as never sampled.
        counters: raw counters for the sequential comparison, at their own, slightly earlier time; ``None``: not asked.
    """

    at: float
    readings: Mapping[MeasureKey, Pair]
    counters: CounterReadings | None = None

    def pair(self, key: MeasureKey) -> Pair:
        """Return both versions' readings of a measure."""
        return self.readings.get(key, _UNKNOWN)


_BASELINES: Final = {
    BaselineFrom.STABLE: "",
    BaselineFrom.BEFORE_ROLLOUT: BEFORE,
    BaselineFrom.SAME_HOUR: SAME_HOUR,
    BaselineFrom.FIXED: "",
}


def window_of(measure: Measure, metrics: Metrics) -> float:
    """Return the range a measure looks back over, seconds."""
    return metrics.window if measure.window is None else measure.window


def compares(measure: Measure) -> bool:
    """Return whether a rule or gate holds the canary against stable, now or in the past."""
    relative = measure.ratio is not None or measure.sigma is not None
    return relative and measure.baseline_from is not BaselineFrom.FIXED


def needs_requests(measure: Measure) -> bool:
    """Return whether a rule or gate asks for a number of requests first; alerts do not."""
    return bool(measure.min_requests) and measure.alert is None


def key_of(measure: Measure, metrics: Metrics) -> MeasureKey:
    """Return the key under which a rule's or gate's values are found.

    An alert's ``stable`` is the number of those alerts that fired when the rollout began (:data:`BEFORE`), where that matters.
    """
    window, server = window_of(measure, metrics), measure.server or ""
    if measure.alert is not None:
        known_ones = isinstance(measure, HaltRule) and measure.unless_stable_too
        baseline = BEFORE if known_ones else ""
        return MeasureKey(matchers_of(measure.alert), 0.0, server=server, baseline=baseline, alerts=True)
    own = measure.preset is None
    relative = compares(measure)
    return MeasureKey(
        measure.preset or measure.query or "",
        window,
        weighted_only=relative and not own,
        own=own,
        server=server,
        baseline=_BASELINES[measure.baseline_from] if relative else "",
        source=measure.source or "",
    )


def stable_key(measure: Measure, metrics: Metrics) -> MeasureKey:
    """Return the key of the same measure with stable as it is now, whatever its baseline."""
    return key_of(measure, metrics)._replace(baseline="")


def matchers_of(alert: AlertSelector) -> str:
    """Return label matchers of an alert selector, without braces; ``$namespace``, ``$service`` and ``$deployment`` are left in."""
    labels = dict(alert.labels)
    if not alert.any_namespace:
        labels.setdefault("namespace", "$namespace")
    return ",".join(_matcher(name, value) for name, value in sorted(labels.items()))


def _matcher(name: str, value: str) -> str:
    if "|" not in value:
        return f'{name}="{value}"'
    # In a regular expression only the dot of the admitted characters means something.
    return f'{name}=~"{value.replace(".", "[.]")}"'


def requests_key(measure: Measure, metrics: Metrics) -> MeasureKey:
    """Return the key of the request count that a rule's or gate's ``minRequests`` is held against."""
    return MeasureKey(REQUESTS, window_of(measure, metrics), compares(measure))


def share_key(metrics: Metrics, window: float | None = None) -> MeasureKey:
    """Return the key of the request count that the received share rests on."""
    return MeasureKey(REQUESTS, metrics.window if window is None else window, weighted_only=True)


def following(spec: CanaryRolloutSpec, stage: Stage | None) -> Stage | None:
    """Return the stage that comes after ``stage`` (``None``: the first one), ``None`` after the last."""
    names = [active.name for active in spec.active_stages]
    place = 0 if stage is None else names.index(stage.name) + 1 if stage.name in names else len(names)
    return spec.active_stages[place] if place < len(names) else None


def measures_of(spec: CanaryRolloutSpec, stage: Stage | None) -> tuple[HaltRule | Gate, ...]:
    """Return all that is judged in a stage: halt rules that are on, its exit gates, the entry gates of the next."""
    entering = following(spec, stage)
    rules = tuple(rule for rule in spec.rules_for(stage) if rule.enabled)
    exits = stage.exit if stage is not None else ()
    return (*rules, *exits, *(entering.entry if entering is not None else ()))


def keys_needed(spec: CanaryRolloutSpec, stage: Stage | None) -> frozenset[MeasureKey]:
    """Return all that must be sampled for a rollout in a stage (``None``: before the first one)."""
    keys = {share_key(spec.metrics)}
    for measure in measures_of(spec, stage):
        if measure.preset == TRAFFIC_SHARE:
            keys.add(share_key(spec.metrics, window_of(measure, spec.metrics)))
            continue
        keys.add(key_of(measure, spec.metrics))
        if measure.alert is None:
            keys.add(stable_key(measure, spec.metrics))
        if needs_requests(measure):
            keys.add(requests_key(measure, spec.metrics))
    return _together(frozenset(map(_once, keys)))


@lru_cache(8192)
def _once(key: MeasureKey) -> MeasureKey:
    """The same object for all rollouts that ask alike: with the standard rules, nearly all."""
    return key


@lru_cache(1024)
def _together(keys: frozenset[MeasureKey]) -> frozenset[MeasureKey]:
    """The same set, likewise."""
    return keys
