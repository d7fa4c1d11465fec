"""Nothing hostile reaches a route, although the model let it through (an older object, a webhook that was off, a bug)."""

import pytest
from hostile import FINE_IN_A_PATTERN, HOSTILE

from canary_rollout.kube.port import HTTP_ROUTES
from canary_rollout.model.cohorts import Cohort, Regions, RegionWeight
from canary_rollout.model.route import Route
from canary_rollout.model.routers import GatewayApiTraffic, OwnedRoute, ParentRef
from canary_rollout.model.routing import Pin, RequestHeaders, ResponseHeaders, Traffic
from canary_rollout.traffic.foreign import Writer
from canary_rollout.traffic.gateway_api_members import member_rules
from canary_rollout.traffic.gateway_api_render import Backends, render
from canary_rollout.traffic.port import RouterError

BACKENDS = Backends(("checkout", 80), ("checkout-canary", 80))
SETTINGS = GatewayApiTraffic(http_route="checkout", regular_expressions=True)
TRAFFIC = Traffic(gateway_api=SETTINGS)
FRONT = ParentRef(name="front")


def create(**changes):
    fields = {"parent_refs": (FRONT,), "hostnames": (), "paths": ("/",), "port": None, "backend_filters": True}
    return OwnedRoute.model_construct(**{**fields, **changes})


def cohort(**fields):
    return Cohort.model_construct(
        **{
            "header": "X-A",
            "cookie": None,
            "values": ("a",),
            "prefixes": (),
            "pattern": None,
            "regions": None,
            **fields,
        }
    )


def regions(header, value):
    weights = (RegionWeight.model_construct(value=value, weight=100),)
    return Regions.model_construct(header=header, weights=weights)


def traffic(**fields):
    return TRAFFIC.model_copy(update=fields)


FIELDS = {
    "parent": lambda bad: (create(parent_refs=(ParentRef.model_construct(name=bad),)), TRAFFIC, None),
    "namespace": lambda bad: (
        create(parent_refs=(ParentRef.model_construct(name="front", namespace=bad),)),
        TRAFFIC,
        None,
    ),
    "section": lambda bad: (
        create(parent_refs=(ParentRef.model_construct(name="front", section_name=bad),)),
        TRAFFIC,
        None,
    ),
    "hostname": lambda bad: (create(hostnames=(bad,)), TRAFFIC, None),
    "path": lambda bad: (create(paths=(bad,)), TRAFFIC, None),
    "request header": lambda bad: (
        create(),
        traffic(request_headers=RequestHeaders.model_construct(cohort="", version=bad, baggage=False)),
        None,
    ),
    "response header": lambda bad: (
        create(),
        traffic(response_headers=ResponseHeaders.model_construct(cohort="", version=bad)),
        None,
    ),
    "pin's header": lambda bad: (create(), traffic(pin=Pin.model_construct(header=bad, canary="a", stable="b")), None),
    "pin's canary": lambda bad: (
        create(),
        traffic(pin=Pin.model_construct(header="X-A", canary=bad, stable="b")),
        None,
    ),
    "pin's stable": lambda bad: (
        create(),
        traffic(pin=Pin.model_construct(header="X-A", canary="a", stable=bad)),
        None,
    ),
    "cohort's header": lambda bad: (create(), TRAFFIC, cohort(header=bad)),
    "cohort's cookie": lambda bad: (create(), TRAFFIC, cohort(header=None, cookie=bad)),
    "cohort's value": lambda bad: (create(), TRAFFIC, cohort(values=(bad,))),
    "cohort's prefix": lambda bad: (create(), TRAFFIC, cohort(prefixes=(bad,))),
    "cohort's pattern": lambda bad: (create(), TRAFFIC, cohort(pattern=bad)),
    "region's header": lambda bad: (create(), TRAFFIC, cohort(regions=regions(bad, "a"))),
    "region": lambda bad: (create(), TRAFFIC, cohort(regions=regions("X-R", bad))),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_hostile_string_is_refused_before_a_route_is_rendered(field):
    for hostile in HOSTILE:
        if field == "cohort's pattern" and hostile in FINE_IN_A_PATTERN:
            continue
        settings, spec, people = FIELDS[field](hostile)
        with pytest.raises(RouterError):
            render(HTTP_ROUTES, settings, spec, Route(500, "r1", "r0", people), BACKENDS)


def test_a_hostile_revision_is_no_part_of_a_field_managers_name():
    for hostile in (*HOSTILE, "a,b", "a=b", "a/b"):
        with pytest.raises(RouterError):
            Writer(ours=True, name="").manager("checkout", hostile)


@pytest.mark.parametrize(
    ("people", "header", "value"),
    [
        (cohort(values=(), prefixes=("a.b", "c")), "X-A", "^(?:a[.]b.*|c.*)$"),
        (cohort(values=(), pattern="Mozilla*(X11)/1.0*"), "X-A", "^(?:Mozilla.*[(]X11[)]/1[.]0.*)$"),
        (
            cohort(header=None, cookie="c-d", values=("a.b",), prefixes=("x",)),
            "Cookie",
            "^(?:.*; ?)?c-d=(?:a[.]b|x[^;]*)(?:;.*)?$",
        ),
    ],
)
def test_what_means_something_in_a_regular_expression_is_taken_literally(people, header, value):
    base = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}
    (rule,) = member_rules(base, "name", TRAFFIC, people, ({"name": "a"}, {"name": "b"}), full=False)
    (condition,) = rule["matches"][0]["headers"]
    assert condition == {"type": "RegularExpression", "name": header, "value": value}
