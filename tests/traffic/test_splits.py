"""Weights in somebody's list: the share is exact, everybody else's stays, weight 0 is never refused."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from canary_rollout.traffic.foreign import Writer, last_writer
from canary_rollout.traffic.port import RouterError
from canary_rollout.traffic.splits import Split, changes, share_of

BASIS_POINTS = st.integers(0, 10_000)


def split(*weights: int) -> Split:
    names = ("checkout", "checkout-canary", *(f"other{number}" for number in range(len(weights) - 2)))
    return Split("/spec/rules/0/backendRefs", 0, 1, tuple(weights), names, "rule 0")


def patched(before: Split, operations) -> Split:
    weights = list(before.weights)
    for operation in operations:
        index = int(operation["path"].split("/")[5])
        if operation["op"] == "test":
            assert before.names[index] == operation["value"]
        else:
            weights[index] = operation["value"]
    return split(*weights)


@given(stable=st.integers(0, 1_000_000), canary=st.integers(0, 1_000_000), weight=BASIS_POINTS, trace=st.booleans())
def test_two_backends_get_exactly_the_share_and_a_trace_where_one_is_wanted(stable, canary, weight, trace):
    before = split(stable, canary)
    operations = changes([before], weight, trace=trace)
    after = patched(before, operations)
    assert after.gives(weight)
    assert after.share == weight
    assert max(after.weights) <= 1_000_000
    if trace:
        assert after.weights != before.weights
    elif before.gives(weight):
        assert operations == []


@st.composite
def shared(draw) -> Split:
    """Stable, our canary and others, out of 10,000."""
    canary = draw(st.integers(0, 5_000))
    others = draw(st.lists(st.integers(0, 1_500), min_size=1, max_size=3))
    return split(10_000 - canary - sum(others), canary, *others)


@given(before=shared(), weight=BASIS_POINTS, trace=st.booleans())
def test_others_keep_their_share_and_what_does_not_fit_is_refused(before, weight, trace):
    if weight + before.others > 10_000:
        with pytest.raises(RouterError, match="at most"):
            changes([before], weight, trace=trace)
        return
    after = patched(before, changes([before], weight, trace=trace))
    assert after.weights[2:] == before.weights[2:]
    assert before.others == 0 or abs(sum(after.weights) - 10_000) <= 1  # alone, a trace may be a list twice as heavy
    assert after.share == weight
    assert after.problem() == ""
    if trace:
        assert after.weights != before.weights


@given(weights=st.lists(st.integers(0, 1_000_000), min_size=2, max_size=5), trace=st.booleans())
@example(weights=[0, 0, 10_001], trace=True)
def test_weight_nothing_is_never_refused_and_never_gives_anybody_else_a_weight(weights, trace):
    before = split(*weights)
    assume(sum(weights) > 0)
    after = patched(before, changes([before], 0, trace=trace))
    assert after.weights[1] == 0
    assert after.weights[2:] == before.weights[2:]
    if before.others:
        assert abs(sum(after.weights) - sum(before.weights)) <= 1
    if trace:
        assert after.weights != before.weights


@given(before=shared(), times=st.integers(1, 6))
def test_traces_at_weight_nothing_do_not_add_up(before, times):
    assume(before.others > 0)
    now = patched(before, changes([before], 0, trace=False))
    for _ in range(times):
        now = patched(now, changes([now], 0, trace=True))
        assert abs(sum(now.weights) - 10_000) <= 1


@given(before=shared(), weight=st.integers(1, 5_000))
def test_our_part_goes_back_to_stable(before, weight):
    assume(weight + before.others <= 10_000)
    raised = patched(before, changes([before], weight, trace=False))
    lowered = patched(raised, changes([raised], 0, trace=False))
    assert lowered.weights == (10_000 - before.others, 0, *before.weights[2:])


@given(canary=st.integers(1, 3), stable=st.integers(100_000, 1_000_000))
def test_the_smallest_share_is_not_taken_for_none(canary, stable):
    assert share_of([split(stable, canary)]) >= 1


@given(
    known=st.dictionaries(
        st.from_regex(r"[a-z]{3,8}", fullmatch=True), st.from_regex(r"[0-9a-f]{10}", fullmatch=True), max_size=4
    ),
    revision=st.from_regex(r"[0-9a-f]{10}", fullmatch=True),
)
def test_what_a_field_managers_name_says_is_read_back_and_others_are_kept(known, revision):
    name = "canary-rollout/"
    for rollout, its in known.items():
        name = Writer(ours=True, name="", revisions=_read(name).revisions).manager(rollout, its)
    name = _read(name).manager("checkout", revision)
    assert _read(name).revision("checkout") == revision
    assert all(_read(name).revision(rollout) == its for rollout, its in known.items() if rollout != "checkout")


def _read(manager: str) -> Writer:
    entry = {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:rules": {}}}}
    return last_writer({"metadata": {"managedFields": [entry]}}, "spec", "rules")


def test_too_many_rollouts_on_one_route_are_refused():
    full = _read("canary-rollout/" + ",".join(f"{number:06x}=0123456789" for number in range(6)))
    with pytest.raises(RouterError, match="more than can be told apart"):
        full.manager("checkout", "0123456789")
