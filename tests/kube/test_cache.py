"""The cache keeps the newest of what watches, lists and own writes tell it, in any order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary_rollout.kube.cache import SERVICE_NAME_LABEL, Cache
from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NAMESPACES,
    ROLLOUT_LABEL,
)


def obj(name="a", version=1, namespace="shop", **labels):
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": str(version), "labels": labels}}


def names(cache, resource=DEPLOYMENTS, namespace="shop", **labels):
    return [found["metadata"]["name"] for found in cache.select(resource, namespace, labels)]


@pytest.fixture
def cache():
    return Cache()


@pytest.fixture
def told(cache):
    changes = []
    cache.listen(lambda change: changes.append((change.name, change.before is not None, change.after is not None)))
    return changes


def test_an_older_version_never_overwrites_a_newer_one(cache):
    assert cache.record(DEPLOYMENTS, obj(version=5))
    assert not cache.record(DEPLOYMENTS, obj(version=4))
    assert not cache.record(DEPLOYMENTS, obj(version=5))
    assert cache.get(DEPLOYMENTS, "shop", "a")["metadata"]["resourceVersion"] == "5"
    assert cache.record(DEPLOYMENTS, obj(version=10))


def test_the_answer_of_an_own_write_wakes_nobody_and_neither_does_its_echo(cache, told):
    cache.record(DEPLOYMENTS, obj(version=5))
    cache.record(DEPLOYMENTS, obj(version=5), quiet=False)
    assert told == []
    cache.record(DEPLOYMENTS, obj(version=6), quiet=False)
    assert told == [("a", True, True)]


def test_an_unknown_object_is_none(cache):
    assert cache.get(DEPLOYMENTS, "shop", "a") is None
    assert names(cache) == []
    assert list(cache.all(DEPLOYMENTS)) == []
    assert cache.count(DEPLOYMENTS) == 0


def test_a_list_sweeps_out_what_it_no_longer_holds(cache, told):
    cache.record(DEPLOYMENTS, obj("a", 1))
    cache.record(DEPLOYMENTS, obj("b", 2))
    cache.record(DEPLOYMENTS, obj("elsewhere", 3, namespace="other"))
    sweep = cache.replace(DEPLOYMENTS, "shop", [obj("b", 2), obj("c", 4)], "9")
    assert (sweep.changed, sweep.vanished) == ((("shop", "c"),), (("shop", "a"),))
    assert told == [("c", False, True), ("a", True, False)]
    assert cache.get(DEPLOYMENTS, "other", "elsewhere")
    assert cache.replace(DEPLOYMENTS, None, [], "9").vanished == (
        ("shop", "b"),
        ("shop", "c"),
        ("other", "elsewhere"),
    )


def test_what_appeared_after_the_list_was_taken_stays(cache):
    cache.record(DEPLOYMENTS, obj("new", 12))
    assert cache.replace(DEPLOYMENTS, None, [], "10").vanished == ()
    assert names(cache) == ["new"]


def test_what_was_deleted_after_the_list_was_taken_does_not_come_back(cache):
    cache.record(DEPLOYMENTS, obj("a", 5))
    assert cache.remove(DEPLOYMENTS, "shop", "a", resource_version="12")
    cache.replace(DEPLOYMENTS, None, [obj("a", 5)], "10")
    cache.record(DEPLOYMENTS, obj("a", 7))
    assert names(cache) == []
    assert cache.record(DEPLOYMENTS, obj("a", 13))
    assert names(cache) == ["a"]


def test_an_object_created_again_survives_the_late_news_of_its_first_death(cache):
    cache.record(DEPLOYMENTS, obj("a", 13))
    assert not cache.remove(DEPLOYMENTS, "shop", "a", resource_version="12")
    assert names(cache) == ["a"]


def test_a_live_read_that_found_nothing_removes_without_a_version(cache, told):
    cache.record(DEPLOYMENTS, obj("a", 13))
    assert cache.remove(DEPLOYMENTS, "shop", "a", quiet=True)
    assert not cache.remove(DEPLOYMENTS, "shop", "a")
    assert told == []
    assert not cache.record(DEPLOYMENTS, obj("a", 13))


def test_objects_are_selected_by_labels_with_and_without_an_index(cache):
    cache.record(ENDPOINT_SLICES, obj("one", 1, **{SERVICE_NAME_LABEL: "web", "zone": "a"}))
    cache.record(ENDPOINT_SLICES, obj("two", 2, **{SERVICE_NAME_LABEL: "web", "zone": "b"}))
    cache.record(ENDPOINT_SLICES, obj("far", 3, namespace="other", **{SERVICE_NAME_LABEL: "web"}))
    assert names(cache, ENDPOINT_SLICES, **{SERVICE_NAME_LABEL: "web"}) == ["one", "two"]
    assert names(cache, ENDPOINT_SLICES, **{SERVICE_NAME_LABEL: "web", "zone": "b"}) == ["two"]
    assert names(cache, ENDPOINT_SLICES, zone="a") == ["one"]
    cache.record(ENDPOINT_SLICES, obj("one", 4, **{SERVICE_NAME_LABEL: "api"}))
    assert names(cache, ENDPOINT_SLICES, **{SERVICE_NAME_LABEL: "web"}) == ["two"]
    cache.remove(ENDPOINT_SLICES, "shop", "two")
    assert names(cache, ENDPOINT_SLICES, **{SERVICE_NAME_LABEL: "web"}) == []
    assert [found["metadata"]["name"] for found in cache.all(ENDPOINT_SLICES, "other")] == ["far"]


def test_a_kind_is_primed_where_it_was_listed(cache):
    assert not cache.primed(DEPLOYMENTS, "shop")
    cache.replace(DEPLOYMENTS, "shop", [], "1")
    assert cache.primed(DEPLOYMENTS, "shop")
    assert not cache.primed(DEPLOYMENTS, "other")
    assert not cache.primed(DEPLOYMENTS)
    cache.replace(DEPLOYMENTS, None, [], "2")
    assert cache.primed(DEPLOYMENTS, "other")
    cache.forget(DEPLOYMENTS)
    assert not cache.primed(DEPLOYMENTS)


def test_what_nobody_reads_is_not_kept():
    cache = Cache()
    for resource in (DEPLOYMENTS, CONFIG_MAPS):
        big = obj()
        big["metadata"]["managedFields"] = [{"manager": "x"}]
        big["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"}
        cache.record(resource, big)
    assert "managedFields" not in cache.get(DEPLOYMENTS, "shop", "a")["metadata"]
    assert cache.get(DEPLOYMENTS, "shop", "a")["metadata"]["annotations"] == {"mine": "1"}
    assert cache.get(CONFIG_MAPS, "shop", "a")["metadata"]["managedFields"]


def test_cluster_scoped_objects_have_no_namespace(cache):
    cache.record(NAMESPACES, {"metadata": {"name": "shop", "resourceVersion": "1"}})
    assert cache.get(NAMESPACES, None, "shop")


def test_versions_that_are_no_numbers_are_taken_as_they_come(cache):
    assert cache.record(CANARY_ROLLOUTS, obj(version="abc"))
    assert not cache.record(CANARY_ROLLOUTS, obj(version="abc"))
    assert cache.record(CANARY_ROLLOUTS, obj(version="abb"))
    assert cache.replace(CANARY_ROLLOUTS, None, [], "x").vanished


# Any interleaving of what really happened: the server's history, seen through lists, watches and echoes in any order.
_NAMES = ("a", "b")


@settings(max_examples=300)
@given(
    writes=st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from(["set", "delete"])), min_size=1, max_size=12),
    data=st.data(),
)
def test_after_all_news_in_any_order_the_cache_equals_the_server(writes, data):
    live: dict[str, int] = {}
    news = []
    for version, (name, action) in enumerate(writes, start=1):
        if action == "set":
            live[name] = version
            news.append(("event", version, name))
        elif name in live:
            del live[name]
            news.append(("deleted", version, name))
        news.append(("list", version, dict(live)))
    cache = Cache()
    for kind, version, what in data.draw(st.permutations(news)):
        match kind:
            case "event":
                cache.record(DEPLOYMENTS, obj(what, version, **{ROLLOUT_LABEL: what}), quiet=False)
            case "deleted":
                cache.remove(DEPLOYMENTS, "shop", what, resource_version=str(version))
            case "list":
                items = [obj(name, at, **{ROLLOUT_LABEL: name}) for name, at in what.items()]
                cache.replace(DEPLOYMENTS, None, items, str(version))
    # A last list is what cures what no order can: an old event that came after its object's tombstone was dropped.
    cache.replace(
        DEPLOYMENTS, None, [obj(name, at, **{ROLLOUT_LABEL: name}) for name, at in live.items()], str(len(writes))
    )
    found = {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in cache.all(DEPLOYMENTS)}
    assert found == live
    for name in _NAMES:
        assert names(cache, **{ROLLOUT_LABEL: name}) == ([name] if name in live else [])
