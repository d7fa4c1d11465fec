"""Gateway API beyond what every router must do: people with rules of their own, several canaries, copies, who reports what."""

import dataclasses
from copy import deepcopy

import pytest
import pytest_asyncio
from foreign_crds import install_crds
from route_adapters import CANARY, ROLLOUT, STABLE, http_service
from route_adapters.base import two_stages
from route_adapters.gateway_api import ADAPTERS, CREATED, backend, http_route, share
from route_bench import Bench, route, without_server_fields

from canary_rollout.kube.client import Client
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.route import Latch
from canary_rollout.traffic.gateway_api_accepted import pending
from canary_rollout.traffic.port import Rejected, Written

MEMBERS = {"header": "X-Cohort", "values": ["internal", "friendly"]}
REGIONS = {"header": "X-Region", "weights": [{"value": "eu-west-1", "weight": "10%"}]}
PEOPLE = {
    "values": MEMBERS,
    "prefixes and a pattern": {"header": "User-Agent", "prefixes": ["curl"], "pattern": "Mozilla*Firefox/*"},
    "a cookie": {"cookie": "cohort", "values": ["internal"], "prefixes": ["beta-"]},
    "regions": {"header": "X-Cohort", "values": ["internal"], "regions": REGIONS},
}
PIN = {"header": "X-Canary"}


@pytest_asyncio.fixture(loop_scope="session")
async def make(local_cluster, namespace):
    """Make a bench for one of the adapters, with further settings of gatewayAPI and of traffic."""
    await install_crds(local_cluster, "gateway-api")
    client = await Client.from_kubeconfig(str(local_cluster.kubeconfig))

    async def made(number: int, *, traffic=None, **settings) -> Bench:
        adapter = ADAPTERS[number]
        router = {"gatewayAPI": {**adapter.traffic["gatewayAPI"], **settings}, **(traffic or {})}
        bench = Bench(local_cluster, client, namespace, dataclasses.replace(adapter, traffic=router))
        await bench.set_up()
        return bench

    yield made
    await client.close()


def cohort(raw) -> Cohort:
    return Cohort.model_validate(raw)


@pytest.mark.e2e
@pytest.mark.parametrize("people", PEOPLE.values(), ids=PEOPLE.keys())
async def test_rules_for_people_come_with_the_weight_and_go_with_it(make, people):
    bench = await make(0, cohortRules=True, regularExpressions=True)
    bench.spec["stages"] = two_stages(**people)
    assert await bench.problems() == []
    before = await bench.live()
    await bench.write(500, cohort=cohort(people))
    view = await bench.seen()
    assert (view.weight, view.cohort, view.outdated) == (500, cohort(people), False)
    live = await bench.live()
    theirs, ours = live["spec"]["rules"][:3], live["spec"]["rules"][3:]
    assert bench.adapter.blank({"spec": {"rules": theirs}}) == bench.adapter.blank(
        {"spec": {"rules": before["spec"]["rules"]}}
    )
    assert ours
    for rule in ours:
        assert rule["name"].startswith("canaryrollout-")
        assert all(match["headers"] for match in rule["matches"])
    assert ours[0]["filters"] == theirs[1]["filters"], "a rule for people does what the rule it stands beside does"
    assert ours[0]["timeouts"] == theirs[1]["timeouts"]
    written = await bench.ensure(route(500, cohort=cohort(people)))
    assert written == Written(view.resource_version, changed=False)
    await bench.write(0)
    assert bench.adapter.blank(await bench.live()) == bench.adapter.blank(before)
    assert (await bench.seen()).cohort is None


@pytest.mark.e2e
@pytest.mark.parametrize("people", PEOPLE.values(), ids=PEOPLE.keys())
async def test_a_route_of_its_own_serves_people_and_pins(make, people):
    bench = await make(2, traffic={"pin": PIN}, regularExpressions=True)
    bench.spec["stages"] = two_stages(**people)
    assert await bench.problems() == []
    await bench.write(500, cohort=cohort(people))
    view = await bench.seen()
    assert (view.weight, view.cohort, view.outdated, view.contested_by) == (500, cohort(people), False, "")
    rules = (await bench.live())["spec"]["rules"]
    conditions = [match["headers"][0] for rule in rules for match in rule["matches"] if "headers" in match]
    assert {"type": "Exact", "name": "X-Canary", "value": "always"} in conditions
    assert {"type": "Exact", "name": "X-Canary", "value": "never"} in conditions
    first = rules[0]["backendRefs"]
    assert [(ref["name"], ref["weight"]) for ref in first] == [(CANARY, 1)], "the pin comes first"
    await bench.write(0)
    assert len((await bench.live())["spec"]["rules"]) == 1


@pytest.mark.e2e
async def test_a_rule_that_looks_at_the_cohorts_header_already_is_refused(make):
    bench = await make(0, cohortRules=True)
    manifest = http_route(0)
    manifest["spec"]["rules"][2]["matches"] = [{"headers": [{"name": "x-cohort", "value": "internal"}]}]
    await bench.apply(manifest)
    bench.spec["stages"] = two_stages(**MEMBERS)
    assert any("matches on header X-Cohort already" in text for text in await bench.problems())


