"""Halt rules and exit gates at one evaluation: samples and evidence in, verdicts and new evidence out."""

from dataclasses import replace
from zlib import crc32

from canary_rollout.analysis.evidence import LONGEST_GAP, Breach, Evidence, identity
from canary_rollout.analysis.judge import Finding, Judge
from canary_rollout.analysis.readings import Samples, key_of, keys_needed, share_key
from canary_rollout.analysis.verdict import Assessment, Lack, Outcome, Verdict
from canary_rollout.analysis.wording import clock
from canary_rollout.model.spec import CanaryRolloutSpec, Gate, HaltRule, Measure, Metrics, Stage
from canary_rollout.model.units import FULL, format_duration


def assess(
    spec: CanaryRolloutSpec, stage: Stage | None, samples: Samples, evidence: Evidence, now: float
) -> tuple[Assessment, Evidence]:
    """Judge all halt rules, and the exit gates of ``stage``, against one set of samples.

    ``for`` is the time that breaching samples cover without a clean one between them: the time between two breaching
    samples counts if they are at most three intervals apart. A sample without a verdict (no data, too few requests,
    stable breaches too) neither adds to it nor ends it. So a rule never fails earlier than ``for`` after its first
    breaching sample, an outage of Prometheus never makes one fail, and the clock goes on where it stood.

    Args:
        spec: the rollout's spec, with the stages that apply to this revision or not; only rules and metrics are read.
        stage: the stage it is in; ``None`` when it is in none, then no gates are judged.
        samples: from the sampler, for :func:`~canary_rollout.analysis.readings.keys_needed` of the same spec and stage.
        evidence: from the evaluation before, or from status.
        now: POSIX seconds; samples that are more than three intervals older are no data.
    """
    evidence = _remember(spec, stage, samples, evidence)
    longest_gap = LONGEST_GAP * spec.metrics.interval
    alone = stage is not None and stage.weight >= FULL
    judge = Judge(spec.metrics, samples, evidence, alone=alone, now=now, longest_age=longest_gap)
    at = round(samples.at, 3)
    breaches: dict[str, Breach] = {}
    verdicts = []
    for rule in spec.rules_for(stage):
        if not rule.enabled:
            verdicts.append(_off(rule))
            continue
        finding = judge.find(rule)
        breach = _breach(rule, spec.metrics, finding, evidence.breaches.get(rule.name), at, longest_gap)
        if alone and rule.above_ratio is not None:
            breach = None  # nothing is left to compare with, so the question is no longer open
        if breach is not None:
            breaches[rule.name] = breach
        verdicts.append(_rule_verdict(rule, finding, breach))
    exits = tuple(_gate_verdict(gate, judge.find(gate)) for gate in (stage.exit if stage is not None else ()))
    share, requests = _received(spec.metrics, stage, samples)
    through = max(at, evidence.evaluated_through or at)
    return (
        Assessment(samples.at, tuple(verdicts), exits, share, requests),
        replace(evidence, breaches=breaches, evaluated_through=through),
    )


def _remember(spec: CanaryRolloutSpec, stage: Stage | None, samples: Samples, evidence: Evidence) -> Evidence:
    """Note which measures each version has had a value of."""
    canary = [key for key, pair in samples.readings.items() if pair.canary.value is not None]
    stable = [key for key, pair in samples.readings.items() if pair.stable.value is not None]
    canary_names, stable_names = {identity(key) for key in canary}, {identity(key) for key in stable}
    if canary_names <= evidence.seen_canary and stable_names <= evidence.seen_stable:
        return evidence
    named = frozenset(identity(key) for key in keys_needed(spec, stage))
    return evidence.saw(canary_names, stable_names, named)


def _breach(  # noqa: PLR0917 - all of it is one sample's worth of facts
    rule: HaltRule, metrics: Metrics, finding: Finding, before: Breach | None, at: float, longest_gap: float
) -> Breach | None:
    fingerprint = _fingerprint(rule, metrics)
    if before is not None and before.of != fingerprint:
        before = None
    if finding.breached is None:
        return before
    if not finding.breached:
        return None
    return before.extended(at, longest_gap) if before is not None else Breach(fingerprint, at, 0.0, at)


def _fingerprint(rule: HaltRule, metrics: Metrics) -> str:
    """Name what a rule asks: measure, range and bound. ``for`` and the action may be edited under way."""
    asked = (key_of(rule, metrics), rule.above, rule.below, rule.above_ratio, metrics.source)
    return f"{crc32(repr(asked).encode()):08x}"


def _rule_verdict(rule: HaltRule, finding: Finding, breach: Breach | None) -> Verdict:
    since = breach.since if breach is not None else None
    if not finding.breached:
        outcome = Outcome.PASS if finding.breached is False else Outcome.NONE
        waiting = f" (breached since {clock(since)}, kept)" if since is not None else ""
        return _verdict(rule, rule.name, finding, outcome, finding.lack, since, f"{finding.text}{waiting}")
    assert breach is not None  # noqa: S101 - a breaching sample always leaves one
    text = f"{finding.text} since {clock(breach.since)}"
    rest = rule.for_ - breach.seconds
    if rest <= 0:
        held = f", for {format_duration(rule.for_)}" if rule.for_ else ""
        return _verdict(rule, rule.name, finding, Outcome.FAIL, None, since, f"{text}{held}")
    fails_at = clock(breach.judged_at + rest)
    return _verdict(rule, rule.name, finding, Outcome.NONE, Lack.NOT_ENOUGH, since, f"{text}, fails at {fails_at}")


def _gate_verdict(gate: Gate, finding: Finding) -> Verdict:
    outcome = {True: Outcome.FAIL, False: Outcome.PASS, None: Outcome.NONE}[finding.breached]
    return _verdict(gate, gate.label, finding, outcome, finding.lack, None, finding.text)


def _verdict(  # noqa: PLR0917 - the fields of a Verdict
    measure: Measure,
    name: str,
    finding: Finding,
    outcome: Outcome,
    lack: Lack | None,
    since: float | None,
    text: str,
) -> Verdict:
    return Verdict(
        rule=name,
        outcome=outcome,
        action=measure.action if isinstance(measure, HaltRule) else None,
        lack=lack,
        value=finding.value,
        stable=finding.stable,
        threshold=finding.threshold,
        requests=finding.requests,
        breached_since=since,
        message=f"{name}: {text}",
    )


def _off(rule: HaltRule) -> Verdict:
    text = f"{rule.name}: switched off (enabled: false)"
    return Verdict(rule.name, Outcome.NONE, rule.action, Lack.NOT_APPLICABLE, None, None, None, None, None, text)


def _received(metrics: Metrics, stage: Stage | None, samples: Samples) -> tuple[float | None, float]:
    """Return the share of the requests the canary received, and the requests that rests on (design invariant 9).

    Cohort members come on top of the weight. The agent counts them apart; plain app metrics do not, so in a stage with
    a cohort they say nothing about the share.
    """
    stable, canary = (reading.value for reading in samples.pair(share_key(metrics)))
    if metrics.source == "app" and stage is not None and stage.cohort is not None:
        return None, 0.0
    if stable is None or canary is None or stable + canary <= 0:
        return None, 0.0  # a version that nobody counts has not had nothing: missing data is never a fail
    return canary / (stable + canary), stable + canary
