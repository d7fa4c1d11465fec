"""The router for the community ingress-nginx controller: what it writes, and what it foresees that the controller hides."""

import copy

import pytest
from fake_api import FakeApi
from proxies import NAMESPACE, StoreReader, service

from canary_rollout.kube.port import DEPLOYMENTS, INGRESSES, SERVICES, ConflictError
from canary_rollout.model.spec import CanaryRolloutSpec, Cohort
from canary_rollout.traffic.ingress_nginx import IngressNginxRouter
from canary_rollout.traffic.port import Latch, Proof, Rejected, Route, RouterContext, Written
from canary_rollout.traffic.registry import router_for

P = "nginx.ingress.kubernetes.io/"
LATCH = Latch("v2", "error-rate", "too many", 1_000_000.0)


class TurnedClock:
    def __init__(self):
        self.time = 1_000_000.0

    def now(self):
        return self.time


def path(name, where="/", port=None):
    backend = {"service": {"name": name, "port": port or {"number": 80}}}
    return {"path": where, "pathType": "Prefix", "backend": backend}


def ingress(name="shop", host="shop.example", paths=None, annotations=None):
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, **({"annotations": annotations} if annotations else {})},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": [host], "secretName": "cert"}],
            "rules": [{"host": host, "http": {"paths": paths or [path("checkout"), path("other", "/other")]}}],
        },
    }


class Controlled:
    """A namespace with an Ingress, and a router on it."""

    def __init__(self):
        self.api = FakeApi()
        self.clock = TurnedClock()
        self.settings = {"ingress": "shop", "controllerVersion": "1.12.1"}
        self.traffic = {}
        self.stages = None

    def router(self):
        spec = {
            "workload": {
                "stable": {"service": "checkout", "deployment": "checkout"},
                "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
            },
            "traffic": {"ingressNginx": self.settings, **self.traffic},
            "metrics": {"prometheus": "http://prometheus:9090"},
            **({"stages": self.stages} if self.stages else {}),
        }
        model = CanaryRolloutSpec.model_validate(spec)
        client, reader = self.api.client("operator"), StoreReader(self.api)
        return router_for(RouterContext(NAMESPACE, "checkout", "uid", model, client, reader, self.clock))

    async def put(self, resource, obj):
        await self.api.client("user").apply(resource, NAMESPACE, obj["metadata"]["name"], obj, manager="user")

    async def route(self, weight, fence=None, **more):
        answer = await self.router().ensure(Route(weight, "v2", "v1", **more), fence=fence)
        assert isinstance(answer, Written), answer
        return answer

    def ours(self):
        return self.api.store.peek(INGRESSES, NAMESPACE, "checkout-canary")

    def notes(self):
        notes = self.ours()["metadata"]["annotations"]
        return {key.removeprefix(P): value for key, value in notes.items() if key.startswith(P)}


@pytest.fixture
async def there():
    made = Controlled()
    await made.put(INGRESSES, ingress())
    await made.put(SERVICES, service("checkout", "10.96.0.1", 80))
    await made.put(SERVICES, service("checkout-canary", "10.96.0.2", 80))
    return made


async def test_it_is_found_by_its_name_in_the_spec(there):
    router = there.router()
    assert isinstance(router, IngressNginxRouter)
    assert router.capabilities().proof is Proof.SETTLE
    assert router.problems() == []
    assert router.observe() is None


