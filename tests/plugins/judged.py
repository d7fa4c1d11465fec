"""Short ways to samples and verdicts for the tests of analysis."""

from dataclasses import replace
from typing import Any

from small_specs import make_spec

from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.readings import EMPTY, Pair, Reading, Samples, keys_needed
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.verdict import Verdict
from canary_rollout.model.spec import CanaryRolloutSpec

NOON = 1_795_262_400.0  # 2026-11-21 12:00:00 UTC
DOWN = Reading.unavailable("no connection (connection refused)")


def rule(**more: Any) -> dict[str, Any]:
    """An error-rate rule: above 1 %, for 1m, 100 requests."""
    raw: dict[str, Any] = {"name": "errors", "preset": "error-rate", "for": "1m", "minRequests": 100}
    if not {"above", "below", "aboveRatio", "belowRatio", "aboveSigma"} & more.keys():
        raw["above"] = "1%"
    if "query" in more:
        del raw["preset"]
    return raw | more


def reading(value: float | Reading | None) -> Reading:
    """A number, a reading, or ``None`` for an empty answer."""
    if value is None:
        return EMPTY
    return value if isinstance(value, Reading) else Reading.of(value)


def with_spread(value: float, spread: float) -> Reading:
    """A number, and how far it scatters."""
    return replace(Reading.of(value), spread=spread)


def pair(stable: float | Reading | None, canary: float | Reading | None) -> Pair:
    """Both versions' readings."""
    return Pair(reading(stable), reading(canary))


HEALTHY = {"error-rate": pair(0.001, 0.001), "requests": pair(4000, 240)}


def samples(spec: CanaryRolloutSpec, at: float = NOON, stage: int = 0, **values: Pair) -> Samples:
    """Samples for everything a spec needs; ``error_rate`` names ``error-rate``, ``own`` every query; the rest is empty."""
    known = HEALTHY | {name.replace("_", "-"): found for name, found in values.items()}
    readings = {
        key: known.get("own" if key.own else key.what, pair(None, None))
        for key in keys_needed(spec, spec.stages[stage])
    }
    return Samples(at, readings)


def judge(
    raw: dict[str, Any], evidence: Evidence | None = None, *, at: float = NOON, stage: int = 0, **values: Pair
) -> tuple[Verdict, Evidence]:
    """The verdict of one rule at one sample."""
    spec = make_spec(rules=[raw])
    given = samples(spec, at, stage, **values)
    assessment, after = assess(spec, spec.stages[stage], given, evidence or Evidence(), at)
    return assessment.rules[0], after


def judge_gate(raw: dict[str, Any], *, stage: int = 0, **values: Pair) -> Verdict:
    """The verdict of one exit gate."""
    spec = make_spec(rules=[], gates=[raw])
    given = samples(spec, NOON, stage, **values)
    return assess(spec, spec.stages[stage], given, Evidence(), NOON)[0].exits[0]