@pytest.mark.e2e
async def test_somebodys_rules_for_people_are_not_taken_for_ours(make):
    bench = await make(0)
    manifest = http_route(0)
    mine = {"matches": [{"headers": [{"name": "X-Tester", "value": "yes"}]}], "backendRefs": [backend(CANARY, 1)]}
    manifest["spec"]["rules"].append(mine)
    await bench.apply(manifest)
    assert await bench.problems() == []
    await bench.write(500)
    await bench.write(0)
    assert (await bench.live())["spec"]["rules"][3]["backendRefs"][0]["weight"] == 1


@pytest.mark.e2e
async def test_one_rule_alone_may_be_changed(make):
    bench = await make(0, rule="pay")
    manifest = http_route(0)
    manifest["spec"]["rules"][1]["name"] = "pay"
    await bench.apply(manifest)
    await bench.write(500)
    rules = (await bench.live())["spec"]["rules"]
    assert [share({"spec": {"rules": [rule]}}) for rule in rules[1:]] == [500, 0]


@pytest.mark.e2e
async def test_several_canaries_share_a_route_and_stable_has_the_rest(make, local_cluster, namespace):
    first = await make(0)
    await local_cluster.admin.create(
        {**http_service("checkout-b", "checkout-b"), "metadata": {"name": "checkout-b", "namespace": namespace}}
    )
    manifest = http_route(0)
    for rule in manifest["spec"]["rules"][1:]:
        rule["backendRefs"] = [backend(STABLE, 10_000), backend(CANARY, 0), backend("checkout-b", 0)]
    await first.apply(manifest)
    second = Bench(local_cluster, first.client, namespace, first.adapter)
    second.name = "checkout-b"
    second.spec = deepcopy(first.spec)
    second.spec["workload"]["canary"] = {"service": "checkout-b", "deployment": "checkout-b"}

    def weights(live):
        return [{ref["name"]: ref["weight"] for ref in rule["backendRefs"]} for rule in live["spec"]["rules"][1:]]

    await first.write(500)
    await second.write(2500, revision="b")
    assert weights(await first.live()) == [{STABLE: 7000, CANARY: 500, "checkout-b": 2500}] * 2
    for bench, weight, revision in ((first, 500, "0123456789"), (second, 2500, "b")):
        view = await bench.seen()
        assert (view.weight, view.revision, view.contested_by, view.outdated) == (weight, revision, "", False)
        assert await bench.problems() == []
    refused = await first.ensure(route(8000), fence=(await first.seen()).resource_version)
    assert isinstance(refused, Rejected)
    assert "75% at most, not 80%" in refused.reason
    await second.write(0, revision="b")
    assert weights(await first.live()) == [{STABLE: 9500, CANARY: 500, "checkout-b": 0}] * 2
    assert (await first.seen()).weight == 500
    await second.write(0, revision="c")  # the same shares for another revision
    assert (await second.seen()).revision == "c"
    assert ((await first.seen()).weight, (await first.seen()).revision) == (500, "0123456789")


@pytest.mark.e2e
@pytest.mark.parametrize("number", [2, 3])
async def test_requests_are_copied_by_a_route_of_its_own(make, number):
    bench = await make(number)
    assert bench.router().capabilities().mirror
    for mirror, fraction in ((1000, {"numerator": 1000, "denominator": 10_000}), (10_000, None)):
        await bench.write(0, mirror=mirror)
        view = await bench.seen()
        assert (view.weight, view.mirror, view.outdated) == (0, mirror, False)
        (one,) = (await bench.live())["spec"]["rules"][-1]["filters"]
        assert one["requestMirror"].get("fraction") == fraction
        assert one["requestMirror"]["backendRef"]["name"] == CANARY
    await bench.write(50)
    assert (await bench.seen()).mirror == 0


@pytest.mark.e2e
async def test_the_app_and_the_client_are_told_where_the_implementation_can(make):
    create = {**CREATED["gatewayAPI"]["create"], "backendFilters": True}
    bench = await make(
        2, create=create, traffic={"requestHeaders": {"baggage": True}, "responseHeaders": {"version": "X-V"}}
    )
    await bench.write(500)
    assert not (await bench.seen()).outdated
    stable, canary = (await bench.live())["spec"]["rules"][-1]["backendRefs"]
    assert stable["filters"][1]["responseHeaderModifier"]["set"] == [{"name": "X-V", "value": "abcdef0123"}]
    assert canary["filters"][0]["requestHeaderModifier"] == {
        "set": [{"name": "X-Canary-Version", "value": "0123456789"}],
        "add": [{"name": "baggage", "value": "canary.version=0123456789"}],
    }


@pytest.mark.e2e
async def test_a_verdict_is_left_on_a_route_of_its_own_and_read_from_there(make):
    bench = await make(2)
    await bench.write(500)
    verdict = Latch("0123456789", "error-rate", "7.4% of 300 requests failed", 1_800_000_000.0)
    await bench.write(0, latch=verdict)
    assert (await bench.seen()).latch == verdict
    await bench.write(0, revision="9876543210")
    assert (await bench.seen()).latch is None


