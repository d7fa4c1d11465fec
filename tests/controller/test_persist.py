"""Merge patches are exactly the difference; what this process remembers; who owns a Deployment."""

import pytest
from fake_api import FakeApi
from fake_api.rows import merged
from hypothesis import given
from hypothesis import strategies as st

from canary_rollout.controller.memory import Memory, Pods
from canary_rollout.controller.owners import Owners, urgent
from canary_rollout.controller.persist import FINALIZER, key_of, merge_diff, set_finalizer, write_status
from canary_rollout.kube.cache import Change
from canary_rollout.kube.port import CANARY_ROLLOUTS, DEPLOYMENTS, SERVICES, ConflictError
from canary_rollout.model.commands import PREFIX
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.status import CanaryRolloutStatus, Halt, RolloutState

# null has no place in a status: it is how a merge patch says "remove".
VALUES = st.recursive(
    st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["", "a", "b"])
    | st.builds(dict),  # a new one each: what is patched is changed
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@given(OBJECTS, OBJECTS)
def test_a_difference_applied_to_the_old_gives_the_new(old, new):
    assert merged(old, merge_diff(old, new)) == new


@given(OBJECTS)
def test_equal_objects_differ_in_nothing(same):
    assert merge_diff(same, same) == {}


@given(OBJECTS, OBJECTS)
def test_a_difference_leaves_out_what_is_the_same(old, new):
    patch = merge_diff(old, new)
    assert not [key for key in patch if key in old and key in new and old[key] == new[key]]


@pytest.fixture
def client():
    return FakeApi().client()


async def stored(client, **metadata):
    body = {"metadata": {"name": "checkout", **metadata}, "spec": {}}
    return await client.create(CANARY_ROLLOUTS, "shop", body)


async def test_a_status_is_written_once_and_returned(client):
    rollout = await stored(client)
    status = CanaryRolloutStatus(phase=Phase.PAUSED, message="why")
    written = await write_status(client, rollout, status, fenced=True)
    assert written["status"]["message"] == "why"
    assert await write_status(client, written, status, fenced=True) is written
    assert len(client.api.calls_of("operator", "patch")) == 1


async def test_a_fenced_status_is_refused_when_the_object_has_moved_and_a_latch_is_not(client):
    rollout = await stored(client)
    await client.merge_patch(CANARY_ROLLOUTS, "shop", "checkout", {"metadata": {"labels": {"a": "b"}}})
    status = CanaryRolloutStatus(message="why")
    with pytest.raises(ConflictError):
        await write_status(client, rollout, status, fenced=True)
    assert (await write_status(client, rollout, status, fenced=False))["status"]["message"] == "why"


async def test_our_finalizer_comes_and_goes_beside_others(client):
    rollout = await stored(client, finalizers=["example.com/theirs"])
    held = await set_finalizer(client, rollout, wanted=True)
    assert held["metadata"]["finalizers"] == ["example.com/theirs", FINALIZER]
    assert await set_finalizer(client, held, wanted=True) is held
    free = await set_finalizer(client, held, wanted=False)
    assert free["metadata"]["finalizers"] == ["example.com/theirs"]
    assert key_of(free) == ("shop", "checkout")


# Memory


def rollout(generation=1, version="1", *, spec=None, status=None):
    metadata = {"name": "checkout", "namespace": "shop", "generation": generation, "resourceVersion": version}
    return {"metadata": metadata, "spec": spec or {}, "status": status or {}}


def condemned(at, revision="aaaaaaaaaa"):
    halt = Halt(revision=revision, reason=Reason.RULE_FAILED, message="bad", at=at)
    return RolloutState(phase=Phase.ROLLING_BACK, revision=revision, halts=(halt,))


def persisted(state):
    return CanaryRolloutStatus(rollout=state).to_dict()


def test_a_latch_counts_until_the_status_is_seen_to_hold_it():
    memory = Memory()
    memory.read(rollout())
    memory.latched = condemned(at=1000.0004)
    memory.read(rollout(version="2"))
    assert memory.state is memory.latched
    memory.read(rollout(version="3", status=persisted(condemned(at=1000.0004))))
    assert memory.latched is None
    assert memory.state.halts[0].revision == "aaaaaaaaaa"


def test_an_older_halt_of_the_same_revision_is_not_the_latch():
    memory = Memory()
    memory.read(rollout())
    memory.latched = condemned(at=2000.0)
    memory.read(rollout(version="2", status=persisted(condemned(at=1000.0))))
    assert memory.latched is not None


def test_a_spec_that_does_not_validate_says_why_and_the_last_valid_one_stays(world_spec):
    memory = Memory()
    memory.read(rollout(spec={"stages": 7}))
    assert memory.spec is None
    assert "spec.workload" in memory.spec_error
    memory.read(rollout(generation=2, version="2", spec=world_spec))
    assert memory.spec is not None
    assert not memory.spec_error
    valid = memory.spec
    memory.read(rollout(generation=3, version="3", spec={}))
    assert memory.spec is valid
    assert memory.spec_error


