"""The sequential comparison as the rest of the house sees it: its settings from a spec, its verdicts as verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from canary_rollout.analysis.sequential import Policy, PromotionGate, State, TestVerdict
from canary_rollout.analysis.verdict import Lack, Outcome, Verdict
from canary_rollout.model.spec import CanaryRolloutSpec

PROMOTION: Final = "promotion"
"""Name of the gate that every raise asks."""

_LACKS: Final = {
    State.NO_DATA: Lack.NO_DATA,
    State.NO_TRAFFIC: Lack.NO_DATA,
    State.NOT_ENOUGH: Lack.NOT_ENOUGH,
    State.SUSPECT: Lack.NOT_ENOUGH,
    State.SHARED: Lack.NOT_APPLICABLE,
    State.NO_CONTROL: Lack.NOT_APPLICABLE,
    State.OFF: Lack.NOT_APPLICABLE,
}


@dataclass(frozen=True, slots=True)
class Compared:
    """What the comparison said at the latest tick.

    Attributes:
        tests: its verdicts.
        gate: whether the evidence lets the rollout go on.
        checkpoint: what it remembers, for status; JSON.
    """

    tests: tuple[TestVerdict, ...]
    gate: PromotionGate
    checkpoint: Mapping[str, Any] = field(default_factory=dict)


def policy_of(spec: CanaryRolloutSpec) -> Policy | None:
    """Return the comparison's settings, ``None`` where it is switched off."""
    analysis = spec.analysis
    if not analysis.enabled:
        return None
    return Policy(
        false_rollback_rate=analysis.false_rollback_rate,
        tolerance=analysis.tolerance,
        floor=analysis.floor,
        errors=analysis.actions.errors,
        latency=analysis.actions.latency,
        gauges=analysis.actions.gauges,
        history=analysis.actions.history,
        max_error_rate=analysis.max_error_rate,
        certify=analysis.certify,
        min_requests=analysis.min_requests,
        interval=spec.metrics.interval,
    )


def verdicts_of(compared: Compared | None) -> tuple[tuple[Verdict, ...], Verdict | None]:
    """Return the tests' verdicts and the promotion gate's in the words of the rest."""
    if compared is None:
        return (), None
    gate = compared.gate
    promotion = _verdict(PROMOTION, Outcome.PASS if gate.promote else Outcome.NONE, None, gate.message)
    return tuple(_of(test) for test in compared.tests), promotion


def _of(test: TestVerdict) -> Verdict:
    lack = None if test.outcome is not Outcome.NONE else _LACKS.get(test.state, Lack.NOT_ENOUGH)
    return Verdict(
        rule=test.rule,
        outcome=test.outcome,
        action=test.action,
        lack=lack,
        value=test.canary,
        stable=test.stable,
        threshold=None,
        requests=test.requests,
        breached_since=None,
        message=f"{test.rule}: {test.message}",
    )


def _verdict(name: str, outcome: Outcome, action: None, message: str) -> Verdict:
    lack = Lack.NOT_ENOUGH if outcome is Outcome.NONE else None
    return Verdict(name, outcome, action, lack, None, None, None, None, None, f"{name}: {message}")