@pytest.mark.e2e
async def test_a_route_of_its_own_is_lowered_although_a_service_is_gone(make, local_cluster, namespace):
    bench = await make(2)
    await bench.write(500)
    await local_cluster.admin.delete("v1", "Service", CANARY, namespace=namespace)
    refused = await bench.ensure(route(2500), fence=(await bench.seen()).resource_version)
    assert isinstance(refused, Rejected)
    assert isinstance(await bench.ensure(route(0)), Written)
    assert share(await bench.live()) == 0


@pytest.mark.e2e
async def test_a_changed_spec_is_written_again_and_waits_for_the_gateway(make):
    bench = await make(2)
    await bench.write(500)
    await bench.report()
    assert (await bench.seen()).confirmed
    bench.spec["traffic"] = deepcopy(CREATED)
    bench.spec["traffic"]["gatewayAPI"]["create"]["hostnames"] = ["other.example"]
    view = await bench.seen()
    assert view.outdated
    assert not view.confirmed
    await bench.write(500)
    assert (await bench.live())["spec"]["hostnames"] == ["other.example"]


@pytest.mark.e2e
async def test_an_external_name_is_never_routed_to(make, local_cluster, namespace):
    bench = await make(0)
    patch = {
        "spec": {"type": "ExternalName", "externalName": "metadata.internal", "clusterIP": None, "clusterIPs": None}
    }
    await local_cluster.admin.patch("v1", "Service", CANARY, patch, namespace=namespace)
    assert any("is an ExternalName" in text for text in await bench.problems())


@pytest.mark.e2e
async def test_the_users_object_is_as_before_after_a_whole_rollout(make):
    bench = await make(0, cohortRules=True)
    bench.spec["stages"] = two_stages(**MEMBERS)
    before = without_server_fields(await bench.live())
    for weight in (50, 500, 2500, 10_000):
        await bench.write(weight, cohort=cohort(MEMBERS) if weight < 10_000 else None)
    await bench.write(0)
    after = without_server_fields(await bench.live())
    assert {**after, "spec": bench.adapter.blank(after)} == {**before, "spec": bench.adapter.blank(before)}


# Who reports what (pure)

PARENT = {"name": "front"}


def reported(*conditions, parents=(PARENT,), generation=3, spec_parents=(PARENT,)):
    found = [
        {"type": kind, "status": status, "observedGeneration": seen, "reason": "R", "message": "M"}
        for kind, status, seen in conditions
    ]
    return {
        "metadata": {"name": ROLLOUT, "namespace": "shop", "generation": generation},
        "spec": {"parentRefs": list(spec_parents)},
        "status": {"parents": [{"parentRef": one, "controllerName": "c", "conditions": found} for one in parents]},
    }


GOOD = (("Accepted", "True", 3), ("ResolvedRefs", "True", 3))


@pytest.mark.parametrize(
    ("route_object", "words"),
    [
        (reported(*GOOD), ""),
        (
            reported(
                *GOOD,
                parents=({**PARENT, "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop"},),
            ),
            "",
        ),
        (reported(*GOOD, ("PartiallyInvalid", "False", 3)), ""),
        (reported(*GOOD, ("PartiallyInvalid", "True", 2)), ""),
        (reported(*GOOD, ("PartiallyInvalid", "True", 3)), "PartiallyInvalid is True"),
        (reported(*GOOD, generation=4), "has not looked at generation 4"),
        (reported(("Accepted", "True", 3)), "has not said ResolvedRefs"),
        (reported(("Accepted", "True", 3), ("ResolvedRefs", "False", 3)), "says ResolvedRefs is False (R): M"),
        (reported(*GOOD, parents=()), "no controller has reported on Gateway front"),
        (reported(*GOOD, parents=({**PARENT, "sectionName": "https"},)), "no controller has reported"),
        (reported(*GOOD, spec_parents=(PARENT, {"name": "back"})), "no controller has reported on Gateway back"),
        (reported(*GOOD, spec_parents=()), "names no Gateway"),
    ],
)
def test_every_parent_must_have_taken_this_very_generation(route_object, words):
    found = pending(route_object)
    assert words in found
    assert bool(found) == bool(words)


def test_a_controller_that_says_no_generation_is_believed_only_after_the_time_that_was_set():
    silent = reported(*GOOD)
    for one in silent["status"]["parents"][0]["conditions"]:
        del one["observedGeneration"]
    assert "set traffic.gatewayAPI.settle" in pending(silent)
    assert "taken to have this one soon" in pending(silent, settled=False)
    assert pending(silent, settled=True) == ""
    assert "has not looked at generation 4" in pending(reported(*GOOD, generation=4), settled=True)
    assert "no controller has reported" in pending(reported(*GOOD, parents=()), settled=False)
    assert pending(reported(*GOOD, parents=()), settled=True) == ""
