"""What is particular to Istio, Traefik, Contour and F5: names, lists, and the traps of each."""

import pytest
from weighted_objects import KINDS, There, virtual_server, virtual_service

from canary_rollout.traffic.port import Rejected, Route

BY_NAME = {kind.name: kind for kind in KINDS}


async def on(name: str, stable: int = 100, canary: int = 0) -> There:
    return await There(BY_NAME[name]).build(stable, canary)


async def refusal(there: There, weight: int) -> str:
    answer = await there.router().ensure(Route(weight, "v2", "v1"), fence=None)
    assert isinstance(answer, Rejected), answer
    return answer.reason


# Istio


@pytest.mark.parametrize(
    "host", ["checkout-canary", "checkout-canary.shop", "checkout-canary.shop.svc", "checkout-canary.shop.svc.a.b"]
)
async def test_istio_knows_a_service_by_every_name_that_istio_knows_it_by(host):
    there = await on("istio")
    body = virtual_service(100, 0)
    body["spec"]["http"][1]["route"][1]["destination"]["host"] = host
    await there.apply(body)
    assert there.router().problems() == []
    await there.route(50)
    assert there.weights == (9950, 50)


@pytest.mark.parametrize(
    "host", ["checkout-canary.other", "checkout-canary.example.com", "checkout-canary.other.svc.cluster.local"]
)
async def test_istio_does_not_take_a_host_elsewhere_for_a_service_of_this_namespace(host):
    there = await on("istio")
    body = virtual_service(100, 0)
    body["spec"]["http"][1]["route"][1]["destination"]["host"] = host
    await there.apply(body)
    assert "names both checkout and checkout-canary" in there.router().problems()[0]


async def test_istio_splits_two_subsets_of_one_host():
    there = await on("istio")
    there.traffic["istio"]["subsets"] = {"host": "checkout", "stable": "v1", "canary": "v2"}
    body = virtual_service(100, 0)
    body["spec"]["http"][1]["route"] = [
        {"destination": {"host": "checkout", "subset": "v1"}, "weight": 100},
        {"destination": {"host": "checkout", "subset": "v2"}, "weight": 0},
    ]
    await there.apply(body)
    assert there.router().problems() == []
    await there.route(50)
    assert there.weights == (9950, 50)
    there.traffic["istio"]["subsets"]["canary"] = "v3"
    assert "subset v3 of checkout" in there.router().problems()[0]


async def test_istio_leaves_a_subset_alone_when_the_versions_are_services():
    there = await on("istio")
    body = virtual_service(100, 0)
    body["spec"]["http"][1]["route"][1]["destination"]["subset"] = "blue"
    await there.apply(body)
    assert "names both" in there.router().problems()[0]


async def test_istio_changes_every_route_that_names_both_or_the_one_that_is_named():
    there = await on("istio")
    body = virtual_service(100, 0)
    body["spec"]["http"].append({**body["spec"]["http"][1], "name": "second"})
    await there.apply(body)
    await there.route(500)
    assert [[one.get("weight") for one in http["route"]] for http in there.body()["spec"]["http"]] == [
        [None],
        [9500, 500],
        [9500, 500],
    ]
    there.traffic["istio"]["route"] = "second"
    await there.route(2500)
    assert there.weights == (9500, 500)
    there.traffic["istio"]["route"] = "third"
    assert "http route named third" in there.router().problems()[0]


async def test_routes_that_say_different_shares_are_written_again_and_count_as_the_larger():
    there = await on("istio")
    await there.route(500)
    body = virtual_service(9500, 500)
    body["spec"]["http"].append({**virtual_service(5000, 5000)["spec"]["http"][1], "name": "second"})
    await there.apply(body)
    view = there.router().observe()
    assert (view.weight, view.outdated, view.confirmed) == (5000, True, False)


# Traefik


def cookie(there: There, name: str | None) -> dict:
    body = there.kind.build(100, 0)
    body["spec"]["weighted"]["sticky"] = {"cookie": {"name": name} if name else {}}
    return body


async def test_traefik_keeps_tenants_by_the_cookie_that_both_objects_name():
    there = await on("traefikService")
    await there.apply(cookie(there, "shop"))
    assert "set traffic.sticky.cookie to shop" in there.router().problems()[0]
    there.traffic["sticky"] = {"cookie": "shop"}
    assert there.router().problems() == []
    assert there.router().capabilities().sticky
    there.traffic["sticky"] = {"cookie": "other"}
    assert "has shop in spec.weighted.sticky.cookie.name" in there.router().problems()[0]
    await there.route(50)
    assert there.body()["spec"]["weighted"]["sticky"] == {"cookie": {"name": "shop"}}