def test_what_was_known_of_other_deployments_is_forgotten_with_the_spec(world_spec):
    memory = Memory(pods={"old": Pods("1"), "checkout": Pods("2")}, revisions={"old": ((), "x")})
    memory.read(rollout(spec=world_spec))
    assert set(memory.pods) == {"checkout"}
    assert not memory.revisions


def test_evidence_that_somebody_mangled_begins_afresh():
    memory = Memory()
    memory.read(rollout(status={"evidence": {"breaches": 3}}))
    assert memory.evidence is not None
    assert not memory.evidence.breaches


@pytest.fixture
def world_spec():
    from operator_world import ROLLOUT

    return ROLLOUT["spec"]


# Owners


def named(name, stable="checkout", canary="checkout-canary", created="2026-01-01T00:00:00Z", **metadata):
    workload = {"stable": {"deployment": stable}, "canary": {"deployment": canary}}
    metadata = {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": created, **metadata}
    return {"metadata": metadata, "spec": {"workload": workload}}


def change(after, before=None, resource=CANARY_ROLLOUTS):
    metadata = (after or before)["metadata"]
    return Change(resource, metadata["namespace"], metadata["name"], before, after)


def test_the_oldest_owns_a_deployment_and_the_next_one_when_it_goes():
    owners = Owners()
    young, old = named("young", created="2026-02-01T00:00:00Z"), named("old")
    owners.take(change(young))
    owners.take(change(old))
    assert owners.owner("shop", "checkout") == ("shop", "old")
    assert owners.keys("shop", "checkout") == {("shop", "old"), ("shop", "young")}
    assert owners.owner("other", "checkout") is None
    owners.take(change(None, old))
    assert owners.owner("shop", "checkout") == ("shop", "young")


def test_an_edit_moves_ownership():
    owners = Owners()
    owners.take(change(named("one")))
    owners.take(change(named("one", stable="shop-front"), named("one")))
    assert owners.owner("shop", "checkout") is None
    assert owners.owner("shop", "shop-front") == ("shop", "one")


@pytest.mark.parametrize(
    "spec", [None, [], {"workload": "x"}, {"workload": {"stable": 3, "canary": {"deployment": {}}}}]
)
def test_a_spec_of_any_shape_is_taken_without_an_error(spec):
    owners = Owners()
    owners.take(change({**named("odd"), "spec": spec}))
    assert owners.owner("shop", "checkout") is None


def deployment(available=2, generation=1):
    metadata = {"name": "checkout", "namespace": "shop", "generation": generation}
    return {"metadata": metadata, "status": {"availableReplicas": available}}


@pytest.mark.parametrize(
    ("before", "after", "resource", "expected"),
    [
        (deployment(2), deployment(1), DEPLOYMENTS, True),
        (deployment(1), deployment(2), DEPLOYMENTS, False),
        (deployment(), deployment(generation=2), DEPLOYMENTS, True),
        (deployment(), None, DEPLOYMENTS, True),
        (None, deployment(), DEPLOYMENTS, False),
        (named("a"), named("a", annotations={PREFIX + "pause": "{}"}), CANARY_ROLLOUTS, True),
        (named("a"), named("a", annotations={"other": "x"}), CANARY_ROLLOUTS, False),
        (named("a"), named("a", generation=2), CANARY_ROLLOUTS, True),
        (named("a"), named("a", deletionTimestamp="now"), CANARY_ROLLOUTS, True),
        (named("a"), None, CANARY_ROLLOUTS, False),
        (deployment(2), deployment(1), SERVICES, False),
    ],
)
def test_what_may_call_for_less_traffic_is_urgent(before, after, resource, expected):
    assert urgent(change(after, before, resource)) is expected


def test_the_smallest_objects_are_written_whole_so_that_a_late_patch_leaves_no_half_ones():
    old = {"rollout": {"phase": "Preparing", "lowering": {"reason": "NewRevision", "to": "0%", "at": "x"}, "clock": {}}}
    new = {"rollout": {"phase": "Preparing", "lowering": {"reason": "RuleFailed", "to": "0%", "at": "x"}, "clock": {}}}
    assert merge_diff(old, new) == {"rollout": {"lowering": {"reason": "RuleFailed", "to": "0%", "at": "x"}}}


def test_what_is_gone_from_a_small_object_is_taken_away():
    old = {"rollout": {"clock": {"heldMs": 5, "since": "x"}, "other": {}}}
    new = {"rollout": {"clock": {"heldMs": 7}, "other": {}}}
    assert merge_diff(old, new) == {"rollout": {"clock": {"since": None, "heldMs": 7}}}