async def test_it_writes_a_canary_for_the_paths_of_stable_alone_and_leaves_the_users_ingress(there):
    before = there.api.store.peek(INGRESSES, NAMESPACE, "shop")
    await there.route(50)
    assert there.notes() == {
        "canary": "true",
        "canary-weight": "50",
        "canary-weight-total": "10000",
        "affinity-canary-behavior": "legacy",
    }
    spec = there.ours()["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["rules"] == [{"host": "shop.example", "http": {"paths": [path("checkout-canary")]}}]
    assert there.api.store.peek(INGRESSES, NAMESPACE, "shop") == before


async def test_a_weight_counts_once_it_has_settled(there):
    await there.route(50)
    view = there.router().observe()
    assert (view.weight, view.revision, view.confirmed, view.confirmed_at) == (50, "v2", False, None)
    assert "5 s" in view.pending
    there.clock.time += 5
    view = there.router().observe()
    assert (view.confirmed, view.confirmed_at, view.mode) == (True, 1_000_005.0, "canary Ingress")


async def test_repeating_a_route_asks_the_api_nothing_and_does_not_settle_anew(there):
    await there.route(50, latch=LATCH)
    calls = len(there.api.calls)
    there.clock.time += 5
    assert not (await there.route(50, latch=LATCH)).changed
    assert len(there.api.calls) == calls
    assert there.router().observe().confirmed


@pytest.mark.parametrize(
    ("cohort", "written"),
    [
        (
            {"header": "X-Cohort", "values": ["internal"]},
            {"canary-by-header": "X-Cohort", "canary-by-header-value": "internal"},
        ),
        (
            {"header": "X-Cohort", "values": ["internal", "v1.2"]},
            {"canary-by-header": "X-Cohort", "canary-by-header-pattern": "^(?:internal|v1[.]2)$"},
        ),
        ({"cookie": "beta", "values": ["always"]}, {"canary-by-cookie": "beta"}),
    ],
)
async def test_cohorts_are_written_as_the_controller_knows_them_and_read_back(there, cohort, written):
    cohort = Cohort.model_validate(cohort)
    await there.route(50, cohort=cohort)
    assert written.items() <= there.notes().items()
    view = there.router().observe()
    assert (view.cohort.header, view.cohort.cookie, view.cohort.values) == (cohort.header, cohort.cookie, cohort.values)
    await there.route(0, cohort=cohort)
    assert not any(key.startswith("canary-by") for key in there.notes()), "nobody at weight 0"
    assert there.notes()["canary-weight"] == "0"


async def test_a_cookie_cohort_with_values_of_its_own_is_refused_with_the_reason(there):
    there.stages = [
        {"name": "a", "weight": "5%", "hold": "1m", "cohort": {"cookie": "beta", "values": ["yes"]}},
        {"name": "b", "weight": "100%", "hold": "1m"},
    ]
    (problem,) = there.router().problems()
    assert "stage a" in problem
    assert '"always" alone' in problem


@pytest.mark.parametrize("version", [None, "1.6.4", "v1.6.4"])
async def test_without_a_controller_that_honours_the_total_finer_weights_are_refused_and_whole_ones_go_without_it(
    there, version
):
    there.settings = {"ingress": "shop", **({"controllerVersion": version} if version else {})}
    assert there.router().capabilities().step == 100
    problems = there.router().problems()  # of the default stages 0.5 % is the only fine one
    assert len(problems) == 1
    assert "0.5% is no whole per cent" in problems[0]
    assert "50%" in problems[0]
    answer = await there.router().ensure(Route(50, "v2", "v1"), fence=None)
    assert isinstance(answer, Rejected)
    assert there.ours() is None
    await there.route(500)
    assert there.notes()["canary-weight"] == "5"
    assert "canary-weight-total" not in there.notes()
    assert there.router().observe().weight == 500


@pytest.mark.parametrize(
    ("notes", "weight"),
    [
        ({"canary": "true", "canary-weight": "50", "canary-weight-total": "10000"}, 50),
        ({"canary": "true", "canary-weight": "50", "canary-weight-total": "50"}, 5000),  # totals up to 100 are 100
        ({"canary": "true", "canary-weight": "lots"}, 0),
        ({"canary": "true", "canary-weight": "900"}, 10_000),
        ({"canary": "false", "canary-weight": "50"}, 0),
        ({}, 0),
    ],
)
async def test_the_weight_is_read_as_the_controller_reads_it(there, notes, weight):
    foreign = ingress("checkout-canary", annotations={P + key: value for key, value in notes.items()})
    await there.put(INGRESSES, foreign)
    assert there.router().observe().weight == weight


async def test_a_raise_is_fenced_and_a_lowering_is_not(there):
    first = await there.route(50)
    await there.route(100, fence=first.resource_version)
    with pytest.raises(ConflictError):
        await there.route(500, fence=first.resource_version)
    await there.route(0)
    assert there.router().observe().weight == 0


async def test_a_lowering_is_written_although_the_users_ingress_and_the_service_are_gone(there):
    await there.route(5000)
    await there.api.client("user").delete(INGRESSES, NAMESPACE, "shop")
    await there.api.client("user").delete(SERVICES, NAMESPACE, "checkout-canary")
    await there.route(0, latch=LATCH)
    view = there.router().observe()
    assert (view.weight, view.latch) == (0, LATCH)
    assert there.ours()["spec"]["rules"]
    answer = await there.router().ensure(Route(100, "v2", "v1"), fence=view.resource_version)
    assert isinstance(answer, Rejected)


async def test_a_changed_host_of_the_user_makes_the_route_outdated_until_it_is_written_again(there):
    await there.route(50)
    there.clock.time += 5
    await there.put(INGRESSES, ingress(host="new.example"))
    view = there.router().observe()
    assert (view.outdated, view.confirmed) == (True, False)
    await there.route(50)
    assert there.ours()["spec"]["rules"][0]["host"] == "new.example"
    assert not there.router().observe().outdated


async def test_somebody_elses_weight_is_contested_and_taken_back(there):
    await there.route(50)
    there.clock.time += 5
    patch = {"metadata": {"annotations": {P + "canary-weight": "9000"}}}
    await there.api.client("x").merge_patch(INGRESSES, NAMESPACE, "checkout-canary", patch, manager="kubectl-edit")
    view = there.router().observe()
    assert (view.weight, view.contested_by, view.confirmed) == (9000, "kubectl-edit", False)
    await there.route(50)
    view = there.router().observe()
    assert (view.weight, view.contested_by) == (50, "")


async def test_an_annotation_that_somebody_adds_is_taken_back(there):
    await there.route(50)
    patch = {"metadata": {"annotations": {P + "canary-by-header": "X-Me"}}}
    await there.api.client("x").merge_patch(INGRESSES, NAMESPACE, "checkout-canary", patch, manager="kubectl-edit")
    assert there.router().observe().contested_by == "kubectl-edit"
    await there.route(50)
    assert "canary-by-header" not in there.notes()
    assert there.router().observe().contested_by == ""
    calls = len(there.api.calls)
    await there.route(50)
    assert len(there.api.calls) == calls


CONFLICTS = {
    "a second canary": (
        ingress("mine", paths=[path("third")], annotations={P + "canary": "true"}),
        "is a canary for shop.example/ already",
    ),
    "canary Service is a primary": (
        ingress("direct", paths=[path("checkout-canary", "/x")]),
        "itself; the controller ignores",
    ),
    "a second canary with another pathType": (
        ingress("mine", paths=[{**path("third"), "pathType": "Exact"}], annotations={P + "canary": "true"}),
        "is a canary for shop.example/ already",
    ),
    "the same place twice": (ingress("twin", paths=[path("third")]), "follows the older of the two"),
    "the same place for another controller": (
        {**(twin := ingress("twin", paths=[path("third")])), "spec": {**twin["spec"], "ingressClassName": "other"}},
        None,
    ),
    "a canary elsewhere": (ingress("mine", host="else.example", annotations={P + "canary": "true"}), None),
    "canary Service on another host": (
        ingress("direct", host="preview.example", paths=[path("checkout-canary")]),
        None,
    ),
}


@pytest.mark.parametrize("name", CONFLICTS)
async def test_what_the_controller_would_ignore_without_a_word_is_said(there, name):
    other, said = CONFLICTS[name]
    await there.put(INGRESSES, other)
    problems = there.router().problems()
    assert [said in problem for problem in problems] == ([True] if said else [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda there: there.put(INGRESSES, ingress(annotations={P + "affinity": "cookie"})),
            "keep the version they met first",
        ),
        (lambda there: there.put(INGRESSES, ingress(annotations={P + "canary": "true"})), "is a canary itself"),
        (
            lambda there: there.put(INGRESSES, ingress(annotations={P + "canary-weight": "5"})),
            "without being a canary",
        ),
        (
            lambda there: there.put(INGRESSES, ingress(annotations={P + "ssl-passthrough": "true"})),
            "cannot be told apart inside TLS",
        ),
        (lambda there: there.put(INGRESSES, ingress(paths=[path("other")])), "no rule for the stable Service"),
        (
            lambda there: there.put(INGRESSES, ingress(paths=[path("checkout", port={"number": 8080})])),
            "has no port 8080",
        ),
        (lambda there: there.put(INGRESSES, ingress("checkout-canary")), "is not ours"),
        (lambda there: there.api.client("u").delete(INGRESSES, NAMESPACE, "shop"), "shop/shop does not exist"),
        (lambda there: there.api.client("u").delete(SERVICES, NAMESPACE, "checkout-canary"), "does not exist"),
    ],
)
async def test_what_cannot_work_is_said_with_what_to_do(there, change, said):
    await change(there)
    assert any(said in problem for problem in there.router().problems())