@pytest.mark.parametrize(
    ("sticky", "said"),
    [
        ({"header": "X-Tenant-ID"}, "cannot keep tenants by a header"),
        ({"cookie": "shop", "allow": ["acme"]}, "no lists of tenants"),
        ({"cookie": "shop", "fallback": "clientIP"}, "set traffic.sticky.fallback to request"),
        ({"clientIP": True}, "spec.highestRandomWeight in place of spec.weighted"),
    ],
)
async def test_traefik_refuses_the_stickiness_it_does_not_have(sticky, said):
    there = await on("traefikService")
    await there.apply(cookie(there, "shop"))
    there.traffic["sticky"] = sticky
    assert any(said in text for text in there.router().problems())


async def test_traefik_by_address_must_be_said_in_the_rollout_as_well():
    there = await on("highestRandomWeight")
    del there.traffic["sticky"]
    assert "set traffic.sticky.clientIP to true" in there.router().problems()[0]


async def test_an_ingress_route_keeps_nobody():
    there = await on("ingressRoute")
    there.traffic["sticky"] = {"cookie": "shop"}
    assert "not by an IngressRoute" in there.router().problems()[0]
    assert not there.router().capabilities().sticky


async def test_traefik_does_not_take_a_service_of_another_namespace_or_kind_for_ours():
    there = await on("traefikService")
    for more in ({"namespace": "other"}, {"kind": "TraefikService"}):
        body = there.kind.build(100, 0)
        body["spec"]["weighted"]["services"][1] |= more
        await there.apply(body)
        assert "names both checkout and checkout-canary" in there.router().problems()[0]


# Contour


async def test_contour_does_not_count_a_mirror_and_leaves_its_percentage_alone():
    there = await on("contour")
    body = there.kind.build(100, 0)
    body["spec"]["routes"][1]["services"].append({"name": "checkout-canary", "port": 80, "mirror": True, "weight": 30})
    await there.apply(body)
    assert there.router().problems() == []
    await there.route(50)
    services = there.body()["spec"]["routes"][1]["services"]
    assert [one["weight"] for one in services] == [9950, 50, 50, 30]
    assert there.router().observe().weight == 50


async def test_a_service_that_is_named_twice_in_one_list_is_refused():
    there = await on("contour")
    body = there.kind.build(100, 0)
    body["spec"]["routes"][1]["services"].append({"name": "checkout", "port": 81, "weight": 1})
    await there.apply(body)
    assert "names checkout twice" in there.router().problems()[0]
    assert "names checkout twice" in await refusal(there, 100)


# F5


async def test_f5_stages_that_are_no_whole_per_cent_are_refused_with_the_nearest():
    there = await on("virtualServer")
    there.stages = [
        {"name": "first", "weight": "0.5%", "hold": "1m"},
        {"name": "second", "weight": "2.25%", "hold": "1m"},
        {"name": "all", "weight": "100%", "hold": "1m"},
    ]
    first, second = there.router().problems()
    assert first.startswith("stage first: 0.5% is no whole per cent")
    assert first.endswith("choose 1%")
    assert second.endswith("choose 2% or 3%")
    assert there.router().capabilities().step == 100


async def test_f5_takes_over_a_list_with_the_right_share_by_one_per_cent_less_and_back():
    there = await on("virtualServer")
    await there.route(2500)
    seen = []
    there.api.store.listeners.append(lambda event: seen.append(there.kind.weights(event.after)))
    await there.route(2500, revision="v3")
    assert seen == [(76, 24), (75, 25)]
    assert there.router().observe().revision == "v3"


async def test_f5_splits_inside_matches_and_one_path_are_found():
    there = await on("virtualServer")
    body = virtual_server(100, 0)
    root = body["spec"]["routes"][1]
    root["matches"] = [{"conditions": [{"header": "X-A", "value": "b"}], "splits": root["splits"]}]
    body["spec"]["routes"].append({"path": "/api", "splits": root["splits"]})
    await there.apply(body)
    await there.route(500)
    root, api = there.body()["spec"]["routes"][1:]
    shares = [
        [one["weight"] for one in splits] for splits in (root["splits"], root["matches"][0]["splits"], api["splits"])
    ]
    assert shares == [[95, 5]] * 3
    there.traffic["virtualServer"]["path"] = "/api"
    await there.route(2500)
    root, api = there.body()["spec"]["routes"][1:]
    assert [one["weight"] for one in api["splits"]] == [75, 25]
    assert [one["weight"] for one in root["splits"]] == [95, 5]


async def test_f5_weights_that_do_not_add_up_are_told_and_only_ever_lowered():
    there = await on("virtualServer", 60, 30)
    assert "must add up to 100, found 60 and 30" in there.router().problems()[0]
    assert "must add up to 100" in await refusal(there, 5000)
    await there.route(0)
    assert there.weights == (100, 0)
    assert there.router().problems() == []
