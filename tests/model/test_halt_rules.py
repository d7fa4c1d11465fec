"""Halt rules: the standard set, what changes it, and sets that are shared."""

import pytest
from pydantic import ValidationError
from rollouts import GOOD

from canary_rollout.model.effective import MOST_RULES, resolve
from canary_rollout.model.halt_rules import STANDARD, HaltRule, default_halt_rules
from canary_rollout.model.measures import BaselineFrom
from canary_rollout.model.presets import PRESETS
from canary_rollout.model.rule_sets import HaltRuleSetSpec, RuleSetError, RuleSetReference
from canary_rollout.model.spec import Action, CanaryRolloutSpec
from canary_rollout.model.standard_rules import STANDARD_NAMES


def spec(**fields) -> CanaryRolloutSpec:
    return CanaryRolloutSpec.model_validate({**GOOD["spec"], **fields})


def rules(stage=None, **fields) -> dict[str, HaltRule]:
    given = spec(**fields)
    place = next((item for item in given.stages if item.name == stage), None)
    return {rule.name: rule for rule in given.rules_for(place)}


# -- the standard set --------------------------------------------------------------------------------------------------


def test_every_rollout_is_watched_by_the_standard_set():
    assert tuple(rules()) == STANDARD_NAMES


@pytest.mark.parametrize("rule", default_halt_rules(), ids=lambda rule: rule.name)
def test_every_standard_rule_is_whole_and_on_and_asks_for_a_preset_that_is_shipped(rule):
    assert not rule.partial
    assert rule.enabled
    assert rule.alert is not None or rule.preset in PRESETS


@pytest.mark.parametrize(
    ("name", "says"),
    {
        "error-rate": {"above": 0.01, "for_": 300, "action": Action.ROLLBACK, "min_requests": 100},
        "error-rate-vs-stable": {"above_ratio": 2, "action": Action.ROLLBACK, "min_requests": 100},
        "failed-transactions": {"above": 0.001, "action": Action.ROLLBACK},
        "data-inconsistency": {"above": 0, "action": Action.ROLLBACK},
        "security-alert": {"action": Action.ROLLBACK},
        "compliance-violation": {"action": Action.ROLLBACK},
        "p99-latency": {"above_ratio": 5, "for_": 600, "action": Action.PAUSE},
        "slow-requests": {"above": 2, "action": Action.PAUSE},
        "timeouts": {"above": 0.005, "for_": 300, "action": Action.PAUSE},
        "engine-timeouts": {"above": 0.005, "for_": 300, "action": Action.PAUSE},
        "lcp": {"above": 2.5, "for_": 900, "action": Action.PAUSE},
        "inp": {"above": 0.2, "for_": 900, "action": Action.PAUSE},
        "cls": {"above": 0.1, "for_": 900, "action": Action.PAUSE},
        "approval-denials": {"above_sigma": 3, "action": Action.PAUSE},
        "db-connections": {"above": 0.9, "action": Action.ALERT},
        "memory": {"above": 0.9, "action": Action.ALERT},
        "cpu": {"above": 0.8, "action": Action.ALERT},
    }.items(),
)
def test_the_standard_set_says_what_was_asked_for(name, says):
    assert {field: getattr(STANDARD[name], field) for field in says} == says


def test_a_rule_with_a_standard_name_and_no_measure_changes_only_what_it_names():
    changed = rules(haltRules=[{"name": "error-rate", "action": "Pause"}])["error-rate"]
    assert changed == STANDARD["error-rate"].model_copy(update={"action": Action.PAUSE})


def test_a_new_bound_takes_the_place_of_the_old_one_and_of_its_baseline():
    changed = rules(haltRules=[{"name": "p99-latency", "above": "1.5"}])["p99-latency"]
    assert (changed.above, changed.above_ratio, changed.preset) == (1.5, None, "latency-p99")
    assert changed.for_ == 600


def test_a_new_measure_takes_the_place_of_the_old_one():
    changed = rules(haltRules=[{"name": "memory", "query": "sum(heap)"}])["memory"]
    assert (changed.query, changed.preset, changed.above) == ("sum(heap)", None, 0.9)


