"""What rules say beyond a plain threshold: baselines, spreads, alerts, the share received, the comparison, dry runs, gates."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import DOWN, NOON, judge, pair, rule, samples
from small_specs import make_spec

from canary_rollout.analysis.comparing import Compared, policy_of
from canary_rollout.analysis.evidence import Evidence, short
from canary_rollout.analysis.readings import (
    BEFORE,
    EMPTY,
    REQUESTS,
    SAME_HOUR,
    Pair,
    Reading,
    ReadingKind,
    Samples,
    key_of,
    keys_needed,
    stable_key,
)
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.sequential import PromotionGate, State, TestVerdict
from canary_rollout.analysis.verdict import Assessment, Lack, Outcome, Verdict
from canary_rollout.model.effective import resolve
from canary_rollout.model.presets import EVENTS
from canary_rollout.model.spec import Action, CanaryRolloutSpec

AT_ONCE = {"for": "0s"}


def with_spread(value: float, spread: float) -> Reading:
    return replace(Reading.of(value), spread=spread)


def against(raw: dict[str, Any], canary: float, base: Reading, now: float | Reading | None = None) -> Verdict:
    """The verdict of a rule of a baseline: the canary's value, the baseline's, and stable's of now."""
    spec = make_spec(rules=[raw])
    (asked,) = spec.rules_for(None)
    counts = pair(4000, 240)
    readings = {key: counts for key in keys_needed(spec, spec.stages[0]) if key.what == REQUESTS}
    readings[stable_key(asked, spec.metrics)] = pair(now, canary)
    readings[key_of(asked, spec.metrics)] = Pair(base, Reading.of(canary))
    return assess(spec, spec.stages[0], Samples(NOON, readings), Evidence(), NOON)[0].rules[0]


# -- ratios and baselines ----------------------------------------------------------------------------------------------


def test_below_a_ratio_breaches_downwards():
    raw = rule(preset="cache-hit-ratio", belowRatio="0.8", **AT_ONCE)
    assert judge(raw, cache_hit_ratio=pair(0.9, 0.5))[0].outcome is Outcome.FAIL
    assert judge(raw, cache_hit_ratio=pair(0.9, 0.73))[0].outcome is Outcome.PASS
    assert "below 0.8 times stable's 90 %" in judge(raw, cache_hit_ratio=pair(0.9, 0.5))[0].message


@pytest.mark.parametrize(("came", "words"), [("BeforeRollout", "before the rollout"), ("SameHour", "of the last days")])
def test_a_ratio_is_held_against_stables_past(came, words):
    raw = rule(preset="latency-p99", aboveRatio="2", baseline={"from": came}, **AT_ONCE)
    verdict = against(raw, 0.5, Reading.of(0.2), 0.2)
    assert (verdict.outcome, verdict.threshold) == (Outcome.FAIL, 0.4)
    assert words in verdict.message
    assert against(raw, 0.4, Reading.of(0.2), 0.2).outcome is Outcome.PASS


def test_stable_that_left_its_past_behind_as_well_says_it_is_not_the_canary():
    raw = rule(preset="latency-p99", aboveRatio="2", baseline={"from": "SameHour"}, **AT_ONCE)
    verdict = against(raw, 0.5, Reading.of(0.2), 0.6)
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NOT_APPLICABLE)
    assert "but stable is above" in verdict.message
    alone = {**raw, "unlessStableToo": False}
    assert against(alone, 0.5, Reading.of(0.2), 0.6).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("base", "lack"), [(EMPTY, Lack.NOT_APPLICABLE), (DOWN, Lack.NO_DATA), (Reading.of(0.0), Lack.NOT_APPLICABLE)]
)
def test_a_past_without_a_value_is_no_verdict(base, lack):
    raw = rule(preset="latency-p99", aboveRatio="2", baseline={"from": "BeforeRollout"}, **AT_ONCE)
    verdict = against(raw, 0.5, base, 0.2)
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, lack)


def test_a_fixed_baseline_needs_no_stable():
    raw = rule(preset="latency-p99", aboveRatio="2", baseline={"from": "Fixed", "value": "0.1"}, **AT_ONCE)
    verdict, _ = judge(raw, latency_p99=pair(None, 0.25))
    assert verdict.outcome is Outcome.FAIL
    assert "above 2 times the fixed 100 ms" in verdict.message
    assert judge(raw, stage=1, latency_p99=pair(None, 0.25))[0].outcome is Outcome.FAIL, (
        "also where nothing is left to compare"
    )