async def test_an_ingress_of_that_name_that_is_not_ours_is_never_written_nor_deleted(there):
    foreign = ingress("checkout-canary")
    await there.put(INGRESSES, foreign)
    before = copy.deepcopy(there.ours())
    assert isinstance(await there.router().ensure(Route(0, "v2", "v1"), fence=None), Rejected)
    await there.router().release()
    assert there.ours() == before


async def run_controller(there, *images):
    for number, image in enumerate(images):
        labels = {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}
        body = {
            "metadata": {"name": f"controller-{number}", "labels": labels},
            "spec": {"template": {"spec": {"containers": [{"name": "controller", "image": image}]}}},
        }
        name = body["metadata"]["name"]
        await there.api.client("user").apply(DEPLOYMENTS, "ingress-nginx", name, body, manager="user")


@pytest.mark.parametrize(
    ("images", "step"),
    [
        (["registry.k8s.io/ingress-nginx/controller:v1.12.1@sha256:abcd"], 1),
        (["registry:5000/mirror/controller-chroot:v1.7.0"], 1),
        (["registry.k8s.io/ingress-nginx/controller:v1.6.4"], 100),
        (["registry.k8s.io/ingress-nginx/controller:v1.12.1", "registry.k8s.io/ingress-nginx/controller:v1.6.4"], 100),
        (["registry.k8s.io/ingress-nginx/controller:latest"], 100),
    ],
)
async def test_the_version_is_read_from_the_image_of_the_controller(there, images, step):
    there.settings = {"ingress": "shop"}
    await run_controller(there, *images)
    assert there.router().capabilities().step == step


