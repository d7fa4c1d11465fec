"""What one rule says about one set of samples."""

import pytest
from judged import DOWN, HEALTHY, NOON, judge, judge_gate, pair, reading, rule, samples
from small_specs import make_spec

from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.readings import EMPTY, NOT_A_NUMBER, MeasureKey, Reading, ReadingKind, Samples, keys_needed
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.verdict import Lack, Outcome
from canary_rollout.model.spec import Action

SEEN = Evidence(
    seen_canary=frozenset({"error-rate", "requests", "latency-p99"}),
    seen_stable=frozenset({"error-rate", "requests", "latency-p99"}),
)
BAD = pair(0.001, 0.12)


def test_a_rate_below_the_threshold_passes():
    verdict, evidence = judge(rule())
    assert (verdict.outcome, verdict.lack, verdict.breached_since) == (Outcome.PASS, None, None)
    assert (verdict.value, verdict.stable, verdict.threshold, verdict.requests) == (0.001, 0.001, 0.01, 240)
    assert verdict.message == "errors: 0.1 % of 240 requests failed in 5m, not above 1 %"
    assert evidence.breaches == {}


def test_a_value_on_the_threshold_passes():
    assert judge(rule(**{"for": "0s"}), error_rate=pair(0, 0.01))[0].outcome is Outcome.PASS


def test_without_a_for_the_first_breaching_sample_fails():
    verdict, _ = judge(rule(**{"for": "0s"}), error_rate=BAD)
    assert (verdict.outcome, verdict.action, verdict.breached_since) == (Outcome.FAIL, Action.ROLLBACK, NOON)
    assert verdict.message == "errors: 12 % of 240 requests failed in 5m, above 1 % since 12:00:00"


def test_a_breach_that_has_not_lasted_yet_is_no_verdict_and_says_when_it_fails():
    verdict, _ = judge(rule(), error_rate=BAD)
    assert (verdict.outcome, verdict.lack, verdict.breached_since) == (Outcome.NONE, Lack.NOT_ENOUGH, NOON)
    assert verdict.message == "errors: 12 % of 240 requests failed in 5m, above 1 % since 12:00:00, fails at 12:01:00"


def test_zero_errors_are_a_value_and_not_missing():
    verdict, _ = judge(rule(), error_rate=pair(0.0, 0.0))
    assert (verdict.outcome, verdict.value) == (Outcome.PASS, 0.0)


def test_below_breaches_downwards():
    raw = rule(preset="request-rate", below="5", **{"for": "0s"})
    assert judge(raw, request_rate=pair(90, 4))[0].outcome is Outcome.FAIL
    assert judge(raw, request_rate=pair(90, 5))[0].outcome is Outcome.PASS
    assert "below 5 requests/s" in judge(raw, request_rate=pair(90, 4))[0].message


def test_a_rule_that_is_off_is_listed_and_not_applied():
    verdict, evidence = judge(rule(enabled=False), error_rate=BAD)
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NOT_APPLICABLE)
    assert evidence.breaches == {}


# -- missing data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", [DOWN, Reading.bad_query("1:5: parse error"), Reading.absent("it was not sampled")])
@pytest.mark.parametrize("evidence", [Evidence(), SEEN])
def test_a_prometheus_that_does_not_answer_is_no_data_whatever_was_seen(outage, evidence):
    verdict, _ = judge(rule(**{"for": "0s"}), evidence, error_rate=pair(0.0, outage))
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NO_DATA)
    assert outage.message in verdict.message


def test_an_unknown_request_count_is_no_data_too():
    verdict, _ = judge(rule(), error_rate=BAD, requests=pair(DOWN, DOWN))
    assert verdict.lack is Lack.NO_DATA


@pytest.mark.parametrize("nothing", [EMPTY, NOT_A_NUMBER])
def test_a_value_that_was_there_and_is_gone_is_no_data(nothing):
    verdict, _ = judge(rule(), SEEN, error_rate=pair(0.0, nothing))
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NO_DATA)


@pytest.mark.parametrize("nothing", [EMPTY, NOT_A_NUMBER])
@pytest.mark.parametrize("preset", ["error-rate", "latency-p99"])
def test_a_preset_this_app_has_never_had_does_not_apply(nothing, preset):
    verdict, _ = judge(rule(preset=preset), **{preset.replace("-", "_"): pair(None, nothing)})
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NOT_APPLICABLE)


