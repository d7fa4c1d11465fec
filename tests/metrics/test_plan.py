"""The fewest queries for all rollouts, and where each finds its values."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_requests import make_request, make_spec

from canary_rollout.metrics.errors import PresetError, UnsafeValueError
from canary_rollout.metrics.plan import LONGEST_NAMESPACES, Alone, InBatch, Nowhere, Plan, chunks, locate_raw
from canary_rollout.metrics.pods import PREFIX_PATTERN, arm_value, pod_pattern
from canary_rollout.metrics.presets import catalogue, known_measures, load, read
from canary_rollout.metrics.request import VersionArm
from canary_rollout.model.metrics import SOURCES
from canary_rollout.model.presets import PRESETS, TRAFFIC_SHARE

RULES = [
    {"name": "errors", "preset": "error-rate", "above": "1%"},
    {"name": "slow", "preset": "latency-p99", "aboveRatio": "2"},
]


def spec(**more):
    return make_spec(**({"rules": RULES} | more))


def own(query):
    return spec(rules=[{"name": "mine", "query": query, "above": "1", "minRequests": 0}])


def texts_of(requests):
    plan = Plan()
    for request in requests:
        plan.add(request)
    return plan.texts()


@pytest.mark.parametrize("source", ["app", "agent"])
def test_the_number_of_queries_does_not_grow_with_the_rollouts(source):
    shape = spec(source=source)
    one = texts_of([make_request(shape)])
    many = texts_of([make_request(shape, f"team-{number % 20}", f"app-{number}") for number in range(2000)])
    assert len(one) == len(many) == (3 if source == "app" else 4)


@pytest.mark.thorough
@pytest.mark.parametrize("source", ["app", "agent", "istio"])
def test_standard_rules_and_the_comparison_ask_no_more_for_two_thousand_rollouts_than_for_one(source):
    """Once per place in the interval, of which there are ten and of which one is due at a time."""
    shape = make_spec(source=source)

    def asking(number):
        request = make_request(shape, f"team-{number % 20}", f"app-{number}")
        return replace(request, compared=True, phase=float(number % 10))

    one, ten, many = (texts_of([asking(number) for number in range(count)]) for count in (1, 10, 1000))
    assert len(list(locate_raw(asking(0)))) == 5  # requests, errors, buckets, memory, CPU
    assert len(one) < 45
    assert len(ten) <= 10 * len(one)
    assert len(many) == len(ten)


def test_other_windows_are_other_queries():
    other = spec(window="1m")
    assert len(texts_of([make_request(spec()), make_request(other, name="other")])) == 6


def test_one_namespace_is_matched_exactly_and_several_by_their_names():
    (text,) = {text for text in texts_of([make_request(spec(), "shop")]) if "increase" in text}
    assert 'namespace="shop"' in text
    (text,) = {
        text for text in texts_of([make_request(spec(), name, name) for name in ("b", "a")]) if "increase" in text
    }
    assert 'namespace=~"a|b"' in text


def test_a_rollout_that_leaves_takes_its_namespace_with_it():
    plan = Plan()
    first, second = make_request(spec(), "a", "x"), make_request(spec(), "b", "y")
    plan.add(first)
    alone = plan.texts()
    plan.add(second)
    assert plan.texts() != alone
    plan.remove(second.key)
    plan.remove(second.key)
    assert plan.texts() == alone
    plan.remove(first.key)
    assert (len(plan), plan.texts()) == (0, frozenset())


def test_a_rollout_that_asks_something_else_replaces_what_it_asked():
    plan = Plan()
    plan.add(make_request(spec()))
    plan.add(make_request(spec(rules=[])))
    assert len(plan.texts()) == 1  # the received share
    assert len(plan) == 1


names = st.from_regex(r"\A[a-z]([-a-z0-9]{0,61}[a-z0-9])?\Z")


@settings(max_examples=60, deadline=None)
@given(st.sets(names, min_size=1, max_size=400))
def test_namespaces_are_spread_over_queries_of_bounded_length_and_none_is_lost(namespaces):
    parts = list(chunks(namespaces))
    assert [name for part in parts for name in part] == sorted(namespaces)
    assert all(len("|".join(part)) <= LONGEST_NAMESPACES for part in parts)


operations = st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), max_size=40)


@settings(max_examples=100, deadline=None)
@given(operations)
def test_whatever_comes_and_goes_the_queries_are_those_of_who_is_there(steps):
    plan, there = Plan(), {}
    for comes, name, namespace in steps:
        request = make_request(spec(), f"team-{namespace}", f"app-{name}")
        if comes:
            plan.add(request)
            there[request.key] = request
        else:
            plan.remove(request.key)
            there.pop(request.key, None)
        assert plan.texts() == texts_of(there.values())


# -- pods --------------------------------------------------------------------------------------------------------------


def generated_pod(replica_set, random="abcde"):
    """As k8s.io/apiserver/pkg/storage/names makes it."""
    return f"{replica_set}-"[:58] + random


@given(st.from_regex(r"\A[a-z]([-a-z0-9]{0,98}[a-z0-9])?\Z"), st.from_regex(r"\A[a-z0-9]{5}\Z"))
def test_a_pods_first_part_is_what_its_replica_set_says(replica_set, random):
    found = re.fullmatch(PREFIX_PATTERN, generated_pod(replica_set, random))
    assert found is not None
    assert found[1] == arm_value(replica_set)


@pytest.mark.parametrize(
    ("arm", "matching", "others"),
    [
        (
            VersionArm("shop", "shop", frozenset({"shop-6b7f"})),
            ["shop-6b7f-abcde"],
            ["shop-6b7f-x-abcde", "shop-canary-6b7f-abcde", "shop-6b7f-abcdef", "shop-6b7f-"],
        ),
        (VersionArm("a.b", "a", frozenset({"a.b-1"})), ["a.b-1-abcde"], ["axb-1-abcde"]),
        (VersionArm("a", "a", pods=frozenset({"a.b", "c"})), ["a.b", "c"], ["axb", "a.b-c"]),
        (VersionArm("a", "a"), [], ["", "a", "no-pods-yet", "a-1-abcde"]),
    ],
)
def test_the_pattern_of_a_version_matches_its_pods_and_no_others(arm, matching, others):
    pattern = pod_pattern(arm)
    assert all(re.fullmatch(pattern, name) for name in matching)
    assert not any(re.fullmatch(pattern, name) for name in others)


def place_of(request, what="error-rate"):
    plan = Plan()
    return next(lookup for lookup in plan.add(request) if lookup.key.what == what)


def test_versions_without_pods_are_nowhere():
    lookup = place_of(make_request(spec(), canary=frozenset()))
    assert lookup.canary == Nowhere("")
    assert isinstance(lookup.stable, InBatch)


def test_several_replica_sets_take_a_query_of_their_own():
    lookup = place_of(make_request(spec(), stable=frozenset({"a-1", "a-2"})))
    assert isinstance(lookup.stable, Alone)
    assert 'pod=~"(a-1-|a-2-)[a-z0-9]{5}"' in lookup.stable.text


def test_by_label_an_app_is_found_by_its_services_first():
    arms = {"by": "label", "label": "version", "stable": "v1", "canary": "v2"}
    lookup = place_of(make_request(spec(arms=arms)))
    assert lookup.canary.keys == (
        ("shop", "checkout-canary", "v2"),
        ("shop", "checkout", "v2"),
        ("shop", "", "v2"),
    )
    assert lookup.stable.keys[0] == ("shop", "checkout", "v1")


def test_the_label_may_be_the_service_itself():
    arms = {"by": "label", "label": "service", "stable": "one", "canary": "two"}
    assert place_of(make_request(spec(arms=arms))).canary.keys == (("shop", "two"),)


# -- queries of one's own ----------------------------------------------------------------------------------------------


def test_variables_are_filled_in_for_each_version_and_other_dollars_are_left():
    query = 'label_replace(x{n="$namespace",d="$deployment",s="${service}",p=~"$pods"}[$window], "a", "$1", "b", "$podsX(.*)")'
    lookup = place_of(make_request(own(query)), query)
    assert lookup.canary.text == (
        'label_replace(x{n="shop",d="checkout-canary",s="checkout-canary",p=~"(checkout-canary-7d8e-)[a-z0-9]{5}"}[5m], '
        '"a", "$1", "b", "$podsX(.*)")'
    )
    assert 'd="checkout"' in lookup.stable.text


def test_a_query_for_both_versions_alike_has_no_stable():
    lookup = place_of(make_request(own("up")), "up")
    assert lookup.canary == Alone("up")
    assert "does not tell the versions apart" in lookup.stable.message


def test_the_same_query_of_many_rollouts_is_asked_once():
    requests = [make_request(own("sum(up)"), name=f"app-{number}") for number in range(50)]
    assert sum("up" in text for text in texts_of(requests)) == 1


HOSTILE = ['a"}', "a|b", "a.*", "a\\", "a\n", "", "A", "a'", "a`", "a}or{b", "a b", "-a", "a-", "é", "a" * 300]


@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_but_a_kubernetes_name_reaches_a_query(value):
    with pytest.raises(UnsafeValueError):
        VersionArm("a", "a", frozenset({value}))
    with pytest.raises(UnsafeValueError):
        VersionArm("a", "a", pods=frozenset({value}))
    with pytest.raises(UnsafeValueError):
        VersionArm(value, "a")
    with pytest.raises(UnsafeValueError):
        VersionArm("a", value)
    with pytest.raises(UnsafeValueError):
        make_request(spec(), value)
    with pytest.raises(UnsafeValueError):
        make_request(spec(), "a", value)


@pytest.mark.parametrize("value", ['r"', "r|s", "r\n", "r" * 65])
def test_no_hostile_revision_reaches_a_query(value):
    with pytest.raises(UnsafeValueError, match="revision"):
        VersionArm("a", "a", revision=value)


# -- presets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_counts_requests_and_failures(source):
    assert {"requests", "request-rate", "error-rate"} <= load(source).measures.keys()


def test_every_preset_of_the_resource_is_somewhere_and_every_listed_one_can_be_written():
    listed = {entry.name for entry in catalogue()}
    assert PRESETS.keys() - {TRAFFIC_SHARE} <= listed
    assert PRESETS.keys() <= known_measures()
    for name in listed:
        make_spec(rules=[{"name": "rule", "preset": name, "above": "1"}])


def test_a_source_that_does_not_exist_is_said():
    with pytest.raises(PresetError, match="nothing"):
        load("nothing")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: own\ndescription: 2026-13-45\n", "month must be in"),
        (f"name: own\ndescription: {'1' * 5000}\n", "digits"),
        (f"name: own\nmeasures: {'[' * 3000}{']' * 3000}\n", "nested more than"),
        ("name: own\nmeasures: {a: &a {anyOf: [{rate: x}]}, b: {anyOf: [*a, *a]}}\n", "aliases"),
        ("name: own\nmeasures: {a: &a {anyOf: [*a]}}\n", "aliases"),
    ],
    ids=["date", "number", "depth", "aliases", "circle"],
)
def test_a_preset_set_that_was_written_to_hurt_is_refused_in_words(text: str, said: str):
    with pytest.raises(PresetError, match=said):
        read(text, "shop/own")


def test_a_preset_that_does_not_exist_is_said_and_asks_nothing():
    request = make_request(spec(rules=[{"name": "mine", "preset": "adoptoin", "above": "1"}]))
    lookup = place_of(request, "adoptoin")
    assert lookup.canary == Nowhere("there is no preset adoptoin; kubectl canary presets lists them", mistake=True)


def test_a_preset_that_only_other_sources_have_is_not_applicable():
    lookup = place_of(make_request(spec(source="haproxy", rules=[RULES[1]])), "latency-p99")
    assert lookup.canary == Nowhere("source haproxy has no latency-p99", inactive=True)


def test_very_many_namespaces_are_asked_for_in_several_queries_and_each_finds_its_own():
    plan = Plan()
    requests = [make_request(spec(), f"a-rather-long-namespace-{number:03d}", "app") for number in range(400)]
    for request in requests:
        plan.add(request)
    assert len(plan.texts()) == 3 * 3  # three shapes, 400 * 27 characters of names
    for request in requests:
        lookup = place_of(request)
        batch = plan.batch(lookup.canary.shape, request.namespace)
        assert request.namespace in batch.scopes
        assert request.namespace in batch.text
