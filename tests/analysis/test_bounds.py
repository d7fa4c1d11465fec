"""What rules say beyond a plain threshold: baselines, spreads, alerts, the share received, dry runs."""

from typing import Any

import pytest
from judged import DOWN, NOON, judge, pair, rule, samples, with_spread
from small_specs import make_spec

from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.readings import (
    BEFORE,
    EMPTY,
    REQUESTS,
    SAME_HOUR,
    Pair,
    Reading,
    Samples,
    key_of,
    keys_needed,
    stable_key,
)
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.verdict import Lack, Outcome, Verdict
from canary_rollout.model.spec import Action

AT_ONCE = {"for": "0s"}


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


# -- dry runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "words"), [("Rollback", "would have rolled back"), ("Pause", "would have paused")])
def test_a_dry_run_says_what_it_would_have_done_and_only_alerts(action, words):
    verdict, _ = judge(rule(action=action, dryRun=True, **AT_ONCE), error_rate=pair(0.0, 0.5))
    assert (verdict.outcome, verdict.action) == (Outcome.FAIL, Action.ALERT)
    assert words in verdict.message
