"""The standard rules: listed as inactive where the app never had their series, and never stumbling over a sample."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import DOWN, NOON, judge, pair, rule, samples, with_spread
from small_specs import make_spec

from canary_rollout.analysis.evidence import Evidence, short
from canary_rollout.analysis.readings import EMPTY, Pair, Reading, ReadingKind, Samples, keys_needed
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.verdict import Assessment, Lack, Outcome
from canary_rollout.model.effective import resolve
from canary_rollout.model.presets import EVENTS
from canary_rollout.model.spec import CanaryRolloutSpec


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
