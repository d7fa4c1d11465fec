"""Headers that tell the version: no router that writes any writes one that somebody else relies on."""

import dataclasses
import json

import pytest
from wrong_rollouts.bad import RELIED_ON

from canary_rollout.kube.port import HTTP_ROUTES
from canary_rollout.model.route import Route
from canary_rollout.model.routers import GatewayApiTraffic, OwnedRoute, ParentRef
from canary_rollout.model.routing import RequestHeaders, ResponseHeaders, Traffic
from canary_rollout.model.stored import STORED
from canary_rollout.traffic.envoy.document import ENVOY_KEY, EnvoyDocument, Upstream
from canary_rollout.traffic.envoy.routes import Routes
from canary_rollout.traffic.gateway_api_render import Backends, render
from canary_rollout.traffic.nginx.document import DocumentError, parse_as
from canary_rollout.traffic.nginx.render import ProxyConfig, render_config
from canary_rollout.traffic.port import RouterError

ENVOY = EnvoyDocument(
    schema_version=1, namespace="shop", rollout="checkout", sequence=1, weight=50, revision="r1", listen=8080,
    stale_after=120.0, stable=Upstream(address="10.96.0.1", port=80), canary=Upstream(address="10.96.0.2", port=80),
)  # fmt: skip
NGINX = ProxyConfig(
    namespace="shop", rollout="checkout", stable_upstream=("10.96.0.1", 80), canary_upstream=("10.96.0.2", 80),
    sticky=None, headers=ResponseHeaders(),
)  # fmt: skip
CREATED = OwnedRoute(parent_refs=(ParentRef(name="front"),), backend_filters=True)
GATEWAY = Traffic(gateway_api=GatewayApiTraffic(http_route="checkout", create=CREATED))


def nginx(told, answered):
    return render_config(dataclasses.replace(NGINX, told=told, headers=answered))


def envoy(told, answered):
    fields = {"request_headers": told, "response_headers": answered}
    return str(Routes(ENVOY.model_copy(update=fields)).configuration())


def gateway_api(told, answered):
    traffic = GATEWAY.model_copy(update={"request_headers": told, "response_headers": answered})
    return str(render(HTTP_ROUTES, CREATED, traffic, Route(500, "r1", "r0"), Backends(("a", 80), ("b", 80))))


RENDERERS = (nginx, envoy, gateway_api)
"""Every router that writes headers; those that change weights in somebody's own object write none."""


def unchecked(model, **values):
    """As it would look had the model let everything through."""
    return model.model_copy(update=values)


@pytest.mark.parametrize("rendered", RENDERERS)
@pytest.mark.parametrize("name", RELIED_ON)
def test_what_somebody_relies_on_is_never_overwritten(rendered, name):
    with pytest.raises(RouterError, match="meaning of its own"):
        rendered(unchecked(RequestHeaders(), version=name), ResponseHeaders())
    with pytest.raises(RouterError, match="meaning of its own"):
        rendered(RequestHeaders(), unchecked(ResponseHeaders(), version=name))


@pytest.mark.parametrize("rendered", RENDERERS)
def test_a_name_of_ones_own_is_written_both_ways(rendered):
    text = rendered(RequestHeaders(version="X-Release"), ResponseHeaders(version="X-Served-By")).lower()
    assert "x-release" in text
    assert "x-served-by" in text


@pytest.mark.parametrize("rendered", RENDERERS)
@pytest.mark.parametrize("name", RELIED_ON)
def test_what_an_earlier_version_stored_is_rendered_without_it(rendered, name):
    """A lowering must not fail for it."""
    named = {"version": name, "cohort": "X-Group"}
    told, answered = (kind.model_validate(named, context=STORED) for kind in (RequestHeaders, ResponseHeaders))
    assert (told.version, answered.version) == ("", "")
    assert rendered(told, answered) == rendered(
        RequestHeaders(version="", cohort="X-Group"), ResponseHeaders(version="", cohort="X-Group")
    )


@pytest.mark.parametrize("name", RELIED_ON)
def test_what_an_earlier_version_told_an_envoy_is_read_and_rendered_by_nobody(name):
    written = ENVOY.model_copy(update={"request_headers": unchecked(RequestHeaders(), version=name)})
    found = parse_as(EnvoyDocument, written.dump(), ENVOY_KEY)
    assert (found.weight, found.request_headers.version, found.identity) == (50, name, written.identity)
    with pytest.raises(RouterError, match="meaning of its own"):
        Routes(found).configuration()


def test_a_name_that_never_was_one_is_no_more_read_from_an_envoy_than_before():
    raw = json.loads(ENVOY.dump())
    raw["requestHeaders"] = {"version": "a b"}
    with pytest.raises(DocumentError, match="header name"):
        parse_as(EnvoyDocument, json.dumps(raw), ENVOY_KEY)
