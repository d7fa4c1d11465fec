"""Halt rules, gates and the comparison's verdicts at one evaluation: samples and evidence in, verdicts and new evidence out."""

from dataclasses import replace
from typing import Final

from canary_rollout.analysis.asked import asked_by
from canary_rollout.analysis.comparing import Compared, verdicts_of
from canary_rollout.analysis.evidence import LONGEST_GAP, Breach, Evidence, identity, short
from canary_rollout.analysis.findings import Finding
from canary_rollout.analysis.judge import Judge, Scene
from canary_rollout.analysis.readings import Samples, following, keys_needed, share_key
from canary_rollout.analysis.verdict import Assessment, Lack, Outcome, Verdict
from canary_rollout.analysis.wording import clock
from canary_rollout.model.spec import Action, CanaryRolloutSpec, Gate, HaltRule, Measure, Metrics, Stage
from canary_rollout.model.units import format_duration


def assess(  # noqa: PLR0917 - what an evaluation rests on
    spec: CanaryRolloutSpec,
    stage: Stage | None,
    samples: Samples,
    evidence: Evidence,
    now: float,
    compared: Compared | None = None,
) -> tuple[Assessment, Evidence]:
    """Judge all halt rules, the exit gates of ``stage`` and the entry gates of the one after it against one set of samples.

    ``for`` is the time that breaching samples cover without a clean one between them: the time between two breaching
    samples counts if they are at most three intervals apart. A sample without a verdict (no data, too few requests,
    stable breaches too) neither adds to it nor ends it. So a rule never fails earlier than ``for`` after its first
    breaching sample, an outage of Prometheus never makes one fail, and the clock goes on where it stood. The ``for`` of a gate is
    the same arithmetic over samples that pass.

    Args:
        spec: the rollout's effective spec (``model.effective``); only rules, metrics and stages are read.
        stage: the stage it is in; ``None`` before the first one, when the canary serves nothing.
        samples: from the sampler, for :func:`~canary_rollout.analysis.readings.keys_needed` of the same spec and stage.
        evidence: from the evaluation before, or from status.
        now: POSIX seconds; samples that are more than three intervals older are no data.
        compared: what the sequential comparison says; ``None`` where there is none.
    """
    evidence = _remember(spec, stage, samples, evidence)
    longest_gap = LONGEST_GAP * spec.metrics.interval
    tests = compared.tests if compared is not None else None
    scene = Scene(spec, stage, samples, evidence, tests, age=now - samples.at, longest_age=longest_gap)
    judged = _Judged(scene)
    verdicts = tuple(judged.rule(rule) for rule in spec.rules_for(stage))
    entering = following(spec, stage)
    exits = tuple(judged.gate(gate, "exit") for gate in (stage.exit if stage is not None else ()))
    entries = tuple(judged.gate(gate, "entry") for gate in (entering.entry if entering is not None else ()))
    share, requests = _received(spec.metrics, stage, samples)
    of_tests, promotion = verdicts_of(compared)
    return (
        Assessment(
            samples.at,
            verdicts,
            exits,
            share,
            requests,
            entering=entering.name if entering is not None else "",
            entries=entries,
            tests=of_tests,
            promotion=promotion,
        ),
        replace(
            evidence,
            breaches=judged.breaches,
            held=judged.held,
            muted=judged.muted,
            comparison=compared.checkpoint if compared is not None else evidence.comparison,
            evaluated_through=max(judged.at, evidence.evaluated_through or judged.at),
        ),
    )


