"""The Envoy router on the fake API server, and that no hostile string reaches Envoy by any field."""

import json
from dataclasses import replace

import pytest
from envoys import EnvoyWorld, envoy_spec
from hypothesis import given
from hypothesis import strategies as st
from let_through import let_through
from proxies import NAMESPACE, endpoint_slice, service

from canary_rollout.agent.envoy import place_of
from canary_rollout.agent.settings import from_environment
from canary_rollout.kube.port import CONFIG_MAPS, ENDPOINT_SLICES, LEASES, SERVICES
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.routing import Pin, RequestHeaders, ResponseHeaders, Sticky
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.stored import STORED
from canary_rollout.traffic.envoy import EnvoyRouter
from canary_rollout.traffic.envoy.document import ENVOY_KEY, EnvoyDocument, Upstream
from canary_rollout.traffic.envoy.resources import checks_until_over, clusters, listeners
from canary_rollout.traffic.envoy.routes import Routes, glob, in_cookie
from canary_rollout.traffic.nginx.ack import Ack, to_lease
from canary_rollout.traffic.nginx.document import DocumentError, parse_as
from canary_rollout.traffic.port import Proof, Rejected, Route, RouterError
from canary_rollout.traffic.registry import router_for

HOSTILE = [
    "a\n", "a\r\nX: y", "a;", "a}", "{a", 'a"', "a'", "a\\", "$host", "%REQ(x)%", "%DOWNSTREAM_REMOTE_ADDRESS%", "a%b", "~^.*",
    "(?i:a)", "a|b", ".*x+", "[a]", "^a$", "*", "a\tb", "a\0b", "#a", "a#b", "../../etc/passwd", "unix:/var/run/docker.sock",
    "http://127.0.0.1/", "a,b", "ü", "\u0430", "a" * 300, "{{ 7 * 7 }}", "{% raw %}", "<script>", "`id`", "$(id)", "%0a", r"\1",
    r"\\1", "a=b", "a&b", True, 1, None, ["a"],
]  # fmt: skip
PLACE = place_of(
    from_environment({"NAMESPACE": "n", "POD_NAME": "p", "CONFIGMAP": "c", "WORK_DIR": "/w"}, beside="envoy")
)


@pytest.fixture
async def world():
    made = EnvoyWorld(spec=envoy_spec())
    for name, address in (("checkout", "10.96.0.1"), ("checkout-canary", "10.96.0.2"), ("edge", "10.96.0.3")):
        await made.put(SERVICES, service(name, address, 80))
    await made.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
    return made


def document(**changes):
    """A good document with fields as they would look had the model let everything through."""
    good = EnvoyDocument(
        namespace="shop", rollout="checkout", sequence=1, weight=500, revision="v2", stable_revision="v1", listen=8080,
        stale_after=120.0, sticky=Sticky(header="X-Tenant-ID"), stable=Upstream(address="10.96.0.1", port=80),
        canary=Upstream(address="10.96.0.2", port=80),
    )  # fmt: skip
    return EnvoyDocument.model_construct(**{**dict(good), **changes})


def unchecked(model, **values):
    return model.model_construct(**{**dict(model), **values})


async def test_what_is_written_is_seen_and_counts_once_every_proxy_has_said_so(world):
    router = world.router()
    assert isinstance(router_for(router._context), EnvoyRouter)
    assert (router.problems(), router.capabilities().proof, router.capabilities().mirror) == ([], Proof.ACKED, True)
    await world.route(50)
    view = world.view()
    assert (view.weight, view.revision, view.confirmed) == (50, "v2", False)
    assert "waiting for 1 of 1 envoy pods: edge-1 has no agent that reports" in view.pending
    found = parse_as(EnvoyDocument, world.config_map()["data"][ENVOY_KEY])
    ack = Ack(
        pod="edge-1", config_map="checkout-envoy", rollout="checkout", applied=found.identity, applied_at=2e9, config="",
        mode="envoy", weight=50, error="", nginx_version="1.40.0", renewed=2e9, duration=120,
    )  # fmt: skip
    await world.put(LEASES, to_lease(ack, NAMESPACE, ""))
    assert (world.view().confirmed, world.view().mode) == (True, "envoy")


