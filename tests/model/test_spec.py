"""The spec: what is refused and in which words, what defaults are, and that nothing is lost on the way."""

import pytest
from hostile import FINE_IN_A_PATTERN, HOSTILE, HOSTILE_FIELDS, HOSTILE_PATTERN
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rollout_specs import specs
from rollouts import GONE, GOOD, RULE, STAGES, changed
from wrong_rollouts import BAD, Bad

from canary_rollout.model.explain import explain_validation_error, validation_problems
from canary_rollout.model.spec import CanaryRolloutSpec, check_stages, stages_from_weights
from canary_rollout.model.standard_rules import STANDARD_NAMES
from canary_rollout.model.units import (
    FULL,
    UnitError,
    format_duration,
    format_number,
    format_weight,
    parse_duration,
    parse_number,
    parse_weight,
)


def problems_of(spec) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        CanaryRolloutSpec.model_validate(spec)
    return validation_problems(refused.value)


def test_a_spec_of_three_names_is_enough():
    spec = CanaryRolloutSpec.model_validate(GOOD["spec"])
    assert [format_weight(stage.weight) for stage in spec.active_stages] == ["0.5%", "5%", "25%", "100%"]
    assert spec.halt_rules == ()
    assert [rule.name for rule in spec.rules_for(None)] == list(STANDARD_NAMES)
    assert spec.traffic.router == "nginx"


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_what_is_wrong_is_said_with_its_place_and_its_cure(bad: Bad):
    problems = problems_of(bad.manifest["spec"])
    assert [problem for problem in problems if problem.startswith(f"{bad.at}: ") and bad.says in problem], problems


def refused_at(at, path, beside, hostile):
    """Whether one of the problems is about this very place, and all of them can be shown to people."""
    try:
        CanaryRolloutSpec.model_validate(changed({**beside, path: hostile})["spec"])
    except ValidationError as refused:
        problems = validation_problems(refused)
        shown = all(problem.isprintable() and len(problem) < 400 for problem in problems)
        return shown and any(problem.startswith(f"{at}: ") for problem in problems)
    return False


@pytest.mark.parametrize(("at", "path", "beside"), HOSTILE_FIELDS, ids=[field[0] for field in HOSTILE_FIELDS])
def test_a_hostile_string_is_refused_wherever_it_could_reach_a_config_a_query_or_an_address(at, path, beside):
    assert [hostile for hostile in HOSTILE if not refused_at(at, path, beside, hostile)] == []


def test_a_hostile_string_is_no_pattern():
    wrong = [one for one in HOSTILE if one not in FINE_IN_A_PATTERN]
    assert [hostile for hostile in wrong if not refused_at(*HOSTILE_PATTERN, hostile)] == []


def test_a_disabled_stage_is_passed_over():
    spec = CanaryRolloutSpec.model_validate(changed({"stages": STAGES, "stages.1.enabled": False})["spec"])
    assert [stage.name for stage in spec.active_stages] == ["first", "all"]


def test_a_stage_with_too_few_requests_asks_a_person_after_three_holds_or_max_hold():
    stages = changed({"stages": STAGES, "stages.0.maxHold": "90m"})["spec"]["stages"]
    spec = CanaryRolloutSpec.model_validate({**GOOD["spec"], "stages": stages})
    assert [stage.longest_hold for stage in spec.stages] == [5400.0, 3 * 129600.0, 0.0]


def test_a_gate_is_called_by_its_name_or_its_preset():
    gates = [{"preset": "error-rate", "max": "1%"}, {"name": "slow", "query": "up", "min": "1"}]
    spec = CanaryRolloutSpec.model_validate(changed({"stages": STAGES, "stages.0.exit": gates})["spec"])
    assert [gate.label for gate in spec.stages[0].exit] == ["error-rate", "slow"]


def test_ingress_nginx_is_a_router_too():
    spec = CanaryRolloutSpec.model_validate(changed({"traffic": {"ingressNginx": {"ingress": "shop"}}})["spec"])
    assert spec.traffic.router == "ingressNginx"


def test_many_problems_are_cut_short_in_one_sentence():
    spec = {**GOOD["spec"], "haltRules": [{**RULE, "name": f"r{at}", "action": "No"} for at in range(12)]}
    with pytest.raises(ValidationError) as refused:
        CanaryRolloutSpec.model_validate(spec)
    sentence = explain_validation_error(refused.value)
    assert sentence.endswith("; and 4 more")
    assert "spec.haltRules[7].action" in sentence


def test_a_field_nobody_knows_is_told_what_is_known():
    (problem,) = problems_of(changed({"metrics.arms": {"zzz": 1}})["spec"])
    assert problem == "spec.metrics.arms.zzz: there is no such field: remove it (known here: by, label, stable, canary)"


@pytest.mark.parametrize("wrong", [None, [], "text", 3])
def test_a_spec_that_is_no_mapping_is_refused_with_a_sentence(wrong):
    assert problems_of(wrong)[0].startswith("spec: ")


def test_stages_of_a_command_are_named_by_their_weight():
    stages = stages_from_weights(("0.5%", "10%", "100%"), "10m")
    assert [(stage.name, stage.weight, stage.hold) for stage in stages] == [
        ("w0-5", 50, 600.0),
        ("w10", 1000, 600.0),
        ("w100", FULL, 600.0),
    ]


def test_stages_of_a_command_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="stage weights rise"):
        stages_from_weights(("10%", "5%", "100%"), "10m")


def test_an_empty_stage_list_is_refused():
    with pytest.raises(ValueError, match="at least one stage is enabled"):
        check_stages(())


@pytest.mark.parametrize("number", [True, None, -3, 0.5, [], 100_000])
def test_a_weight_that_is_no_string_is_refused(number):
    with pytest.raises(UnitError, match=r"percentage in quotes"):
        parse_weight(number)


def test_a_bare_weight_is_refused_with_both_readings():
    with pytest.raises(UnitError, match=r'25 % or 25 basis points: write "25%" or "0.25%", in quotes'):
        parse_weight(25)
    with pytest.raises(UnitError, match=r'write "2.5%", in quotes'):
        parse_weight(250)


@given(st.integers(0, FULL))
def test_every_weight_survives_being_written_and_read(basis_points):
    assert parse_weight(format_weight(basis_points)) == basis_points


@given(st.integers(0, 99_999 * 86_400_000))
def test_every_duration_survives_being_written_and_read(milliseconds):
    assert round(parse_duration(format_duration(milliseconds / 1000)) * 1000) == milliseconds


@given(st.integers(0, 10**9))
def test_every_number_survives_being_written_and_read(millionths):
    assert parse_number(format_number(millionths / 1e6)) == pytest.approx(millionths / 1e6, abs=1e-9)


@pytest.mark.thorough
@settings(max_examples=200)
@given(spec=specs())
def test_a_spec_that_is_accepted_survives_being_written_and_read(spec):
    accepted = CanaryRolloutSpec.model_validate(spec)
    written = accepted.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert CanaryRolloutSpec.model_validate(written) == accepted


def test_taking_a_required_part_away_is_said():
    assert problems_of(changed({"metrics": GONE})["spec"]) == ["spec.metrics: is required: add it"]