def test_an_app_without_any_metrics_has_no_applicable_preset():
    verdict, _ = judge(rule(), error_rate=pair(None, None), requests=pair(None, None))
    assert verdict.lack is Lack.NOT_APPLICABLE


def test_a_series_that_stable_has_and_the_canary_dropped_is_no_data():
    verdict, _ = judge(rule(preset="latency-p99"), latency_p99=pair(0.2, None))
    assert verdict.lack is Lack.NO_DATA


def test_a_series_that_this_version_gave_up_says_the_way_out_and_a_rule_that_is_off_asks_for_it_no_more():
    verdict, _ = judge(rule(preset="latency-p99"), latency_p99=pair(0.2, None))
    assert "if this version no longer has it, enabled: false on this rule goes on without" in verdict.message
    verdict, _ = judge(rule(preset="latency-p99", enabled=False), latency_p99=pair(0.2, None))
    assert (verdict.lack, verdict.message) == (Lack.NOT_APPLICABLE, f"{verdict.rule}: switched off (enabled: false)")


def test_a_request_count_that_is_gone_is_no_data():
    verdict, _ = judge(rule(), SEEN, error_rate=pair(None, None), requests=pair(None, None))
    assert (verdict.lack, verdict.outcome) == (Lack.NO_DATA, Outcome.NONE)


def test_a_canary_without_a_first_request_has_not_had_enough():
    verdict, _ = judge(rule(), error_rate=pair(0.0, None), requests=pair(4000, None))
    assert verdict.lack is Lack.NOT_ENOUGH


def test_too_few_requests_are_no_verdict_however_bad_they_are():
    verdict, evidence = judge(rule(**{"for": "0s"}), error_rate=pair(0.0, 1.0), requests=pair(4000, 99))
    assert (verdict.outcome, verdict.lack, verdict.requests) == (Outcome.NONE, Lack.NOT_ENOUGH, 99)
    assert "99 of the 100 requests needed in 5m" in verdict.message
    assert evidence.breaches == {}


def test_the_minimum_itself_is_enough():
    verdict, _ = judge(rule(**{"for": "0s"}), error_rate=pair(0.0, 1.0), requests=pair(4000, 100))
    assert verdict.outcome is Outcome.FAIL


def test_a_query_of_ones_own_with_an_unknown_request_count_says_how_to_do_without():
    verdict, _ = judge(rule(query="x"), own=pair(0.0, 5.0), requests=pair(None, None))
    assert verdict.lack is Lack.NOT_ENOUGH
    assert "minRequests: 0" in verdict.message


def test_without_a_minimum_no_count_is_needed():
    raw = rule(query="x", minRequests=0, **{"for": "0s"})
    assert judge(raw, own=pair(0.0, 5.0), requests=pair(None, None))[0].outcome is Outcome.FAIL


def test_without_a_minimum_a_canary_that_never_had_a_value_has_not_had_enough():
    assert judge(rule(query="x", minRequests=0), own=pair(5.0, None))[0].lack is Lack.NOT_ENOUGH


def test_samples_that_are_old_are_no_data():
    spec = make_spec(rules=[rule(**{"for": "0s"})])
    assessment, _ = assess(spec, spec.stages[0], samples(spec, error_rate=BAD), Evidence(), NOON + 31)
    assert assessment.rules[0].lack is Lack.NO_DATA
    assessment, _ = assess(spec, spec.stages[0], samples(spec, error_rate=BAD), Evidence(), NOON + 30)
    assert assessment.rules[0].outcome is Outcome.FAIL


def test_what_was_not_sampled_is_no_data():
    spec = make_spec(rules=[rule()])
    assessment, _ = assess(spec, spec.stages[0], Samples(NOON, {}), Evidence(), NOON)
    assert assessment.rules[0].lack is Lack.NO_DATA


# -- stable breaches too -----------------------------------------------------------------------------------------------


