"""Weights in a user's own object, on every data plane that has such lists: what is changed, what is left, who wrote last."""

import asyncio
import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxies import NAMESPACE, service
from weighted_objects import KINDS, USER, Kind, There

from canary_rollout.kube.port import SERVICES, ConflictError
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.route import Latch
from canary_rollout.traffic.port import Rejected, Route


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request) -> Kind:
    return request.param


@pytest.fixture
async def there(kind) -> There:
    return await There(kind).build()


def parts(there: There, weight: int) -> tuple[int, int]:
    """Both weights as the object has them for a share in basis points."""
    whole = 10_000 // there.kind.step
    return whole - weight // there.kind.step, weight // there.kind.step


def rest_of(there: There) -> object:
    """The object without weights and bookkeeping."""
    found = there.body()
    for field in ("managedFields", "resourceVersion", "generation"):
        found["metadata"].pop(field, None)
    text = copy.deepcopy(found)

    def without(value: object) -> object:
        if isinstance(value, dict):
            return {key: without(part) for key, part in value.items() if key != "weight"}
        return [without(part) for part in value] if isinstance(value, list) else value

    return without(text)


async def test_nothing_stands_in_the_way_of_an_object_that_names_both(there):
    assert there.router().problems() == []
    view = there.router().observe()
    assert (view.weight, view.revision, view.contested_by, view.carries_latch) == (0, "", USER, False)


async def test_a_weight_changes_weights_alone_and_is_read_back(there):
    before = rest_of(there)
    for weight in (100, 2500, 10_000, 0):
        version = there.body()["metadata"]["resourceVersion"]
        written = await there.route(weight, fence=version)
        assert written.changed
        assert there.weights == parts(there, weight)
        view = there.router().observe()
        assert (view.weight, view.revision, view.contested_by) == (weight, "v2", "")
        assert written.resource_version == view.resource_version
    assert rest_of(there) == before


async def test_half_a_per_cent_is_exact_where_it_can_be_had(there):
    answer = await there.router().ensure(Route(50, "v2", "v1"), fence=None)
    if there.kind.step == 1:
        assert there.weights == (9950, 50)
        assert there.router().observe().weight == 50
    else:
        assert isinstance(answer, Rejected)
        assert "0.5% is no whole per cent" in answer.reason
        assert answer.reason.endswith("choose 1%")
        assert there.weights == (100, 0)


async def test_repeating_a_route_asks_the_api_nothing(there):
    await there.route(2500)
    writes = there.writes()
    assert not (await there.route(2500)).changed
    assert there.writes() == writes


async def test_a_new_revision_is_recorded_although_the_share_stays(there):
    for weight in (0, 2500, 10_000):
        await there.route(weight, revision="v2")
        await there.route(weight, revision="v3")
        view = there.router().observe()
        assert (view.weight, view.revision, view.contested_by) == (weight, "v3", "")
        await there.route(weight, revision="v4")
        view = there.router().observe()
        assert (view.weight, view.revision) == (weight, "v4")


async def test_every_state_in_between_still_adds_up(there):
    """What a controller may see at any moment: never more for the canary than asked, never a list that is not whole."""
    seen = []
    there.api.store.listeners.append(lambda event: seen.append(there.kind.weights(event.after)))
    await there.route(2500)
    await there.route(2500, revision="v3")
    assert seen
    for stable, canary in seen:
        assert (canary or 0) / ((stable or 0) + (canary or 0)) <= 0.25
        if there.kind.step == 100:
            assert (stable or 0) + (canary or 0) == 100


async def test_a_raise_is_refused_when_the_object_moved_and_a_lowering_is_not(there):
    await there.route(100)
    version = there.body()["metadata"]["resourceVersion"]
    there.api.store.merge_patch(
        there.kind.resource, NAMESPACE, "shop", {"metadata": {"labels": {"team": "shop"}}}, manager="user"
    )
    with pytest.raises(ConflictError):
        await there.route(2500, fence=version)
    assert there.router().observe().weight == 100
    await there.route(0)
    assert there.weights == parts(there, 0)


async def test_a_lowering_is_made_again_from_what_is_there_when_the_list_moved_under_it(there, monkeypatch):
    await there.route(2500)
    router, stale = there.router(), there.body()
    moved = _turned_around(there)
    await there.apply(moved)
    monkeypatch.setattr(router, "_object", lambda: stale)
    await router.ensure(Route(0, "v2", "v1"), fence=None)
    assert there.router().observe().weight == 0


