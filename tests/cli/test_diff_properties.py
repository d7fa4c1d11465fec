"""What holds of every comparison of two answers, whatever is in them."""

import json
import random

from hypothesis import example, given
from hypothesis import strategies as st

from canary_rollout.cli.differ.compare import Answer, Rules, compare, general, histogram, relative_difference
from canary_rollout.cli.manifest import objects

NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.text("abc.[]*$ ", min_size=1, max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


def answer(value):
    return Answer(200, json.dumps(value).encode(), "application/json")


@given(VALUES)
def test_an_answer_is_the_same_as_itself_however_it_is_written(value):
    spaced = Answer(200, json.dumps(value, indent=3).encode(), "application/json")
    found = compare(answer(value), spaced, Rules(0.0))
    assert (found.differences, found.places) == ([], set())
    assert all(number == 0 for number in found.numbers)


@given(VALUES, VALUES)
def test_a_difference_is_found_from_either_side(one, other):
    there, back = (compare(answer(a), answer(b), Rules(0.0)) for a, b in ((one, other), (other, one)))
    assert bool(there.differences) == bool(back.differences)
    assert there.places == back.places


@given(VALUES, VALUES)
def test_places_that_are_left_out_as_noise_leave_nothing(one, other):
    noise = frozenset(compare(answer(one), answer(other), Rules(0.0)).places)
    assert compare(answer(one), answer(other), Rules(0.0), noise).differences == []


@given(st.lists(VALUES, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_a_list_does_not_matter_where_that_is_said(values, dice):
    turned = list(values)
    dice.shuffle(turned)
    rules = Rules(0.0, unordered=("$",))
    assert compare(answer(values), answer(turned), rules).differences == []


@given(NUMBERS, NUMBERS)
@example(0, 5e-324)
@example(-1.7e308, 1.7e308)
def test_relative_differences_are_between_nothing_and_two_and_the_same_from_either_side(one, other):
    found = relative_difference(one, other)
    assert 0 <= found <= 2
    assert found == relative_difference(other, one)
    assert sum(count for _, count in histogram([found])) == 1


@given(st.text(max_size=200))
def test_text_that_is_no_json_is_compared_as_bytes_and_never_raises(text):
    body = text.encode()
    found = compare(Answer(200, body), Answer(200, body + b" x"), Rules(0.0))
    assert all(difference.path.startswith(("$", "body")) for difference in found.differences)


def test_general_places_have_no_indexes():
    assert general("$.items[12].tags[3].name") == "$.items[*].tags[*].name"


@given(VALUES, st.lists(st.integers(0, 5) | KEYS, max_size=5))
def test_every_place_of_a_manifest_has_a_line_even_one_that_is_not_there(value, place):
    raw = json.dumps({"kind": "X", "spec": value}, indent=2)
    (manifest,) = objects("file", raw)
    assert 1 <= manifest.line(("spec", *place)) <= raw.count("\n") + 1


def test_a_sample_is_drawn_evenly():
    from canary_rollout.cli.differ.requests import Request, _sampled

    counts = [0] * 40
    dice = random.Random(1)
    for _ in range(500):
        requests = (Request("GET", f"/{number}") for number in range(40))
        for request in _sampled(requests, 10, frozenset({"GET"}), dice.randrange(10**9)).requests:
            counts[int(request.path[1:])] += 1
    assert min(counts) > 80
    assert max(counts) < 180