def test_a_threshold_that_stable_breaches_too_says_nothing():
    verdict, evidence = judge(rule(**{"for": "0s"}), error_rate=pair(0.02, 0.12))
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NOT_APPLICABLE)
    assert "stable is above 1 % too (2 %)" in verdict.message
    assert evidence.breaches == {}


def test_stable_takes_the_word_only_with_enough_requests():
    verdict, _ = judge(rule(**{"for": "0s"}), error_rate=pair(0.02, 0.12), requests=pair(99, 240))
    assert verdict.outcome is Outcome.FAIL


def test_stable_takes_no_word_when_told_so():
    raw = rule(unlessStableToo=False, **{"for": "0s"})
    assert judge(raw, error_rate=pair(0.02, 0.12))[0].outcome is Outcome.FAIL


def test_a_breach_with_stable_unknown_is_no_data():
    verdict, _ = judge(rule(**{"for": "0s"}), error_rate=pair(DOWN, 0.12))
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NO_DATA)


def test_a_clean_canary_passes_with_stable_unknown():
    assert judge(rule(), error_rate=pair(DOWN, 0.0))[0].outcome is Outcome.PASS


# -- ratios ------------------------------------------------------------------------------------------------------------

RATIO = rule(preset="latency-p99", aboveRatio="2", **{"for": "0s"})


def test_a_ratio_is_held_against_stable():
    verdict, _ = judge(RATIO, latency_p99=pair(0.1, 0.21))
    assert (verdict.outcome, verdict.threshold, verdict.stable) == (Outcome.FAIL, 0.2, 0.1)
    assert "210 ms over 240 requests in 5m, above 2 times stable's 100 ms" in verdict.message
    assert judge(RATIO, latency_p99=pair(0.1, 0.2))[0].outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("stable", "count", "evidence", "lack"),
    [
        (0.0, 4000, Evidence(), Lack.NOT_APPLICABLE),  # a ratio to nothing
        (None, 4000, Evidence(), Lack.NOT_APPLICABLE),
        (None, 4000, SEEN, Lack.NO_DATA),
        (NOT_A_NUMBER, 4000, SEEN, Lack.NO_DATA),
        (DOWN, 4000, SEEN, Lack.NO_DATA),
        (0.1, DOWN, SEEN, Lack.NO_DATA),
        (0.1, 99, SEEN, Lack.NOT_ENOUGH),
        (None, None, Evidence(), Lack.NOT_APPLICABLE),
        (None, None, SEEN, Lack.NO_DATA),
        (Reading.absent("the query does not tell the versions apart"), 4000, SEEN, Lack.NOT_APPLICABLE),
    ],
)
def test_a_ratio_without_a_stable_value_is_no_verdict(stable, count, evidence, lack):
    verdict, _ = judge(RATIO, evidence, latency_p99=pair(stable, 5.0), requests=pair(count, 240))
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, lack)


def test_a_ratio_does_not_apply_where_stable_gets_no_traffic_and_asks_nothing_any_more():
    _, evidence = judge(rule(preset="latency-p99", aboveRatio="2"), latency_p99=pair(0.1, 0.5))
    assert evidence.breaches
    verdict, after = judge(rule(preset="latency-p99", aboveRatio="2"), evidence, stage=1, latency_p99=pair(0.1, 0.5))
    assert (verdict.lack, verdict.breached_since, after.breaches) == (Lack.NOT_APPLICABLE, None, {})


# -- gates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "canary", "outcome"),
    [
        ({"max": "1%"}, 0.011, Outcome.FAIL),
        ({"max": "1%"}, 0.01, Outcome.PASS),
        ({"min": "1%"}, 0.009, Outcome.FAIL),
        ({"min": "1%"}, 0.01, Outcome.PASS),
        ({"maxRatio": "1.1"}, 0.12, Outcome.FAIL),
        ({"maxRatio": "1.1"}, 0.1, Outcome.PASS),
    ],
)
def test_a_gate_holds_or_fails_at_once(bound, canary, outcome):
    verdict = judge_gate({"preset": "error-rate", **bound}, error_rate=pair(0.1, canary))
    assert (verdict.rule, verdict.outcome, verdict.action) == ("error-rate", outcome, None)


def test_a_gate_does_not_care_whether_stable_breaches_too():
    assert judge_gate({"preset": "error-rate", "max": "1%"}, error_rate=pair(0.5, 0.5)).outcome is Outcome.FAIL