@pytest.mark.parametrize(("baseline", "asked"), [("BeforeRollout", BEFORE), ("SameHour", SAME_HOUR), ("Stable", "")])
def test_what_a_baseline_needs_is_sampled(baseline, asked):
    raw = rule(preset="latency-p99", aboveRatio="2", baseline={"from": baseline})
    spec = make_spec(rules=[raw])
    found = {key.baseline for key in keys_needed(spec, spec.stages[0]) if key.what == "latency-p99"}
    assert found == {asked, ""}


def test_a_source_and_a_server_of_its_own_are_asked():
    spec = make_spec(rules=[rule(source="istio", server="long-term")])
    key = key_of(spec.rules_for(None)[0], spec.metrics)
    assert (key.what, key.source, key.server) == ("error-rate", "istio", "long-term")


# -- spreads -----------------------------------------------------------------------------------------------------------

DENIALS = rule(preset="denial-rate", aboveSigma="3", **AT_ONCE)


def test_a_value_more_than_so_many_spreads_above_the_same_hour_breaches():
    verdict = against(DENIALS, 0.5, with_spread(0.1, 0.02), 0.1)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.threshold == pytest.approx(0.1 + 3 * (0.02**2 + 0.09 / 240) ** 0.5)
    assert "3 spreads of" in verdict.message
    assert "above stable's 10 % at this hour of the last days" in verdict.message


def test_few_requests_of_the_canary_scatter_more_than_many_of_stable():
    # Stable's 4000 requests vary by 0.1 points; 240 of the canary vary by 2 by chance alone.
    assert against(DENIALS, 0.13, with_spread(0.1, 0.001), 0.1).outcome is Outcome.PASS


def test_a_past_that_never_varied_is_not_taken_for_exact():
    raw = rule(query="x", aboveSigma="3", **AT_ONCE)
    assert against(raw, 10.5, with_spread(10, 0), 10).outcome is Outcome.PASS
    assert against(raw, 12, with_spread(10, 0), 10).outcome is Outcome.FAIL


def test_a_past_of_nothing_has_no_spread():
    raw = rule(query="x", aboveSigma="3", **AT_ONCE)
    assert against(raw, 1, with_spread(0, 0), 0).lack is Lack.NOT_APPLICABLE


def test_an_hour_that_is_unusual_for_stable_too_says_nothing():
    assert against(DENIALS, 0.5, with_spread(0.1, 0.02), 0.45).lack is Lack.NOT_APPLICABLE


# -- alerts ------------------------------------------------------------------------------------------------------------

ALERT = {"name": "security", "alert": {"labels": {"category": "security", "severity": "1|2.x"}}}


def fires(now: float | Reading | None, before: float | Reading | None = 0.0, evidence=None, at=NOON, **changes):
    spec = make_spec(rules=[{**ALERT, **changes}])
    key = key_of(spec.rules_for(None)[0], spec.metrics)
    given = Samples(at, {key: pair(before, now)})
    assessment, after = assess(spec, spec.stages[0], given, evidence or Evidence(), at)
    return assessment.rules[0], after


def test_an_alert_is_asked_for_by_its_labels_in_the_rollouts_namespace():
    spec = make_spec(rules=[ALERT])
    key = key_of(spec.rules_for(None)[0], spec.metrics)
    assert key.alerts
    assert key.what == 'category="security",namespace="$namespace",severity=~"1|2[.]x"'
    wide = make_spec(rules=[{**ALERT, "alert": {**ALERT["alert"], "anyNamespace": True}}])
    assert "namespace" not in key_of(wide.rules_for(None)[0], wide.metrics).what


@pytest.mark.parametrize("none", [0.0, None])
def test_no_alert_passes(none):
    verdict, _ = fires(none)
    assert verdict.outcome is Outcome.PASS
    assert verdict.message == "security: no alert with category=security, severity=1|2.x fires"


def test_an_alert_fails_without_any_request():
    verdict, _ = fires(1.0)
    assert (verdict.outcome, verdict.action) == (Outcome.FAIL, Action.ROLLBACK)
    assert "1 alert with category=security, severity=1|2.x fires since 12:00:00" in verdict.message