def test_a_whole_rule_takes_the_place_of_a_standard_one_and_nothing_of_it_stays():
    whole = {"name": "error-rate", "preset": "error-rate", "above": "5%"}
    assert rules(haltRules=[whole])["error-rate"] == HaltRule.model_validate(whole)


def test_a_standard_rule_is_switched_off_by_its_name_and_still_listed():
    found = rules(haltRules=[{"name": "cpu", "enabled": False}])
    assert not found["cpu"].enabled
    assert tuple(found) == STANDARD_NAMES


def test_all_standard_rules_are_switched_off_at_once_and_named_ones_stay():
    found = rules(defaultHaltRules=False, haltRules=[{"name": "error-rate"}, {"name": "cpu", "above": "95%"}])
    assert list(found) == ["error-rate", "cpu"]
    assert found["error-rate"] == STANDARD["error-rate"]
    assert found["cpu"].for_ == STANDARD["cpu"].for_


def test_switching_off_what_is_not_there_is_no_rule():
    assert tuple(rules(haltRules=[{"name": "of-a-set-perhaps", "enabled": False}])) == STANDARD_NAMES


def test_rules_of_a_stage_count_in_that_stage_only():
    stages = [
        {"name": "first", "weight": "5%", "hold": "1h", "haltRules": [{"name": "error-rate", "above": "0.1%"}]},
        {"name": "all", "weight": "100%", "hold": "1h"},
    ]
    assert rules("first", stages=stages)["error-rate"].above == 0.001
    assert rules("all", stages=stages)["error-rate"].above == 0.01


def test_a_rule_of_a_stage_changes_one_of_the_rollout():
    mine = {"name": "queue", "query": "sum(queue)", "above": "100", "for": "5m"}
    stages = [{"name": "all", "weight": "100%", "hold": "1h", "haltRules": [{**mine, "above": "10"}]}]
    assert rules("all", haltRules=[mine], stages=stages)["queue"].above == 10


def test_what_the_api_server_would_fill_in_does_not_overwrite_a_standard_rule():
    from canary_rollout.model.crd import schema

    fields = schema()["properties"]["spec"]["properties"]["haltRules"]["items"]["properties"]
    assert not [name for name, field in fields.items() if "default" in field]


def test_a_sigma_is_held_against_the_same_hour_unless_something_else_is_said():
    sigma = HaltRule.model_validate({"name": "a", "query": "x", "aboveSigma": "3"})
    ratio = HaltRule.model_validate({"name": "b", "query": "x", "aboveRatio": "3"})
    assert (sigma.baseline_from, ratio.baseline_from) == (BaselineFrom.SAME_HOUR, BaselineFrom.STABLE)


# -- sets --------------------------------------------------------------------------------------------------------------

GOLD = {
    "variables": [{"name": "limit", "default": "1%"}, {"name": "team"}],
    "haltRules": [
        {"name": "error-rate", "above": "${limit}"},
        {"name": "pages", "alert": {"labels": {"team": "${team}", "severity": "page"}}, "action": "Pause"},
        {"name": "queue", "query": 'sum(queue{team="${team}", pod=~"$pods"})', "above": "100", "for": "5m"},
    ],
}


def gold(**variables) -> tuple[HaltRule, ...]:
    return HaltRuleSetSpec.model_validate(GOLD).instantiate(variables)


def test_variables_are_filled_in_and_those_of_queries_are_left():
    error_rate, pages, queue = gold(team="shop", limit="3%")
    assert (error_rate.above, error_rate.preset, error_rate.for_) == (0.03, "error-rate", 300)
    assert pages.alert.labels == {"team": "shop", "severity": "page"}
    assert queue.query == 'sum(queue{team="shop", pod=~"$pods"})'