async def test_a_moved_service_or_a_changed_spec_makes_the_route_outdated(world):
    await world.route(50)
    assert not world.view().outdated
    for change in (
        lambda: world.put(SERVICES, service("checkout-canary", "10.96.0.99", 80)),
        lambda: change_spec(world, pin={"header": "X-Canary"}),
        lambda: change_spec(world, sticky={"header": "X-Tenant-ID", "deny": ["acme"]}),
        lambda: change_spec(world, response_headers={"version": "X-By"}),
        lambda: change_spec(world, envoy={"service": "edge", "trustedProxies": ["10.0.0.0/8"]}),
    ):
        await change()
        assert world.view().outdated
        await world.route(50)
        assert not world.view().outdated


async def change_spec(world, **traffic):
    world.spec = envoy_spec(**traffic)


async def test_a_lowering_is_written_although_the_service_is_gone(world):
    await world.route(500)
    await world.api.client("cluster").delete(SERVICES, NAMESPACE, "checkout-canary")
    await world.route(0)
    assert world.view().weight == 0
    answer = await world.router().ensure(Route(5000, "v2", "v1"), fence=world.view().resource_version)
    assert isinstance(answer, Rejected)


async def test_what_an_earlier_version_told_is_read_and_lowered_without_it(world):
    """Its spec is stored, its document stands in the ConfigMap, and neither would be taken today."""
    await world.route(500)
    written = parse_as(EnvoyDocument, world.config_map()["data"][ENVOY_KEY])
    text = written.model_copy(update={"request_headers": unchecked(RequestHeaders(), version="X-Auth-User")}).dump()
    await world.api.client("canaryrollout").merge_patch(
        CONFIG_MAPS, NAMESPACE, "checkout-envoy", {"data": {ENVOY_KEY: text}}
    )
    raw = envoy_spec().model_dump(
        mode="json", by_alias=True, include={"workload", "traffic", "metrics"}, exclude_unset=True
    )
    raw["traffic"]["requestHeaders"] = {"version": "X-Auth-User"}
    world.spec = CanaryRolloutSpec.model_validate(raw, context=STORED)
    view = world.view()
    assert (view.weight, view.revision, view.contested_by, view.outdated) == (500, "v2", "", True)
    assert world.router().problems() == []
    await world.route(0)
    assert world.view().weight == 0
    assert "X-Auth-User" not in world.config_map()["data"][ENVOY_KEY]


async def test_somebody_elses_overwrite_is_named_and_taken_back(world):
    await world.route(50)
    text = world.config_map()["data"][ENVOY_KEY].replace('"weight": 50', '"weight": 9000')
    patch = {"data": {ENVOY_KEY: text}}
    await world.api.client("x").merge_patch(CONFIG_MAPS, NAMESPACE, "checkout-envoy", patch, manager="kubectl-edit")
    assert (world.view().weight, world.view().contested_by) == (9000, "kubectl-edit")
    await world.route(50)
    assert (world.view().weight, world.view().contested_by) == (50, "")


def test_the_clusters_change_with_no_weight_and_no_cohort_of_people():
    people = Cohort(header="X-Cohort", values=("internal",))
    made = [clusters(document(weight=weight, sequence=weight + 1), PLACE) for weight in (0, 50, 10_000)]
    assert made[0] == made[1] == made[2] == clusters(document(cohort=people), PLACE)


@given(st.floats(1, 86_400))
def test_a_lease_is_over_in_envoy_before_the_operator_may_take_it_for_over(stale_after):
    # Each look takes a second at most; the last renewal may be a quarter of the time old (30 s at most).
    seconds = checks_until_over(stale_after) * 1.0
    assert seconds <= max(1.0, stale_after - min(30.0, stale_after / 4))