def test_an_alert_that_fired_before_the_rollout_began_does_not_count():
    verdict, _ = fires(2.0, 2.0)
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NOT_APPLICABLE)
    assert "2 of them since before the rollout began" in verdict.message
    assert fires(3.0, 2.0)[0].outcome is Outcome.FAIL
    assert fires(2.0, 2.0, unlessStableToo=False)[0].outcome is Outcome.FAIL


@pytest.mark.parametrize(("now", "before"), [(DOWN, 0.0), (1.0, DOWN)])
def test_an_alert_that_nobody_can_ask_for_is_no_data(now, before):
    assert fires(now, before)[0].lack is Lack.NO_DATA


def test_an_alert_that_fires_on_after_resume_does_not_halt_again_until_it_has_stopped():
    verdict, evidence = fires(1.0)
    assert verdict.outcome is Outcome.FAIL
    evidence = Evidence.from_dict(evidence.restarted(NOON + 5).to_dict())
    verdict, evidence = fires(1.0, evidence=evidence, at=NOON + 10)
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, Lack.NOT_APPLICABLE)
    assert "it already did at resume" in verdict.message
    verdict, evidence = fires(0.0, evidence=evidence, at=NOON + 20)
    assert verdict.outcome is Outcome.PASS
    verdict, _ = fires(1.0, evidence=Evidence.from_dict(evidence.to_dict()), at=NOON + 30)
    assert verdict.outcome is Outcome.FAIL


# -- the share received ------------------------------------------------------------------------------------------------

SHARE = {"name": "share", "preset": "traffic-share", "above": "50%", "minRequests": 100}


@pytest.mark.parametrize(
    ("stable", "canary", "outcome"),
    [(9500, 500, Outcome.PASS), (9300, 700, Outcome.PASS), (9200, 800, Outcome.FAIL), (9800, 200, Outcome.FAIL)],
)
def test_a_share_far_from_the_weight_breaches_in_both_directions(stable, canary, outcome):
    assert judge(SHARE, requests=pair(stable, canary))[0].outcome is outcome


def test_the_share_is_told_with_its_numbers():
    verdict, _ = judge(SHARE, requests=pair(9200, 800))
    assert "the canary received 8.00% of 10000 requests at a weight of 5%, more than 50 % away" in verdict.message


@pytest.mark.parametrize(
    ("stable", "canary", "lack"),
    [
        (900, 100, Lack.NOT_ENOUGH),
        (None, None, Lack.NOT_APPLICABLE),
        (10_000, None, Lack.NO_DATA),
        (DOWN, 5, Lack.NO_DATA),
    ],
)
def test_a_share_of_nothing_known_is_no_verdict(stable, canary, lack):
    verdict, _ = judge(SHARE, requests=pair(stable, canary))
    assert (verdict.outcome, verdict.lack) == (Outcome.NONE, lack)


def test_at_everything_there_is_no_share():
    assert judge(SHARE, stage=1, requests=pair(0, 800))[0].lack is Lack.NOT_APPLICABLE


def test_a_cohort_that_is_not_counted_apart_says_nothing_about_the_share():
    spec = make_spec(rules=[SHARE], cohort={"header": "X-Cohort", "values": ["internal"]})
    given = samples(spec, requests=pair(9200, 800))
    assert assess(spec, spec.stages[0], given, Evidence(), NOON)[0].rules[0].lack is Lack.NOT_APPLICABLE


# -- the comparison ----------------------------------------------------------------------------------------------------

TWICE = rule(aboveRatio="2", **AT_ONCE)


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


# -- dry runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "words"), [("Rollback", "would have rolled back"), ("Pause", "would have paused")])
def test_a_dry_run_says_what_it_would_have_done_and_only_alerts(action, words):
    verdict, _ = judge(rule(action=action, dryRun=True, **AT_ONCE), error_rate=pair(0.0, 0.5))
    assert (verdict.outcome, verdict.action) == (Outcome.FAIL, Action.ALERT)
    assert words in verdict.message


# -- inactive ----------------------------------------------------------------------------------------------------------