def test_a_gate_without_data_neither_passes_nor_fails():
    verdict = judge_gate({"preset": "error-rate", "max": "1%"}, error_rate=pair(0.1, DOWN))
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NO_DATA)


def test_without_a_stage_no_gates_are_judged():
    spec = make_spec(rules=[rule()], gates=[{"preset": "error-rate", "max": "1%"}])
    assessment, _ = assess(spec, None, samples(spec), Evidence(), NOON)
    assert (len(assessment.rules), assessment.exits) == (1, ())


# -- beginning afresh --------------------------------------------------------------------------------------------------


def test_after_a_restart_a_window_that_reaches_back_is_not_judged():
    evidence = SEEN.restarted(NOON - 299)
    verdict, _ = judge(rule(**{"for": "0s"}), evidence, error_rate=BAD)
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NOT_ENOUGH)
    assert "judged from 12:00:01 on" in verdict.message
    assert judge(rule(**{"for": "0s"}), evidence, at=NOON + 1, error_rate=BAD)[0].outcome is Outcome.FAIL


def test_an_outage_is_said_even_while_beginning_afresh():
    verdict, _ = judge(rule(), SEEN.restarted(NOON), error_rate=pair(DOWN, DOWN))
    assert verdict.lack is Lack.NO_DATA


def test_a_new_revision_that_is_told_apart_is_judged_from_its_first_sample():
    evidence = SEEN.of_new_revision(NOON, apart=True)
    assert judge(rule(**{"for": "0s"}), evidence, error_rate=BAD)[0].outcome is Outcome.FAIL
    assert judge(rule(), evidence, error_rate=pair(0, None), requests=pair(9, None))[0].lack is Lack.NOT_ENOUGH


def test_a_new_revision_that_is_not_told_apart_waits_for_a_window_of_its_own():
    verdict, _ = judge(rule(**{"for": "0s"}), SEEN.of_new_revision(NOON, apart=False), error_rate=BAD)
    assert verdict.lack is Lack.NOT_ENOUGH


# -- the received share ------------------------------------------------------------------------------------------------


def share(spec, stage=0, **values):
    assessment, _ = assess(spec, spec.stages[stage], samples(spec, stage=stage, **values), Evidence(), NOON)
    return assessment.received_share, assessment.received_requests


def test_the_received_share_is_the_canarys_part_of_all_requests():
    assert share(make_spec(rules=[]), requests=pair(950, 50)) == (0.05, 1000)


@pytest.mark.parametrize("found", [pair(None, 50), pair(DOWN, 50), pair(950, None), pair(950, DOWN), pair(0, 0)])
def test_a_share_of_what_nobody_counted_is_unknown(found):
    assert share(make_spec(rules=[]), requests=found) == (None, 0.0)


def test_app_metrics_say_nothing_about_the_share_in_a_stage_with_a_cohort():
    cohort = {"header": "X-Cohort", "values": ["internal"]}
    assert share(make_spec(rules=[], cohort=cohort), requests=pair(950, 50)) == (None, 0.0)
    assert share(make_spec(rules=[], cohort=cohort, source="agent"), requests=pair(950, 50)) == (0.05, 1000)


# -- what is asked for -------------------------------------------------------------------------------------------------


def test_only_what_is_needed_is_sampled():
    gate = {"preset": "latency-p75", "max": "1", "window": "1m", "minRequests": 0}
    spec = make_spec(rules=[rule(), rule(name="off", preset="latency-p50", enabled=False)], gates=[gate])
    assert keys_needed(spec, spec.stages[0]) == {
        MeasureKey("error-rate", 300.0),
        MeasureKey("requests", 300.0),
        MeasureKey("requests", 300.0, weighted_only=True),
        MeasureKey("latency-p75", 60.0),
    }
    assert MeasureKey("latency-p75", 60.0) not in keys_needed(spec, None)


def test_a_reading_of_an_infinity_is_no_number():
    assert Reading.of(float("inf")).kind is ReadingKind.NOT_A_NUMBER
    assert reading(1.0).value == 1.0
    assert HEALTHY["requests"].canary.value == 240