async def test_a_version_that_the_image_contradicts_is_told_and_not_believed(there):
    await run_controller(there, "registry.k8s.io/ingress-nginx/controller:v1.6.4")
    problems = there.router().problems()
    assert any("controllerVersion is 1.12.1" in text and "says 1.6.4" in text for text in problems)
    assert any("update the controller, which is 1.6.4" in text for text in problems)
    assert isinstance(await there.router().ensure(Route(50, "v2", "v1"), fence=None), Rejected)


@pytest.mark.parametrize(
    ("cohort", "pattern"),
    [
        ({"header": "X-Cohort", "values": ["a"], "prefixes": ["beta-"]}, "^(?:a|beta-.*)$"),
        ({"header": "User-Agent", "pattern": "Mozilla*Firefox/*"}, "^(?:Mozilla.*Firefox/.*)$"),
        ({"header": "User-Agent", "pattern": "curl/8.*(x)"}, "^(?:curl/8[.].*[(]x[)])$"),
    ],
)
async def test_prefixes_and_patterns_are_written_for_the_controller_and_known_again(there, cohort, pattern):
    there.stages = [
        {"name": "a", "weight": "5%", "hold": "1m", "cohort": cohort},
        {"name": "b", "weight": "100%", "hold": "1m"},
    ]
    assert there.router().problems() == []
    given = Cohort.model_validate(cohort)
    await there.route(50, cohort=given)
    assert there.notes()["canary-by-header-pattern"] == pattern
    assert there.router().observe().cohort == given


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"cohort": {"header": "User-Agent", "pattern": "Mozilla* Firefox/*"}}, "refuses a space"),
        (
            {"cohort": {"regions": {"header": "X-Region", "weights": [{"value": "eu", "weight": "5%"}]}}},
            "one weight for everybody",
        ),
        ({"cohort": {"cookie": "beta", "prefixes": ["a"]}}, '"always" alone'),
    ],
)
async def test_people_the_controller_cannot_tell_apart_are_refused(there, more, said):
    there.stages = [{"name": "a", "weight": "5%", "hold": "1m", **more}, {"name": "b", "weight": "100%", "hold": "1m"}]
    [problem] = there.router().problems()
    assert said in problem


async def test_pins_and_baggage_are_refused_with_what_to_do(there):
    there.traffic = {"pin": {"header": "X-Canary"}, "requestHeaders": {"baggage": True}}
    pin, baggage = there.router().problems()
    assert "X-Canary: always" in pin
    assert "remove traffic.requestHeaders.baggage" in baggage


async def test_stickiness_is_refused_with_the_reason(there):
    there.traffic = {"sticky": {"cookie": "tenant"}}
    assert any("cannot keep tenants" in problem for problem in there.router().problems())


async def test_released_it_is_gone_unless_it_serves(there):
    await there.route(10_000)
    await there.router().release()
    assert there.ours() is not None
    await there.route(0)
    await there.router().release()
    assert there.ours() is None
    await there.router().release()


@pytest.mark.parametrize(
    "value",
    [
        "a\n",
        "a b",
        "a|.*",
        ".*)(",
        "$",
        "a" * 65,
        "^",
        "ü",
        "",
        "a,b",
        '"',
        "'",
        "a;b",
        "\0",
        "(",
        "[",
        "{",
        "*",
        "+",
        "?",
        "\\",
    ],
)
async def test_hostile_cohorts_and_revisions_reach_no_annotation(there, value):
    cohort = Cohort.model_construct(header="X-A", cookie=None, values=("ok", value))
    names = Cohort.model_construct(header=value, cookie=None, values=("ok",))
    cookie = Cohort.model_construct(header=None, cookie=value, values=("always",))
    for bad in (cohort, names, cookie):
        assert isinstance(await there.router().ensure(Route(50, "v2", "v1", bad), fence=None), Rejected)
    if value:
        assert isinstance(await there.router().ensure(Route(50, value, "v1"), fence=None), Rejected)
    assert there.ours() is None