def standard(stage: int = 0, **values) -> tuple[Assessment, Evidence]:
    raw = make_spec().model_dump(mode="json", by_alias=True, exclude_none=True)
    spec = resolve(CanaryRolloutSpec.model_validate(raw), lambda _: "").spec
    return assess(spec, spec.stages[stage], samples(spec, stage=stage, **values), Evidence(), NOON)


@pytest.mark.parametrize("requests", [pair(4000, 240), pair(4000, 3), pair(4000, None), pair(None, None)])
def test_standard_rules_of_series_the_app_never_had_are_inactive_and_listed_whatever_the_traffic(requests):
    assessment, evidence = standard(requests=requests, error_rate=pair(None, None))
    listed = {verdict.rule: verdict for verdict in assessment.rules}
    for name in (
        "lcp",
        "inp",
        "cls",
        "memory",
        "timeouts",
        "cache-hits",
        "approval-denials",
        "p99-latency",
        "error-rate",
    ):
        assert listed[name].lack is Lack.NOT_APPLICABLE, name
        assert "inactive" in listed[name].message
    assert set(evidence.breaches) <= {"traffic-share"}


def test_a_standard_rule_becomes_active_with_the_first_value():
    assessment, _ = standard(lcp_p75=pair(1.9, 3.1))
    verdict = next(found for found in assessment.rules if found.rule == "lcp")
    assert (verdict.outcome, verdict.breached_since) == (Outcome.NONE, NOON)
    assert "3.1 s" in verdict.message


@pytest.mark.parametrize("stable", [0.02, None])
@pytest.mark.parametrize("preset", sorted(EVENTS))
def test_a_quiet_hour_of_what_need_not_happen_holds_nothing_up(preset, stable):
    raw = rule(preset=preset, above="1%", minRequests=0)
    seen = Evidence(seen_canary=frozenset({short(preset)}), seen_stable=frozenset({short(preset)}))
    verdict, _ = judge(raw, seen, **{preset.replace("-", "_"): pair(stable, None)})
    assert (verdict.outcome, verdict.lack, verdict.inactive) == (Outcome.NONE, Lack.NOT_APPLICABLE, False)
    assert judge(raw, seen, **{preset.replace("-", "_"): pair(DOWN, DOWN)})[0].lack is Lack.NO_DATA


def test_what_lacks_nothing_but_requests_says_so_unless_a_breach_is_open():
    assert judge(rule(), requests=pair(4000, 3))[0].few
    _, breached = judge(rule(), error_rate=pair(0.0, 0.5))
    assert not judge(rule(), breached, at=NOON + 10, requests=pair(4000, 3))[0].few
    assert not judge(rule(), Evidence().restarted(NOON))[0].few


# -- gates -------------------------------------------------------------------------------------------------------------


def spec_with(entry: Any = (), exits: Any = ()) -> CanaryRolloutSpec:
    raw = make_spec(rules=[], gates=exits).model_dump(mode="json", by_alias=True, exclude_none=True)
    for stage in raw["stages"]:
        stage["entry"] = list(entry)
    return CanaryRolloutSpec.model_validate(raw)


def test_entry_gates_of_the_next_stage_are_judged_and_named():
    spec = spec_with(entry=[{"name": "flag", "query": "x", "min": "1"}])
    given = samples(spec, own=pair(None, 0.0))
    assessment, _ = assess(spec, spec.stages[0], given, Evidence(), NOON)
    assert (assessment.entering, [found.rule for found in assessment.entries]) == ("all", ["flag"])
    assert assessment.entries[0].outcome is Outcome.FAIL
    assert assess(spec, spec.stages[1], samples(spec, stage=1), Evidence(), NOON)[0].entering == ""


@pytest.mark.parametrize(("value", "outcome"), [(0.001, Outcome.PASS), (0.2, Outcome.FAIL), (None, Outcome.NONE)])
def test_before_the_first_stage_a_gate_is_asked_of_stable_and_needs_no_requests(value, outcome):
    spec = spec_with(entry=[{"preset": "error-rate", "max": "1%"}])
    readings = {key: pair(None, None) for key in keys_needed(spec, None)}
    readings[key_of(spec.stages[0].entry[0], spec.metrics)] = pair(value, None)
    assessment, _ = assess(spec, None, Samples(NOON, readings), Evidence(), NOON)
    assert assessment.entering == "some"
    assert assessment.entries[0].outcome is outcome


