"""One route of the user's, shared by several CanaryRollouts that each add rules for people: nobody touches another's."""

import copy

import pytest
from proxies import NAMESPACE, service
from weighted_objects import KINDS, Kind, There

from canary_rollout.kube.port import HTTP_ROUTES, SERVICES

STAGES = [
    {"name": "few", "weight": "5%", "hold": "1m", "cohort": {"header": "X-Cohort", "values": ["internal"]}},
    {"name": "all", "weight": "100%", "hold": "1m"},
]


def http_route(*pairs):
    """One rule for each pair of Services, stable first."""
    rules = []
    for number, names in enumerate(pairs):
        backends = [{"name": name, "port": 80, "weight": 0} for name in names]
        backends[0]["weight"] = 10_000
        rules.append({"matches": [{"path": {"type": "PathPrefix", "value": f"/{number}"}}], "backendRefs": backends})
    return {"spec": {"parentRefs": [{"name": "front"}], "rules": rules}}


def virtual_service(*pairs):
    https = []
    for number, names in enumerate(pairs):
        entries = [{"destination": {"host": name}, "weight": 0} for name in names]
        entries[0]["weight"] = 10_000
        https.append({"match": [{"uri": {"prefix": f"/{number}"}}], "route": entries})
    return {"spec": {"hosts": ["shop.example"], "http": https}}


ROUTES = Kind(
    "gatewayAPI",
    HTTP_ROUTES,
    {"gatewayAPI": {"httpRoute": "shop", "cohortRules": True, "settle": "10s"}},
    lambda *_: http_route(),
    lambda _: (None, None),
)
ISTIO = next(kind for kind in KINDS if kind.name == "istio")
BUILD = {"gatewayAPI": (ROUTES, http_route, "rules"), "istio": (ISTIO, virtual_service, "http")}
TWO_APPS = (("checkout", "checkout-canary"), ("cart", "cart-canary"))
TWO_CANARIES = (("checkout", "checkout-canary", "checkout-b"),)


class Shared:
    """Two CanaryRollouts on one object."""

    def __init__(self, kind, services):
        made, build, self.rules_at = BUILD[kind]
        self.services = services
        self.first = self._on(made, "checkout", "checkout", "checkout-canary")
        second = ("cart", "cart-canary") if services is TWO_APPS else ("checkout", "checkout-b")
        self.second = self._on(made, "second", *second)
        self.second.api = self.first.api
        self.manifest = build(*services)

    @staticmethod
    def _on(kind, name, stable, canary):
        there = There(kind, stages=copy.deepcopy(STAGES), name=name, canary=canary, stable=stable)
        if kind is ISTIO:
            there.traffic["istio"] |= {"cohortRules": True}
        return there

    async def build(self):
        for number, name in enumerate(sorted({name for names in self.services for name in names}), 1):
            await self.first.put(SERVICES, service(name, f"10.96.0.{number}", 80))
        await self.first.apply(self.manifest)
        return self

    def rules(self):
        return self.first.body()["spec"][self.rules_at]

    def people(self):
        return [rule for rule in self.rules() if rule.get("name", "").startswith("canaryrollout-")]


@pytest.fixture(params=[TWO_APPS, TWO_CANARIES], ids=["two apps", "two canaries"])
def services(request):
    return request.param


@pytest.fixture(params=["gatewayAPI", "istio"])
async def shared(request, services):
    return await Shared(request.param, services).build()


async def test_each_adds_renews_and_takes_away_its_own_rules_for_people_alone(shared):
    first, second = shared.first, shared.second
    cohort = first.spec().stages[0].cohort
    assert first.router().problems() == second.router().problems() == []
    await first.route(500, cohort=cohort)
    before = shared.people()
    await second.route(500, cohort=cohort)
    assert [rule for rule in shared.people() if rule in before] == before
    names = [rule["name"] for rule in shared.people()]
    assert len(set(names)) == len(names) == 2 * len(before), "the names of a route's rules are unique"
    for there in (first, second):
        view = there.router().observe()
        assert (view.weight, view.cohort, view.outdated, view.contested_by) == (500, cohort, False, "")
        assert not (await there.route(500, cohort=cohort)).changed
    await second.route(0)
    assert shared.people() == before
    view = first.router().observe()
    assert (view.weight, view.cohort, view.outdated) == (500, cohort, False)
    await first.route(0)
    assert shared.people() == []


async def test_rules_that_an_earlier_version_named_without_saying_whose_they_are_go_with_the_weight(shared):
    first, second = shared.first, shared.second
    cohort = first.spec().stages[0].cohort
    await second.route(500, cohort=cohort)
    theirs = shared.people()
    await first.route(500, cohort=cohort)
    body = shared.first.body()
    for rule in body["spec"][shared.rules_at]:
        if rule.get("name", "").startswith("canaryrollout-") and rule not in theirs:
            rule["name"] = "canaryrollout-" + rule["name"].partition(".")[2]
    await first.api.client("operator").merge_patch(
        first.kind.resource, NAMESPACE, "shop", {"spec": {shared.rules_at: body["spec"][shared.rules_at]}}
    )
    assert first.router().observe().outdated
    await first.route(0)
    assert shared.people() == theirs


@pytest.mark.parametrize("kind", ["gatewayAPI", "istio"])
async def test_at_a_hundred_per_cent_a_region_with_a_weight_of_its_own_is_whole_too(kind):
    shared = await Shared(kind, TWO_APPS).build()
    there = shared.first
    regions = {"header": "X-Region", "weights": [{"value": "eu", "weight": "10%"}]}
    for stage in there.stages:
        stage["cohort"] = {"regions": regions}
    cohort = there.spec().stages[0].cohort

    def weights():
        [rule] = shared.people()
        return [one["weight"] for one in rule.get("backendRefs") or rule["route"]]

    for weight, region in ((500, [9000, 1000]), (10_000, [0, 10_000]), (500, [9000, 1000])):
        await there.route(weight, cohort=cohort)
        assert weights() == region
        view = there.router().observe()
        assert (view.weight, view.cohort, view.outdated) == (weight, cohort, False)
        assert not (await there.route(weight, cohort=cohort)).changed