def _turned_around(there: There) -> dict:
    """The user's manifest with both backends in the other order, at 25 % for the canary."""
    built = there.kind.build(75, 25)

    def turned(value):
        if isinstance(value, list) and len(value) >= 2 and value[0].get("weight") == 75:
            return [value[1], value[0], *value[2:]]
        if isinstance(value, dict):
            return {key: turned(part) for key, part in value.items()}
        return [turned(part) for part in value] if isinstance(value, list) else value

    return turned(built)


async def test_somebody_who_writes_over_it_is_named_and_corrected(there):
    await there.route(2500)
    await there.apply(there.kind.build(50, 50), manager="argocd-controller")
    view = there.router().observe()
    assert (view.weight, view.contested_by, view.revision) == (5000, "argocd-controller", "")
    await there.route(2500)
    view = there.router().observe()
    assert (view.weight, view.contested_by, view.revision) == (2500, "", "v2")


async def test_somebody_who_writes_the_same_takes_nothing_from_us(there):
    await there.route(2500)
    await there.apply(there.kind.build(*there.weights), manager="argocd-controller")
    view = there.router().observe()
    assert (view.weight, view.contested_by, view.revision) == (2500, "", "v2")


async def test_a_manifest_without_weights_is_read_as_the_data_plane_reads_it(there):
    await there.apply(there.kind.build(None, None))
    shares = {"istio": 0, "virtualServer": 0}
    assert there.router().observe().weight == shares.get(there.kind.name, 5000)


async def test_a_weight_counts_when_the_data_plane_has_it(there):
    await there.route(2500)
    view = there.router().observe()
    if there.kind.name == "contour":
        assert not view.confirmed
        assert "has not taken the present generation" in view.pending
        there.report()
        view = there.router().observe()
        assert (view.confirmed, view.confirmed_at) == (True, 1_000_000.0)
    else:
        assert not view.confirmed
        assert "6 s" in view.pending
        there.clock.time += 6
        view = there.router().observe()
        assert (view.confirmed, view.confirmed_at) == (True, 1_000_006.0)


@pytest.mark.parametrize("kind", [one for one in KINDS if one.reports], ids=lambda kind: kind.name)
async def test_an_object_the_controller_refuses_is_not_confirmed(there):
    await there.route(2500)
    there.clock.time += 60
    bad = {
        "contour": {
            "currentStatus": "invalid",
            "conditions": [
                {
                    "type": "Valid",
                    "status": "False",
                    "observedGeneration": there.body()["metadata"]["generation"],
                    "errors": [{"reason": "ServiceUnresolvedReference", "message": "Service shop/checkout not found"}],
                }
            ],
        },
        "virtualServer": {"state": "Invalid", "message": "VirtualServer shop/shop was rejected"},
    }[there.kind.name]
    there.api.store.merge_patch(
        there.kind.resource, NAMESPACE, "shop", {"status": bad}, subresource="status", manager="controller"
    )
    view = there.router().observe()
    assert not view.confirmed
    assert "not found" in view.pending or "rejected" in view.pending


async def test_an_object_that_does_not_exist_is_told_and_lowering_it_is_done_already(there):
    there.api.store.delete(there.kind.resource, NAMESPACE, "shop")
    router = there.router()
    assert router.observe() is None
    assert f"{there.kind.resource.kind} shop/shop does not exist" in router.problems()[-1]
    assert isinstance(await router.ensure(Route(100, "v2", "v1"), fence="1"), Rejected)
    assert not (await there.route(0)).changed


async def test_an_object_that_names_one_version_alone_is_told_and_never_raised(there):
    text = _with_other_names(there.kind.build(100, 0), "checkout-canary", "somewhere-else")
    await there.apply(text)
    [said] = there.router().problems()
    assert "checkout-canary" in said
    assert "with weight 0" in said
    answer = await there.router().ensure(Route(2500, "v2", "v1"), fence=None)
    assert isinstance(answer, Rejected)
    assert "checkout-canary" in answer.reason


def _with_other_names(value, old, new):
    if isinstance(value, dict):
        return {key: _with_other_names(part, old, new) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_other_names(part, old, new) for part in value]
    return value.replace(old, new) if isinstance(value, str) else value