FIELDS = {
    "pin.header": lambda v: {"pin": unchecked(Pin(header="X"), header=v)},
    "pin.canary": lambda v: {"pin": unchecked(Pin(header="X"), canary=v)},
    "sticky.header": lambda v: {"sticky": unchecked(Sticky(header="X"), header=v)},
    "sticky.cookie": lambda v: {"sticky": unchecked(Sticky(cookie="x"), header=None, cookie=v)},
    "sticky.allow": lambda v: {"sticky": unchecked(Sticky(header="X"), allow=(v,))},
    "sticky.deny": lambda v: {"sticky": unchecked(Sticky(header="X"), deny=(v,))},
    "cohort.header": lambda v: {"cohort": unchecked(Cohort(header="X", values=("a",)), header=v)},
    "cohort.values": lambda v: {"cohort": unchecked(Cohort(header="X", values=("a",)), values=(v,))},
    "cohort.prefixes": lambda v: {"cohort": unchecked(Cohort(header="X", values=("a",)), prefixes=(v,))},
    "namespace": lambda v: {"namespace": v},
    "rollout": lambda v: {"rollout": v},
    "revision": lambda v: {"revision": v},
    "stable_revision": lambda v: {"stable_revision": v},
    "requestHeaders": lambda v: {"request_headers": unchecked(RequestHeaders(), version=v)},
    "responseHeaders": lambda v: {"response_headers": unchecked(ResponseHeaders(), cohort=v)},
}
NOBODY = {"sticky.header", "sticky.cookie", "cohort.header"}  # for which None means something else
STRINGS = [v for v in HOSTILE if isinstance(v, str)]


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_no_route_is_made_with_a_hostile_value(field):
    values = [v for v in HOSTILE if not (v is None and field in NOBODY)]
    assert let_through(values, lambda v: Routes(document(**FIELDS[field](v))).configuration(), RouterError) == []


def test_no_cluster_is_made_with_an_address_that_no_service_has():
    def attempt(value):
        clusters(document(canary=Upstream.model_construct(address=value, port=80)), PLACE)

    assert let_through([*STRINGS, "169.254.169.254", "::", "localhost"], attempt, RouterError) == []


def test_no_listener_is_made_with_a_network_that_is_none():
    assert let_through(STRINGS, lambda v: listeners(document(trusted_proxies=(v,)), replace(PLACE)), RouterError) == []


@pytest.mark.parametrize("field", ["namespace", "rollout", "revision", "weight", "listen", "mirror", "schemaVersion"])
def test_the_agent_refuses_a_document_with_a_hostile_value(field):
    good = json.loads(document().dump())

    def attempt(value):
        parse_as(EnvoyDocument, json.dumps({**good, field: value}), ENVOY_KEY)

    assert let_through([v for v in HOSTILE if v not in (None, 1)], attempt, DocumentError) == []


@given(st.from_regex(r"[A-Za-z0-9 ._/()-]{1,8}(\*[A-Za-z0-9 ._/()-]{1,8}){0,2}\*?", fullmatch=True))
def test_a_glob_has_no_character_that_means_something_else_to_re2(pattern):
    import re

    assert re.fullmatch(glob(pattern), pattern.replace("*", "anything"))


def test_a_cookie_is_found_among_others_and_no_other_is_taken_for_it():
    import re

    found = re.compile(in_cookie("tenant", "acme"))
    for header in ("tenant=acme", "a=b; tenant=acme", "tenant=acme; c=d", "a=b;tenant=acme ;c=d", "Tenant=acme"):
        assert found.fullmatch(header), header
    for header in ("xtenant=acme", "tenant=acme2", "a=tenant=acme", "a=b; xtenant=acme", "tenant=", ""):
        assert not found.fullmatch(header), header
