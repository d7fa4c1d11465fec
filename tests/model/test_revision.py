"""Revisions: what counts as a change of the pods, and what stable keeps for itself."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary_rollout.model.revision import copy_template, revision_of

SELECTOR = ("app", "track")


def template(
    image: str = "shop:1", *, labels: dict[str, str] | None = None, env: list[Any] | None = None
) -> dict[str, Any]:
    return {
        "metadata": {"creationTimestamp": None, "labels": {"app": "checkout", **(labels or {})}},
        "spec": {"containers": [{"name": "app", "image": image, "env": env or [], "resources": {}}]},
    }


def revision(given: dict[str, Any], *paths: str) -> str:
    return revision_of(given, SELECTOR, paths)


def test_a_revision_is_ten_hex_digits():
    assert len(revision(template())) == 10
    assert int(revision(template()), 16) >= 0


def test_another_image_is_another_revision():
    assert revision(template("shop:1")) != revision(template("shop:2"))


def test_selector_labels_do_not_count_but_other_labels_do():
    assert revision(template(labels={"track": "canary"})) == revision(template(labels={"track": "stable"}))
    assert revision(template(labels={"team": "a"})) != revision(template(labels={"team": "b"}))


def test_absent_null_and_empty_are_the_same():
    bare = {"spec": {"containers": [{"name": "app", "image": "shop:1"}]}}
    assert revision(template(env=None)) == revision(bare)


def test_an_empty_element_still_holds_its_place_in_a_list():
    assert revision({"spec": {"list": [{}, {"a": 1}]}}) != revision({"spec": {"list": [{"a": 1}]}})


def test_zero_false_and_the_empty_string_are_values():
    assert len({revision({"spec": {"a": value}}) for value in (0, "", None, "0")}) == 4


def test_the_order_of_keys_does_not_matter_and_that_of_lists_does():
    one = {"spec": {"a": 1, "b": 2}}
    other = {"spec": {"b": 2, "a": 1}}
    assert revision(one) == revision(other)
    assert revision({"spec": {"l": [1, 2]}}) != revision({"spec": {"l": [2, 1]}})


@pytest.mark.parametrize(
    "path",
    [
        "/spec/containers/0/env/VERSION",
        "/spec/containers/app/env/VERSION",
        "/spec/containers/app/env/0",
        "/spec/containers/app/env",
        "/spec/containers/app/env/VERSION/value",
    ],
)
def test_an_identity_path_takes_its_place_out_of_the_revision(path):
    one, other = (template(env=[{"name": "VERSION", "value": value}]) for value in ("stable", "canary"))
    assert revision(one) != revision(other)
    assert revision(one, path) == revision(other, path)
    assert revision(one, path) != revision(template("shop:2", env=[{"name": "VERSION", "value": "stable"}]), path)


def test_slashes_and_tildes_in_a_key_are_written_as_escapes():
    one, other = ({"metadata": {"annotations": {"team.example/a~b": value}}} for value in ("1", "2"))
    assert revision(one, "/metadata/annotations/team.example~1a~0b") == revision(
        other, "/metadata/annotations/team.example~1a~0b"
    )


def test_two_indexes_of_one_list_both_count_from_the_whole_list():
    given = {"spec": {"args": ["a", "b", "c"]}}
    assert revision(given, "/spec/args/0", "/spec/args/1") == revision({"spec": {"args": ["c"]}})


def test_a_path_that_leads_nowhere_changes_nothing():
    assert revision(template(), "/spec/volumes/9/name", "/spec/containers/0/image/x") == revision(template())


def test_stable_keeps_its_selector_labels_and_gets_the_rest():
    canary = template("shop:2", labels={"track": "canary", "team": "new"})
    stable = template("shop:1", labels={"track": "stable", "team": "old"})
    copied = copy_template(canary, stable, SELECTOR, ())
    assert copied["metadata"]["labels"] == {"app": "checkout", "track": "stable", "team": "new"}
    assert copied["spec"]["containers"][0]["image"] == "shop:2"


def test_a_selector_label_that_only_the_canary_has_is_not_copied():
    copied = copy_template(template(labels={"track": "canary"}), template(), SELECTOR, ())
    assert copied["metadata"]["labels"] == {"app": "checkout"}


def test_stable_keeps_its_own_value_in_place_at_an_identity_path():
    path = "/spec/containers/app/env/VERSION"
    canary = template("shop:2", env=[{"name": "VERSION", "value": "canary"}, {"name": "URL", "value": "/$(VERSION)"}])
    stable = template("shop:1", env=[{"name": "VERSION", "value": "stable"}])
    copied = copy_template(canary, stable, SELECTOR, (path,))
    assert copied["spec"]["containers"][0]["env"] == [
        {"name": "VERSION", "value": "stable"},
        {"name": "URL", "value": "/$(VERSION)"},
    ]


def test_what_stable_does_not_have_at_an_identity_path_the_copy_has_not_either():
    path = "/spec/containers/app/env/VERSION"
    canary = template("shop:2", env=[{"name": "VERSION", "value": "canary"}])
    assert copy_template(canary, template(), SELECTOR, (path,))["spec"]["containers"][0]["env"] == []


def test_what_only_stable_has_at_an_identity_path_stays_with_it():
    stable = template(env=[{"name": "VERSION", "value": "stable"}])
    stable["metadata"]["annotations"] = {"seen": "yes"}
    canary = template("shop:2")
    del canary["spec"]["containers"][0]["env"]
    copied = copy_template(canary, stable, SELECTOR, ("/spec/containers/app/env/VERSION", "/metadata/annotations/seen"))
    assert copied["spec"]["containers"][0]["env"] == [{"name": "VERSION", "value": "stable"}]
    assert copied["metadata"]["annotations"] == {"seen": "yes"}


def test_copying_changes_neither_template():
    canary, stable = template("shop:2"), template("shop:1", labels={"track": "stable"})
    before = json.dumps([canary, stable])
    copy_template(canary, stable, SELECTOR, ("/spec/containers/0/image",))
    assert json.dumps([canary, stable]) == before


KEYS = st.sampled_from(["a", "b", "list", "env", "name"])
SCALARS = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["", "x", "VERSION", "OTHER"])
NAMED = st.fixed_dictionaries(
    {"name": st.sampled_from(["VERSION", "OTHER", "app"])},
    optional={"value": SCALARS, "env": st.lists(SCALARS, max_size=2)},
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner | NAMED, max_size=3),
    max_leaves=8,
)
SPECS = st.dictionaries(KEYS, VALUES, max_size=4)
LABELS = st.dictionaries(st.sampled_from(["app", "track", "team"]), st.sampled_from(["1", "2"]), max_size=3)
TEMPLATES = st.fixed_dictionaries(
    {"spec": SPECS},
    optional={"metadata": st.none() | st.fixed_dictionaries({}, optional={"labels": st.none() | LABELS})},
)
SEGMENTS = st.sampled_from(["a", "b", "list", "env", "0", "1", "VERSION", "OTHER", "app", "name"])
PATHS = st.lists(st.lists(SEGMENTS, min_size=1, max_size=3).map(lambda parts: "/spec/" + "/".join(parts)), max_size=3)


@pytest.mark.thorough
@settings(max_examples=400, deadline=None)
@given(canary=TEMPLATES, stable=TEMPLATES, paths=PATHS)
def test_the_copy_always_has_the_canarys_revision(canary, stable, paths):
    copied = copy_template(canary, stable, SELECTOR, paths)
    assert revision(copied, *paths) == revision(canary, *paths)


@pytest.mark.thorough
@settings(max_examples=200, deadline=None)
@given(canary=TEMPLATES, stable=TEMPLATES, paths=PATHS)
def test_copying_twice_is_copying_once(canary, stable, paths):
    once = copy_template(canary, stable, SELECTOR, paths)
    assert copy_template(canary, once, SELECTOR, paths) == once


@given(given_template=TEMPLATES)
def test_a_trip_through_json_keeps_the_revision(given_template):
    again = json.loads(json.dumps(given_template, sort_keys=True))
    assert revision(again) == revision(given_template)
