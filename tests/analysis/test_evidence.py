"""What the rules remember: `for` over time, restarts, bounds."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import DOWN, NOON, judge, pair, rule, samples
from small_specs import make_spec

from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.evidence import LARGEST_SEEN, Breach, Evidence
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.verdict import Lack, Outcome

BREACH, CLEAN, GONE, FEW, BOTH = "breach", "clean", "gone", "few", "both"
WORLDS = {
    BREACH: {"error_rate": pair(0.0, 0.5)},
    CLEAN: {"error_rate": pair(0.0, 0.0)},
    GONE: {"error_rate": pair(DOWN, DOWN)},
    FEW: {"error_rate": pair(0.0, 0.5), "requests": pair(4000, 3)},
    BOTH: {"error_rate": pair(0.5, 0.5)},
}


def run(story, raw=None, evidence=None):
    """Judge one sample after the other (seconds after noon, world); return the verdicts and the last evidence."""
    evidence = evidence or Evidence()
    verdicts = []
    for seconds, world in story:
        verdict, evidence = judge(raw or rule(), evidence, at=NOON + seconds, **WORLDS[world])
        verdicts.append(verdict)
    return verdicts, evidence


def outcomes(story, raw=None):
    return [verdict.outcome for verdict in run(story, raw)[0]]


def test_a_breach_fails_when_it_has_lasted():
    found = outcomes([(seconds, BREACH) for seconds in range(0, 71, 10)])
    assert found == [Outcome.NONE] * 6 + [Outcome.FAIL] * 2


def test_a_clean_sample_begins_the_count_again():
    story = [(0, BREACH), (50, BREACH), (55, CLEAN)] + [(60 + step, BREACH) for step in range(0, 60, 10)]
    assert Outcome.FAIL not in outcomes(story)
    assert outcomes([*story, (120, BREACH)])[-1] is Outcome.FAIL


@pytest.mark.parametrize("missing", [GONE, FEW, BOTH])
def test_samples_without_a_verdict_neither_count_nor_end_a_breach(missing):
    before = [(step, BREACH) for step in range(0, 41, 10)]  # 40 s
    between = [(step, missing) for step in range(50, 1050, 10)]
    verdicts, evidence = run(before + between)
    assert {verdict.outcome for verdict in verdicts} == {Outcome.NONE}
    assert evidence.breaches["errors"].seconds == 40
    after = [(1050 + step, BREACH) for step in range(0, 21, 10)]  # 20 s more
    assert outcomes(before + between + after)[-3:] == [Outcome.NONE, Outcome.NONE, Outcome.FAIL]


def test_a_gap_of_up_to_three_intervals_is_bridged_and_a_longer_one_is_not():
    assert run([(0, BREACH), (30, BREACH)])[1].breaches["errors"].seconds == 30
    assert run([(0, BREACH), (30.001, BREACH)])[1].breaches["errors"].seconds == 0


def test_the_same_sample_twice_counts_once():
    _, once = run([(0, BREACH), (10, BREACH)])
    assert run([(0, BREACH), (10, BREACH), (10, BREACH)])[1] == once


def test_a_clock_set_back_does_not_stop_the_count():
    _, evidence = run([(0, BREACH), (10, BREACH), (-3600, BREACH), (-3590, BREACH)])
    assert evidence.breaches["errors"] == Breach(evidence.breaches["errors"].of, NOON - 3600, 20.0, NOON - 3590)


def test_a_rule_that_asks_something_else_under_the_same_name_starts_afresh():
    _, evidence = run([(step, BREACH) for step in range(0, 60, 10)])
    verdict, after = judge(rule(above="2%"), evidence, at=NOON + 60, **WORLDS[BREACH])
    assert (verdict.outcome, after.breaches["errors"].since) == (Outcome.NONE, NOON + 60)


def test_a_shorter_for_applies_to_the_breach_under_way():
    _, evidence = run([(step, BREACH) for step in range(0, 31, 10)])
    assert judge(rule(**{"for": "40s"}), evidence, at=NOON + 40, **WORLDS[BREACH])[0].outcome is Outcome.FAIL


def test_a_rule_that_is_gone_is_forgotten():
    _, evidence = run([(0, BREACH)])
    assert judge(rule(name="other"), evidence, **WORLDS[CLEAN])[1].breaches == {}


def test_a_missing_sample_in_a_breach_says_that_the_breach_is_kept():
    verdicts, _ = run([(0, BREACH), (10, GONE)])
    assert (verdicts[1].lack, verdicts[1].breached_since) == (Lack.NO_DATA, NOON)
    assert "breached since 12:00:00, kept" in verdicts[1].message


def test_a_restart_forgets_breaches_and_remembers_what_was_seen():
    _, evidence = run([(0, BREACH)])
    afresh = evidence.restarted(NOON + 5)
    assert (afresh.breaches, afresh.fresh_after) == ({}, NOON + 5)
    assert afresh.seen_canary == evidence.seen_canary == {"error-rate", "requests"}


def test_samples_are_evaluated_through_the_latest():
    assert run([(0, CLEAN), (10, CLEAN)])[1].evaluated_through == NOON + 10


@pytest.mark.parametrize(
    "raw",
    [
        {"breaches": {"errors": {}}},
        {"breaches": {"errors": "x yesterday 1000 1795262400000"}},
        {"breaches": {"errors": "x 1795262400000 1000"}},
        {"breaches": {"errors": "x 1795262400000 1000 9e99"}},
        {"held": {"exit/errors": 3}},
        {"muted": "errors"},
        {"seen": "errors"},
        {"comparison": 7},
        {"breaches": ["errors"]},
        {"breaches": {str(number): "x 0 0 0" for number in range(97)}},
        {"seenCanary": "error-rate"},
        {"seenStable": [1]},
        {"freshAfter": 12},
    ],
)
def test_evidence_that_somebody_else_wrote_is_refused_with_the_way_out(raw):
    with pytest.raises(EvidenceError, match="use retry or reset"):
        Evidence.from_dict(raw)


def test_no_evidence_is_empty_evidence():
    assert Evidence.from_dict({}) == Evidence()
    assert Evidence().to_dict() == {}


def test_evidence_holds_strings_only():
    """No floats cross the API."""
    _, evidence = run([(0.1234, BREACH), (7.5, BREACH)])
    text = json.dumps(evidence.restarted(NOON).to_dict() | evidence.to_dict())
    assert isinstance(json.loads(text)["breaches"]["errors"], str)


worlds = st.sampled_from(list(WORLDS))
steps = st.floats(min_value=0.001, max_value=60, allow_nan=False)
stories = st.lists(st.tuples(steps, worlds), min_size=1, max_size=40)


def placed(story):
    at = 0.0
    for step, world in story:
        at += step
        yield round(at, 3), world


@pytest.mark.thorough
@settings(max_examples=300, deadline=None)
@given(stories, st.integers(min_value=0, max_value=120))
def test_for_never_ends_earlier_than_it_says(story, seconds):
    """Fails only after breaching samples that span ``for``, with no clean one between them."""
    raw = rule(**{"for": f"{seconds}s"})
    first = None
    evidence = Evidence()
    for at, world in placed(story):
        verdict, evidence = judge(raw, evidence, at=NOON + at, **WORLDS[world])
        if world is CLEAN:
            first = None
        elif world is BREACH and first is None:
            first = at
        if verdict.outcome is Outcome.FAIL:
            assert world is BREACH
            assert at - first >= seconds - 0.001


@pytest.mark.thorough
@settings(max_examples=300, deadline=None)
@given(stories)
def test_missing_data_never_becomes_a_pass_or_a_fail(story):
    evidence = Evidence()
    for at, world in placed(story):
        before = evidence.breaches
        verdict, evidence = judge(rule(**{"for": "5s"}), evidence, at=NOON + at, **WORLDS[world])
        if world in {GONE, FEW, BOTH}:
            assert verdict.outcome is Outcome.NONE
            assert verdict.lack is {GONE: Lack.NO_DATA, FEW: Lack.NOT_ENOUGH, BOTH: Lack.NOT_APPLICABLE}[world]
            assert evidence.breaches == before


@pytest.mark.thorough
@settings(max_examples=300, deadline=None)
@given(stories, st.sets(st.integers(min_value=0, max_value=39)))
def test_a_restart_of_the_operator_changes_no_verdict(story, restarts):
    kept = persisted = Evidence()
    for place, (at, world) in enumerate(placed(story)):
        if place in restarts:
            persisted = Evidence.from_dict(json.loads(json.dumps(persisted.to_dict())))
        raw = rule(**{"for": "20s"})
        expected, kept = judge(raw, kept, at=NOON + at, **WORLDS[world])
        found, persisted = judge(raw, persisted, at=NOON + at, **WORLDS[world])
        assert found == expected
        assert persisted == kept


@pytest.mark.thorough
@settings(max_examples=200, deadline=None)
@given(stories)
def test_the_same_samples_always_give_the_same_verdicts(story):
    assert run(list(placed(story))) == run(list(placed(story)))


def test_evidence_stays_small_whatever_is_edited():
    """Every edit of the queries adds to what was seen, up to a bound; then only what the spec names is kept."""
    evidence = Evidence()
    sizes = set()
    for number in range(LARGEST_SEEN + 50):
        spec = make_spec(rules=[rule(query=f"q{number}", minRequests=0), rule(name="other")])
        found = samples(spec, own=pair(1.0, 9.0), **WORLDS[BREACH])
        _, evidence = assess(spec, spec.stages[0], found, evidence, NOON)
        assert {"error-rate", "requests"} <= evidence.seen_canary
        sizes.add(len(evidence.seen_canary))
    assert max(sizes) == LARGEST_SEEN
    assert len(json.dumps(evidence.to_dict())) < 16_000
