"""What the router for ingress-nginx foresees that the controller hides, and what it refuses with the reason."""

import copy

import pytest
from ingress_play import P, controlled, ingress, path
from proxies import NAMESPACE

from canary_rollout.kube.port import DEPLOYMENTS, INGRESSES, SERVICES
from canary_rollout.traffic.port import Rejected, Route


@pytest.fixture
async def there():
    return await controlled()


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