def test_a_variable_without_a_value_has_its_default():
    assert gold(team="shop")[0].above == 0.01


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "variable team has no value"),
        ({"team": "a", "tier": "b"}, "it has no variable tier (known: limit, team)"),
        ({"team": "a", "limit": "much"}, "rule error-rate (above): "),
    ],
)
def test_a_reference_that_does_not_fit_the_set_is_refused_with_a_sentence(variables, says):
    with pytest.raises(RuleSetError) as refused:
        gold(**variables)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"variables": []}, "variables that are not declared: limit, team"),
        ({"variables": [{"name": "pods"}], "haltRules": [{"name": "cpu"}]}, "pods is filled in by itself"),
        ({"haltRules": [{"name": "cpu"}, {"name": "cpu"}]}, "two halt rules have the same name"),
        ({"haltRules": []}, "at least 1 item"),
        ({"haltRules": [{"name": "cpu", "above": "$limit"}]}, "is not a number"),
    ],
)
def test_a_set_that_makes_no_sense_is_refused(changes, says):
    with pytest.raises(ValidationError) as refused:
        HaltRuleSetSpec.model_validate({**GOLD, **changes})
    assert says in str(refused.value)


@pytest.mark.parametrize("hostile", ['x"} or up{a="', "a\nb", "${team}", "$pods", "a'b", "\\", "a{b}", "a`b", "é"])
def test_a_value_cannot_end_a_string_of_a_query(hostile):
    with pytest.raises(ValidationError):
        RuleSetReference.model_validate({"name": "gold", "variables": {"team": hostile}})


SETS = {
    "gold": HaltRuleSetSpec.model_validate(GOLD),
    "strict": HaltRuleSetSpec.model_validate({"haltRules": [{"name": "error-rate", "above": "0.5%"}]}),
}
REFERENCES = [{"name": "gold", "variables": {"team": "shop"}}, {"name": "strict", "kind": "ClusterHaltRuleSet"}]


def found_in(sets):
    return lambda reference: sets.get(reference.name, "it does not exist; create it")


def test_the_effective_spec_has_the_rules_of_all_layers_and_refers_to_none():
    given = spec(haltRuleSets=REFERENCES, haltRules=[{"name": "pages", "enabled": False}])
    effective = resolve(given, found_in(SETS))
    by_name = {rule.name: rule for rule in effective.spec.rules_for(None)}
    assert effective.problems == ()
    assert by_name["error-rate"].above == 0.005, "later sets change earlier ones"
    assert not by_name["pages"].enabled
    assert set(by_name) == {*STANDARD_NAMES, "pages", "queue"}
    assert effective.spec.halt_rule_sets == ()
    assert effective.spec.rules_for(None) == resolve(effective.spec, found_in({})).spec.rules_for(None)


def test_a_rule_of_a_set_is_changed_by_a_whole_rule_or_switched_off():
    whole = {"name": "queue", "query": "sum(queue)", "above": "7"}
    effective = resolve(spec(haltRuleSets=REFERENCES, haltRules=[whole]), found_in(SETS))
    assert {rule.name: rule for rule in effective.spec.rules_for(None)}["queue"].above == 7


def test_a_set_that_is_missing_is_a_problem_and_the_rules_it_had_still_count():
    given = spec(haltRuleSets=REFERENCES)
    whole = resolve(given, found_in(SETS))
    gone = resolve(given, found_in({"strict": SETS["strict"]}), whole.taken)
    assert gone.spec.rules_for(None) == whole.spec.rules_for(None)
    assert gone.problems == (
        "HaltRuleSet gold: it does not exist; create it; nothing is raised, the rules it had still count",
    )
    never = resolve(given, found_in({"strict": SETS["strict"]}))
    assert "its rules are not watched" in never.problems[0]
    assert "pages" not in {rule.name for rule in never.spec.rules_for(None)}


def test_more_rules_than_a_status_can_hold_are_a_problem():
    many = {"haltRules": [{"name": f"r{number}", "query": "up", "above": "1"} for number in range(32)]}
    sets = {name: HaltRuleSetSpec.model_validate(many) for name in ("a", "b")}
    sets["b"] = HaltRuleSetSpec.model_validate(
        {"haltRules": [{"name": f"s{number}", "query": "up", "above": "1"} for number in range(32)]}
    )
    effective = resolve(spec(haltRuleSets=[{"name": "a"}, {"name": "b"}]), found_in(sets))
    assert len(effective.spec.halt_rules) == MOST_RULES
    assert f"are more than the {MOST_RULES}" in effective.problems[0]
