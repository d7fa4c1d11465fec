"""What a rollout can be expected to see and find out, stage by stage. Pure: traffic and spec in, a plan out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf, isinf
from typing import Any, Final

from canary_rollout.analysis.power import NORMAL_90, Setting, detection_time, excluded_rate, smallest_regression
from canary_rollout.analysis.readings import (
    Reading,
    ReadingKind,
    Samples,
    key_of,
    measures_of,
    needs_requests,
    stable_key,
    window_of,
)
from canary_rollout.model.presets import TRAFFIC_SHARE
from canary_rollout.model.spec import Action, CanaryRolloutSpec, Gate, HaltRule, Stage
from canary_rollout.model.units import FULL, format_duration, format_weight

EXAMPLES: Final = (1.0, 0.05, 0.01)
"""Shares of failed requests for which the time to find them is told."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the application gets.

    Attributes:
        requests: per second, both versions together, on average.
        quiet: per second in the quietest hour.
        error_rate: share of stable's requests that fail, 0..1.
        burst: requests that fail together (1: each by itself).
        source: where these numbers are from, in words.
    """

    requests: float
    quiet: float
    error_rate: float
    burst: float = 1.0
    source: str = ""


@dataclass(frozen=True, slots=True)
class TooFew:
    """A rule or gate that cannot be judged in a stage, because the canary gets too few requests in its window.

    Attributes:
        holds: whether the stage is extended for it. A rule does that only where no comparison says how many are enough.
    """

    rule: str
    stage: str
    expected: float
    needed: int
    window: float
    holds: bool


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage.

    Attributes:
        requests: what the canary gets in the whole hold.
        per_second: the same per second.
        finds: the smallest share of failed requests that is found within the hold, in nine of ten cases; ``None``: not even
            a canary that fails every request, or there is nothing to compare with.
        times: by share of failed requests, seconds until it is found in nine of ten cases; infinite: never.
        excludes: the largest share of failed requests that a good canary's hold does not exclude, at 1 %.
    """

    stage: Stage
    requests: float
    per_second: float
    finds: float | None
    times: dict[float, float]
    excludes: float

    def to_dict(self) -> dict[str, Any]:
        """For ``-o json``: durations in seconds, shares 0..1, absent where there is none."""
        return {
            "name": self.stage.name,
            "weight": format_weight(self.stage.weight),
            "hold": format_duration(self.stage.hold),
            "canaryRequests": round(self.requests),
            "canaryRequestsPerSecond": self.per_second,
            **({} if self.finds is None else {"smallestRegression": self.finds}),
            "secondsToFind": {f"{rate:g}": time for rate, time in self.times.items() if not isinf(time)},
            "excludesAbove": self.excludes,
        }


@dataclass(frozen=True, slots=True)
class RuleState:
    """What a rule or gate has to go by today: ``ok``, ``inactive`` (no such series) or ``problem``."""

    rule: str
    state: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything ``plan`` shows."""

    traffic: Traffic
    stages: list[StagePlan]
    too_few: list[TooFew]
    rules: list[RuleState] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long the rollout takes if nothing stops it."""
        return sum(plan.stage.hold for plan in self.stages)


def plan_of(spec: CanaryRolloutSpec, traffic: Traffic) -> Plan:
    """The plan for so much traffic; without what Prometheus has for the rules."""
    stages = [_stage(spec, stage, traffic) for stage in spec.active_stages]
    return Plan(traffic, stages, list(_too_few(spec, stages)))


def _stage(spec: CanaryRolloutSpec, stage: Stage, traffic: Traffic) -> StagePlan:
    share = (stage.mirror or 0 if stage.mirrors else stage.weight) / FULL
    analysis = spec.analysis
    setting = Setting(
        traffic.requests,
        share,
        traffic.error_rate,
        # The budget is shared by those tests that may roll back; by default that is the error test alone.
        alpha=analysis.false_rollback_rate,
        tolerance=analysis.tolerance,
        floor=analysis.floor,
        burst=traffic.burst,
        interval=spec.metrics.interval,
    )
    finds = smallest_regression(setting, stage.hold) if analysis.enabled else None
    times = {rate: detection_time(setting, rate, NORMAL_90) if analysis.enabled else inf for rate in EXAMPLES}
    requests = setting.canary_requests * stage.hold
    return StagePlan(
        stage, requests, setting.canary_requests, finds, times, excluded_rate(requests, usual=traffic.error_rate)
    )


def _too_few(spec: CanaryRolloutSpec, stages: list[StagePlan]) -> Iterator[TooFew]:
    for plan in stages:
        for measure in measures_of(spec, plan.stage):
            if not needs_requests(measure) or (isinstance(measure, HaltRule) and _asks_the_comparison(spec, measure)):
                continue
            window = window_of(measure, spec.metrics)
            expected = plan.per_second * window
            if expected < measure.min_requests:
                holds = isinstance(measure, Gate) or (not spec.analysis.enabled and measure.action is not Action.ALERT)
                yield TooFew(label(measure), plan.stage.name, expected, measure.min_requests, window, holds)
        expected = plan.requests
        if spec.analysis.enabled and expected < spec.analysis.min_requests:
            yield TooFew(
                "promotion", plan.stage.name, expected, spec.analysis.min_requests, plan.stage.hold, holds=True
            )


def _asks_the_comparison(spec: CanaryRolloutSpec, rule: HaltRule) -> bool:
    """Whether a ratio of error rates is asked of the sequential comparison, which needs no minimum."""
    return spec.analysis.enabled and rule.preset == "error-rate" and rule.above_ratio is not None


def label(measure: HaltRule | Gate) -> str:
    """The name people know it by."""
    return measure.label if isinstance(measure, Gate) else measure.name


def rule_states(spec: CanaryRolloutSpec, samples: Samples) -> list[RuleState]:
    """What each rule and gate of the whole rollout has to go by in these samples, each once."""
    found: dict[str, RuleState] = {}
    for stage in spec.active_stages:
        for measure in measures_of(spec, stage):
            if measure.preset != TRAFFIC_SHARE and label(measure) not in found:
                key = key_of(measure, spec.metrics)
                now = samples.pair(stable_key(measure, spec.metrics) if measure.alert is None else key)
                found[label(measure)] = _state(label(measure), measure, now.stable, now.canary)
    return list(found.values())


def _state(name: str, measure: HaltRule | Gate, stable: Reading, canary: Reading) -> RuleState:
    readings = (canary,) if measure.alert is not None else (stable, canary)
    if any(reading.value is not None for reading in readings):
        return RuleState(name, "ok")
    for reading in readings:
        if reading.kind in {ReadingKind.BAD_QUERY, ReadingKind.UNAVAILABLE}:
            return RuleState(name, "problem", reading.message)
    absent = next((reading.message for reading in readings if reading.message), "")
    what = measure.preset or "its query"
    return RuleState(name, "inactive", absent or f"{what} has no value for either version today")
