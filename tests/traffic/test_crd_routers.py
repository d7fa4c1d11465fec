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


PEOPLE = {"header": "X-Cohort", "values": ["internal", "friendly"], "prefixes": ["beta-"]}


async def with_people(cohort=PEOPLE, **traffic) -> There:
    there = await on("istio")
    there.traffic["istio"] |= {"cohortRules": True, "mirror": True}
    there.traffic |= traffic
    there.stages[0]["cohort"] = cohort
    return there


async def test_istio_adds_routes_for_people_before_their_own_where_it_may_and_takes_them_away():
    there = await with_people(pin={"header": "X-Canary"})
    cohort = there.spec().stages[0].cohort
    before = there.body()["spec"]
    assert there.router().problems() == []
    assert there.router().capabilities().cohorts
    await there.route(500, cohort=cohort)
    other, pinned, back, people, main = there.body()["spec"]["http"]
    assert [other["route"], main["route"][0]["weight"]] == [before["http"][0]["route"], 9500]
    names = [
        "canaryrollout-c7761e.main-pin-canary",
        "canaryrollout-c7761e.main-pin-stable",
        "canaryrollout-c7761e.main-cohort",
    ]
    assert [pinned["name"], back["name"], people["name"]] == names
    assert pinned["match"] == [{"headers": {"x-canary": {"exact": "always"}}}]
    assert people["match"] == [
        {"headers": {"x-cohort": {"exact": "internal"}}},
        {"headers": {"x-cohort": {"exact": "friendly"}}},
        {"headers": {"x-cohort": {"prefix": "beta-"}}},
    ]
    assert [one["destination"]["host"] for one in people["route"]] == ["checkout-canary.shop.svc.cluster.local"]
    view = there.router().observe()
    assert (view.weight, view.cohort, view.outdated, view.contested_by) == (500, cohort, False, "")
    assert not (await there.route(500, cohort=cohort)).changed
    await there.route(0)
    after = there.body()["spec"]
    after["http"][1]["route"][0]["weight"], after["http"][1]["route"][1]["weight"] = 100, 0
    assert after == before
    assert there.router().observe().cohort is None


async def test_istio_keeps_the_matches_of_the_route_that_people_come_from():
    there = await with_people({"cookie": "cohort", "values": ["internal"]})
    body = virtual_service(100, 0)
    body["spec"]["http"][1]["match"] = [{"uri": {"prefix": "/a"}}, {"headers": {"x-y": {"exact": "z"}}}]
    await there.apply(body)
    await there.route(500, cohort=there.spec().stages[0].cohort)
    [people] = [one for one in there.body()["spec"]["http"] if one.get("name") == "canaryrollout-c7761e.main-cohort"]
    cookie = {"regex": "^(?:.*; ?)?cohort=(?:internal)(?:;.*)?$"}
    assert people["match"] == [
        {"uri": {"prefix": "/a"}, "headers": {"cookie": cookie}},
        {"headers": {"x-y": {"exact": "z"}, "cookie": cookie}},
    ]


async def test_istio_gives_regions_weights_of_their_own():
    regions = {"header": "X-Region", "weights": [{"value": "eu-west-1", "weight": "50%"}]}
    there = await with_people({"regions": regions})
    await there.route(500, cohort=there.spec().stages[0].cohort)
    [region] = [one for one in there.body()["spec"]["http"] if "region" in one.get("name", "")]
    assert region["match"] == [{"headers": {"x-region": {"exact": "eu-west-1"}}}]
    assert [one["weight"] for one in region["route"]] == [5000, 5000]


async def test_istio_refuses_people_by_a_header_that_the_route_matches_on_already():
    there = await with_people()
    body = virtual_service(100, 0)
    body["spec"]["http"][1]["match"] = [{"headers": {"X-Cohort": {"exact": "z"}}}]
    await there.apply(body)
    assert "matches on header x-cohort already" in there.router().problems()[0]
    answer = await there.router().ensure(Route(500, "v2", "v1", cohort=there.spec().stages[0].cohort), fence=None)
    assert isinstance(answer, Rejected)


async def test_routes_for_people_that_somebody_edits_are_written_again():
    there = await with_people()
    cohort = there.spec().stages[0].cohort
    await there.route(500, cohort=cohort)
    body = there.body()
    body["spec"]["http"][1]["match"] = [{"headers": {"x-cohort": {"exact": "everybody"}}}]
    await there.apply({"spec": body["spec"]})
    view = there.router().observe()
    assert view.outdated
    assert view.cohort != cohort
    await there.route(500, cohort=cohort)
    view = there.router().observe()
    assert (view.cohort, view.outdated, view.contested_by) == (cohort, False, "")


async def test_istio_mirrors_to_the_canary_and_stops():
    there = await with_people()
    before = there.body()["spec"]
    await there.route(0, mirror=50)
    assert there.body()["spec"]["http"][1]["mirrors"] == [
        {"destination": {"host": "checkout-canary.shop.svc.cluster.local"}, "percentage": {"value": 0.5}}
    ]
    view = there.router().observe()
    assert (view.weight, view.mirror, view.outdated) == (0, 50, False)
    assert not (await there.route(0, mirror=50)).changed
    await there.route(0, mirror=10_000)
    assert there.router().observe().mirror == 10_000
    await there.route(0)
    assert there.router().observe().mirror == 0
    after = there.body()["spec"]
    after["http"][1]["route"][0]["weight"], after["http"][1]["route"][1]["weight"] = 100, 0
    assert after == before


async def test_a_mirror_of_the_users_own_is_left_alone():
    there = await with_people()
    body = virtual_service(100, 0)
    body["spec"]["http"][1]["mirror"] = {"host": "audit"}
    await there.apply(body)
    assert "has a mirror of its own" in there.router().problems()[0]
    assert isinstance(await there.router().ensure(Route(0, "v2", "v1", mirror=50), fence=None), Rejected)
    await there.route(0)
    assert there.body()["spec"]["http"][1]["mirror"] == {"host": "audit"}


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