def test_before_the_first_stage_there_is_nothing_to_compare():
    spec = spec_with(entry=[{"preset": "latency-p99", "maxRatio": "2"}])
    readings = {key: pair(0.1, None) for key in keys_needed(spec, None)}
    assert assess(spec, None, Samples(NOON, readings), Evidence(), NOON)[0].entries[0].lack is Lack.NOT_APPLICABLE


SLO = {"name": "slos", "query": "x", "min": "1", "for": "30s", "minRequests": 0}


def held(story: list[tuple[int, float | Reading | None]], *, restart: bool = False) -> list[Outcome]:
    """Outcomes of a gate that must have held for 30 s, one sample every so many seconds."""
    spec, evidence, found = spec_with(exits=[SLO]), Evidence(), []
    for seconds, value in story:
        given = samples(spec, NOON + seconds, own=pair(None, value))
        assessment, evidence = assess(spec, spec.stages[0], given, evidence, NOON + seconds)
        if restart:
            evidence = Evidence.from_dict(evidence.to_dict())
        found.append(assessment.exits[0].outcome)
    return found


@pytest.mark.parametrize("restart", [False, True])
def test_a_lasting_gate_passes_once_it_has_held_for_as_long(restart):
    story = [(second, 1.0) for second in range(0, 50, 10)]
    assert held(story, restart=restart) == [Outcome.NONE] * 3 + [Outcome.PASS] * 2


def test_one_bad_sample_begins_a_lasting_gate_again():
    story = [(0, 1.0), (10, 1.0), (20, 0.0), (30, 1.0), (40, 1.0), (50, 1.0), (60, 1.0)]
    assert held(story) == [Outcome.NONE] * 2 + [Outcome.FAIL] + [Outcome.NONE] * 3 + [Outcome.PASS]


@pytest.mark.parametrize("gone", [DOWN, None])
def test_missing_data_neither_counts_for_a_lasting_gate_nor_begins_it_again(gone):
    story = [(0, 1.0), (10, 1.0), *((second, gone) for second in range(20, 60, 10)), (60, 1.0), (70, 1.0)]
    assert set(held(story)) == {Outcome.NONE}
    assert held([*story, (80, 1.0)])[-1] is Outcome.PASS


def test_a_gate_about_alerts_is_open_while_none_fires():
    spec = spec_with(exits=[{"name": "quiet", "alert": {"labels": {"severity": "1|2"}}}])
    key = key_of(spec.stages[0].exit[0], spec.metrics)
    for firing, outcome in ((0.0, Outcome.PASS), (1.0, Outcome.FAIL), (DOWN, Outcome.NONE)):
        given = Samples(NOON, {key: pair(None, firing)})
        assert assess(spec, spec.stages[0], given, Evidence(), NOON)[0].exits[0].outcome is outcome


# -- whatever is measured ----------------------------------------------------------------------------------------------

READINGS = st.one_of(
    st.builds(Reading.of, st.floats(allow_nan=True, allow_infinity=True)),
    st.just(EMPTY),
    st.just(DOWN),
    st.just(Reading(ReadingKind.ABSENT, None, "nothing to ask")),
    st.builds(with_spread, st.floats(0, 1e6), st.floats(0, 1e6)),
)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), stage=st.sampled_from([None, 0, 1]))
def test_no_sample_makes_the_standard_rules_stumble_and_missing_data_is_never_a_fail(data, stage):
    raw = make_spec().model_dump(mode="json", by_alias=True, exclude_none=True)
    spec = resolve(CanaryRolloutSpec.model_validate(raw), lambda _: "").spec
    place = None if stage is None else spec.stages[stage]
    keys = sorted(keys_needed(spec, place))
    readings = {key: Pair(data.draw(READINGS), data.draw(READINGS)) for key in keys if data.draw(st.booleans())}
    assessment, evidence = assess(spec, place, Samples(NOON, readings), Evidence(), NOON)
    for verdict in assessment.rules:
        assert (verdict.outcome is Outcome.NONE) == (verdict.lack is not None)
        if verdict.outcome is Outcome.FAIL:
            assert verdict.value is not None
    assert Evidence.from_dict(evidence.to_dict()) == evidence