class _Judged:
    """The rules and gates of one evaluation, and what they will remember."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._judge = Judge(scene)
        self._before = scene.evidence
        self.at: Final = round(scene.samples.at, 3)
        self.breaches: dict[str, Breach] = {}
        self.held: dict[str, Breach] = {}
        self.muted: frozenset[str] = frozenset()

    def rule(self, rule: HaltRule) -> Verdict:
        """The verdict of a halt rule."""
        if not rule.enabled:
            return _off(rule)
        asked = asked_by(rule, self._scene.spec.metrics)
        muted = rule.alert is not None and asked.name in self._before.muted
        finding = self._judge.find(rule, muted=muted)
        if muted and finding.breached is not False:
            self.muted |= {asked.name}
        if finding.inactive and asked.name not in self._before.breaches:
            return _inactive(rule, finding)
        breach = self._lasting(rule, self._before.breaches.get(asked.name), finding, of_breach=True)
        if self._scene.alone and asked.with_now:
            breach = None  # nothing is left to compare with, so the question is no longer open
        if breach is not None:
            self.breaches[asked.name] = breach
        return _rule_verdict(rule, finding, breach)

    def gate(self, gate: Gate, place: str) -> Verdict:
        """The verdict of a gate; one with a ``for`` passes once it has held for as long."""
        finding = self._judge.find(gate)
        key = short(f"{place}/{gate.label}")
        held = self._lasting(gate, self._before.held.get(key), finding, of_breach=False) if gate.for_ else None
        if held is not None:
            self.held[key] = held
        return _gate_verdict(gate, finding, held)

    def _lasting(
        self, measure: HaltRule | Gate, before: Breach | None, finding: Finding, *, of_breach: bool
    ) -> Breach | None:
        """How long samples have said ``of_breach`` without a break, this one included."""
        fingerprint = asked_by(measure, self._scene.spec.metrics).fingerprint
        if before is not None and before.of != fingerprint:
            before = None
        if finding.breached is None:
            return before
        if finding.breached is not of_breach:
            return None
        if before is None:
            return Breach(fingerprint, self.at, 0.0, self.at)
        return before.extended(self.at, self._scene.longest_age)


def _remember(spec: CanaryRolloutSpec, stage: Stage | None, samples: Samples, evidence: Evidence) -> Evidence:
    """Note which measures each version has had a value of."""
    canary = [key for key, pair in samples.readings.items() if pair.canary.value is not None]
    stable = [key for key, pair in samples.readings.items() if pair.stable.value is not None]
    canary_names, stable_names = {identity(key) for key in canary}, {identity(key) for key in stable}
    if canary_names <= evidence.seen_canary and stable_names <= evidence.seen_stable:
        return evidence
    named = frozenset(identity(key) for key in keys_needed(spec, stage))
    return evidence.saw(canary_names, stable_names, named)


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


_silent: Final[dict[tuple[int, int], tuple[HaltRule, Finding, Verdict]]] = {}
"""Most standard rules are inactive for most apps, at every tick: by identity, which being in here keeps from being reused."""
_MOST_SILENT: Final = 8192


def _inactive(rule: HaltRule, finding: Finding) -> Verdict:
    """The verdict of a rule that does not apply, worked out once."""
    key = (id(rule), id(finding))
    if (known := _silent.get(key)) is not None:
        return known[2]
    if len(_silent) >= _MOST_SILENT:
        _silent.clear()
    verdict = _rule_verdict(rule, finding, None)
    _silent[key] = (rule, finding, verdict)
    return verdict


def _gate_verdict(gate: Gate, finding: Finding, held: Breach | None) -> Verdict:
    outcome = {True: Outcome.FAIL, False: Outcome.PASS, None: Outcome.NONE}[finding.breached]
    lack, text = finding.lack, finding.text
    if outcome is Outcome.PASS and held is not None:
        text = f"{text}, held for {format_duration(held.seconds)} of {format_duration(gate.for_)}"
        if held.seconds < gate.for_:
            outcome, lack = Outcome.NONE, Lack.NOT_ENOUGH
    return _verdict(gate, gate.label, finding, outcome, lack, None, text)


def _verdict(  # noqa: PLR0917 - the fields of a Verdict
    measure: Measure,
    name: str,
    finding: Finding,
    outcome: Outcome,
    lack: Lack | None,
    since: float | None,
    text: str,
) -> Verdict:
    action = measure.action if isinstance(measure, HaltRule) else None
    if isinstance(measure, HaltRule) and measure.dry_run:
        text = f"{text} (dry run: {_WOULD[measure.action]})" if outcome is Outcome.FAIL else f"{text} (dry run)"
        action = Action.ALERT
    return Verdict(
        rule=name,
        outcome=outcome,
        action=action,
        lack=lack,
        value=finding.value,
        stable=finding.stable,
        threshold=finding.threshold,
        requests=finding.requests,
        breached_since=since,
        message=f"{name}: {text}",
        inactive=finding.inactive,
        few=finding.few and since is None,
    )


_WOULD: Final = {
    Action.ROLLBACK: "it would have rolled back",
    Action.PAUSE: "it would have paused",
    Action.ALERT: "it would have been told",
}


def _off(rule: HaltRule) -> Verdict:
    text = f"{rule.name}: switched off (enabled: false)"
    return Verdict(rule.name, Outcome.NONE, rule.action, Lack.NOT_APPLICABLE, None, None, None, None, None, text)


def _received(metrics: Metrics, stage: Stage | None, samples: Samples) -> tuple[float | None, float]:
    """Return the share of the requests the canary received, and the requests that rests on (design invariant 9).

    Cohort members come on top of the weight. The agent counts them apart; plain app metrics do not, so in a stage with
    a cohort they say nothing about the share.
    """
    stable, canary = (reading.value for reading in samples.pair(share_key(metrics)))
    if metrics.source != "agent" and stage is not None and stage.cohort is not None:
        return None, 0.0
    if stable is None or canary is None or stable + canary <= 0:
        return None, 0.0  # a version that nobody counts has not had nothing: missing data is never a fail
    return canary / (stable + canary), stable + canary
