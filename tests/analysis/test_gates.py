"""Gates: of the next stage, of a stage's end, lasting ones."""

from typing import Any

import pytest
from judged import DOWN, NOON, pair, samples
from small_specs import make_spec

from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.readings import Reading, Samples, key_of, keys_needed
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.verdict import Lack, Outcome
from canary_rollout.model.spec import CanaryRolloutSpec


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
