"""What the rules leave to the comparison with stable, and how its tests join their verdicts."""

from dataclasses import replace

import pytest
from judged import NOON, judge, pair, rule, samples
from small_specs import make_spec

from canary_rollout.analysis.comparing import Compared, policy_of
from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.sequential import PromotionGate, State, TestVerdict
from canary_rollout.analysis.verdict import Assessment, Lack, Outcome
from canary_rollout.model.spec import Action, CanaryRolloutSpec

TWICE = rule(aboveRatio="2", **{"for": "0s"})


def errors(outcome=Outcome.NONE, state=State.OK, canary=0.001, stable=0.001, requests=500.0) -> TestVerdict:
    return TestVerdict(
        "error-comparison", outcome, state, Action.ROLLBACK, "the words of the test", canary, stable, None, requests
    )


GATE = PromotionGate(promote=True, upper_error_rate=0.004, message="error rates above 0.4 % are excluded")


def compared(*tests: TestVerdict, gate: PromotionGate = GATE, raw=TWICE) -> Assessment:
    spec = make_spec(rules=[raw])
    given = samples(spec, error_rate=pair(0.001, 0.9))
    return assess(spec, spec.stages[0], given, Evidence(), NOON, Compared(tests, gate))[0]


def test_twice_stables_errors_is_asked_of_the_sequential_test_and_not_of_a_quotient():
    (verdict,) = compared(errors(Outcome.PASS, canary=0.9)).rules
    assert verdict.outcome is Outcome.PASS
    assert "perhaps by chance" in verdict.message
    (verdict,) = compared(errors(Outcome.FAIL, State.BAD, canary=0.05, stable=0.01)).rules
    assert verdict.outcome is Outcome.FAIL
    assert "5 % of 500 requests failed, above 2 times stable's 1 %, and not by chance" in verdict.message
    (verdict,) = compared(errors(Outcome.FAIL, State.BAD, canary=0.015, stable=0.01)).rules
    assert verdict.outcome is Outcome.PASS, "worse, but not twice as bad"


@pytest.mark.parametrize(
    ("test", "lack"),
    [
        (errors(requests=99), Lack.NOT_ENOUGH),
        (errors(state=State.NO_DATA), Lack.NO_DATA),
        (errors(state=State.NO_TRAFFIC), Lack.NO_DATA),
        (errors(state=State.NO_CONTROL), Lack.NOT_APPLICABLE),
        (errors(state=State.OFF), Lack.NOT_APPLICABLE),
    ],
)
def test_what_the_comparison_cannot_say_the_rule_cannot_either(test, lack):
    (verdict,) = compared(test).rules
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, lack)


def test_evidence_that_may_only_pause_does_not_roll_back_by_way_of_a_rule():
    """Tenants stay and nobody counted their past: the error test pauses, and its question is not asked twice."""
    careful = replace(errors(Outcome.FAIL, State.BAD, canary=0.05, stable=0.01), action=Action.PAUSE)
    seen = compared(careful)
    (verdict,) = seen.rules
    assert verdict.lack is Lack.NOT_APPLICABLE
    assert "pauses on this and does not roll back" in verdict.message
    assert [found.action for found in seen.stops if found.outcome is Outcome.FAIL] == [Action.PAUSE]
    (verdict,) = compared(careful, raw={**TWICE, "action": "Pause"}).rules
    assert verdict.outcome is Outcome.FAIL


def test_without_a_comparison_the_question_is_not_asked():
    verdict, _ = judge(TWICE, error_rate=pair(0.001, 0.9))
    assert verdict.lack is Lack.NOT_APPLICABLE
    assert "which is off" in verdict.message


@pytest.mark.parametrize(
    ("state", "lack"),
    [
        (State.NO_DATA, Lack.NO_DATA),
        (State.NOT_ENOUGH, Lack.NOT_ENOUGH),
        (State.SUSPECT, Lack.NOT_ENOUGH),
        (State.SHARED, Lack.NOT_APPLICABLE),
        (State.OFF, Lack.NOT_APPLICABLE),
    ],
)
def test_the_tests_join_the_verdicts(state, lack):
    assessment = compared(errors(state=state))
    assert [(found.rule, found.lack, found.action) for found in assessment.tests] == [
        ("error-comparison", lack, Action.ROLLBACK)
    ]
    assert assessment.stops == (*assessment.rules, *assessment.tests)
    assert assessment.tests[0].message == "error-comparison: the words of the test"


def test_the_promotion_gate_joins_them_too():
    assert compared().promotion.outcome is Outcome.PASS
    closed = compared(gate=replace(GATE, promote=False, message="too few")).promotion
    assert (closed.outcome, closed.lack, closed.message) == (Outcome.NONE, Lack.NOT_ENOUGH, "promotion: too few")


def test_the_checkpoint_is_kept_in_the_evidence_and_dropped_at_a_new_beginning():
    spec = make_spec(rules=[])
    said = Compared((), GATE, {"through": 12.5, "cells": [1, 2.5]})
    _, evidence = assess(spec, spec.stages[0], samples(spec), Evidence(), NOON, said)
    again = Evidence.from_dict(evidence.to_dict())
    assert again.comparison == {"through": 12.5, "cells": [1, 2.5]}
    _, kept = assess(spec, spec.stages[0], samples(spec, NOON + 10), again, NOON + 10)
    assert kept.comparison == again.comparison, "an evaluation without a tick forgets nothing"
    assert kept.restarted(NOON + 11).comparison == {}
    assert kept.of_new_revision(NOON + 11, apart=True).comparison == {}


def test_the_comparisons_settings_come_from_the_spec():
    raw = make_spec(interval="5s").model_dump(mode="json", by_alias=True, exclude_none=True)
    raw["analysis"] = {
        "falseRollbackRate": "2%",
        "tolerance": "1.5",
        "certify": "1%",
        "actions": {"latency": "Rollback"},
    }
    policy = policy_of(CanaryRolloutSpec.model_validate(raw))
    assert (policy.false_rollback_rate, policy.tolerance, policy.certify) == (0.02, 1.5, 0.01)
    assert (policy.errors, policy.latency, policy.interval) == (Action.ROLLBACK, Action.ROLLBACK, 5.0)
    raw["analysis"] = {"enabled": False}
    assert policy_of(CanaryRolloutSpec.model_validate(raw)) is None