async def test_what_needs_more_than_weights_is_refused_with_advice(there):
    there.stages[0]["cohort"] = {"header": "X-Cohort", "values": ["internal"]}
    there.traffic |= {"pin": {"header": "X-Canary"}, "requestHeaders": {"baggage": True}}
    said = " ".join(there.router().problems())
    assert "stage half: its cohort needs a route of its own" in said
    assert "traffic.pin needs routes of its own" in said
    assert "baggage needs headers to be added" in said
    cohort = Cohort.model_validate({"header": "X-Cohort", "values": ["internal"]})
    assert isinstance(await there.router().ensure(Route(100, "v2", "v1", cohort=cohort), fence=None), Rejected)
    assert isinstance(await there.router().ensure(Route(0, "v2", "v1", mirror=100), fence=None), Rejected)


async def test_tenants_are_not_promised_to_be_kept_where_they_are_not(there):
    there.traffic["sticky"] = {"header": "X-Tenant-ID"}
    assert any("sticky" in text for text in there.router().problems())


async def test_services_that_point_elsewhere_are_refused(there):
    there.api.store.delete(SERVICES, NAMESPACE, "checkout-canary")
    assert "Service shop/checkout-canary does not exist" in there.router().problems()[0]
    outside = service("checkout-canary", "", 80)
    outside["spec"] = {"type": "ExternalName", "externalName": "169.254.169.254"}
    await there.put(SERVICES, outside)
    assert "ExternalName" in there.router().problems()[0]


async def test_a_verdict_leaves_no_trace_in_somebody_elses_object(there):
    await there.route(2500)
    await there.route(0, latch=Latch("v2", "error-rate", "too many", 1_000_000.0))
    assert "annotations" not in there.body()["metadata"]
    assert there.router().observe().latch is None
    await there.router().release()
    assert there.weights == parts(there, 0)


async def test_two_canaries_share_a_list_and_each_keeps_its_own_share(there):
    def with_third(value):
        if isinstance(value, dict):
            return {key: with_third(part) for key, part in value.items()}
        if isinstance(value, list):
            lists = [with_third(part) for part in value]
            if len(lists) >= 2 and "weight" in lists[0] and lists[1].get("weight") == 0:
                third = _with_other_names(lists[1], "checkout-canary", "checkout-blue")
                return [*lists[:2], _with_other_names(third, "next", "blue"), *lists[2:]]
            return lists
        return value

    body = with_third(there.kind.build(10_000 // there.kind.step, 0))
    if "upstreams" in body["spec"]:
        body["spec"]["upstreams"].append({"name": "blue", "service": "checkout-blue", "port": 80})
    await there.apply(body)
    await there.put(SERVICES, service("checkout-blue", "10.96.0.9", 80))
    blue = There(there.kind, clock=there.clock, name="blue", canary="checkout-blue")
    blue.api = there.api
    await there.route(1000)
    await blue.route(2000, revision="b1")
    assert there.router().observe().weight == 1000
    assert blue.router().observe().weight == 2000
    await there.route(3000)
    assert (there.router().observe().weight, there.router().observe().revision) == (3000, "v2")
    assert (blue.router().observe().weight, blue.router().observe().revision) == (2000, "b1")
    answer = await there.router().ensure(Route(9000, "v2", "v1"), fence=None)
    assert isinstance(answer, Rejected)
    assert "80% at most" in answer.reason
    await blue.route(0, revision="b1")
    assert (there.router().observe().weight, blue.router().observe().weight) == (3000, 0)


@settings(deadline=None)
@given(
    at=st.sampled_from(KINDS),
    before=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    steps=st.lists(st.tuples(st.integers(0, 100), st.sampled_from(["v2", "v3"])), min_size=1, max_size=4),
)
def test_from_whatever_was_there_the_share_is_what_was_asked_for_and_repeating_it_writes_nothing(at, before, steps):
    async def play():
        # The F5 controller refuses, and so do we, to raise what does not add up to 100.
        built = (100 - before[1] % 101, before[1] % 101) if at.step == 100 else before
        there = await There(at).build(*built)
        for per_cent, revision in steps:
            await there.route(per_cent * 100, revision=revision)
            view = there.router().observe()
            assert (view.weight, view.revision, view.contested_by) == (per_cent * 100, revision, "")
            assert not (await there.route(per_cent * 100, revision=revision)).changed

    asyncio.run(play())
