"""Istio, Traefik, Contour and F5: the user's own objects with lists of weights."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from canary_rollout.kube.port import HTTP_PROXIES, INGRESS_ROUTES, TRAEFIK_SERVICES, VIRTUAL_SERVERS, VIRTUAL_SERVICES

from .base import (
    CANARY,
    FULL,
    ROLLOUT,
    STABLE,
    STICKY,
    Adapter,
    Lists,
    Manifest,
    Refused,
    condition,
    two_stages,
    with_live_weights,
    without_weights,
)

HALF_PER_CENT = two_stages("0.5%")
WITH_COHORT = two_stages(header="X-Cohort", values=["internal"])


def pair(make: Callable[[str], Manifest], share: int, *, whole: int = FULL, unsaid: bool = True) -> list[Manifest]:
    """Both versions; half and half without weights where that means it (``unsaid``), as people write it."""
    if unsaid and share == FULL // 2:
        return [make(STABLE), make(CANARY)]
    canary = share * whole // FULL
    return [{**make(STABLE), "weight": whole - canary}, {**make(CANARY), "weight": canary}]


def named(name: str) -> Manifest:
    return {"name": name, "port": 80}


def manifest(kind: Any, spec: Manifest) -> Manifest:
    metadata = {"name": ROLLOUT, "labels": {"team": "shop"}, "annotations": {"example.com/owner": "us"}}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


# Each kind: the manifest, and where the lists are in it


def virtual_service(share: int) -> Manifest:
    def to(name: str) -> Manifest:
        return {"destination": {"host": name, "port": {"number": 80}}}

    static = {"match": [{"uri": {"prefix": "/static"}}], "route": [{**to("static"), "weight": 3}]}
    pay = {
        "name": "pay",
        "match": [{"uri": {"prefix": "/pay"}}],
        "timeout": "7s",
        "route": pair(to, share, unsaid=False),
    }
    rest = {"route": pair(to, share, unsaid=False), "retries": {"attempts": 2}}
    return manifest(VIRTUAL_SERVICES, {"hosts": ["shop.example"], "http": [static, pay, rest]})


def istio_lists(obj: Manifest) -> list[list[Manifest]]:
    return [http["route"] for http in obj["spec"]["http"] if len(http["route"]) > 1]


def http_proxy(share: int) -> Manifest:
    routes = [
        {"conditions": [{"prefix": "/static"}], "services": [{**named("static"), "weight": 3}]},
        {"conditions": [{"prefix": "/pay"}], "timeoutPolicy": {"response": "7s"}, "services": pair(named, share)},
        {"conditions": [{"prefix": "/"}], "services": [*pair(named, share), {**named("audit"), "mirror": True}]},
    ]
    return manifest(HTTP_PROXIES, {"virtualhost": {"fqdn": "shop.example"}, "routes": routes})


def contour_lists(obj: Manifest) -> list[list[Manifest]]:
    found = [[one for one in route["services"] if not one.get("mirror")] for route in obj["spec"]["routes"]]
    return [services for services in found if len(services) > 1]


def contour_share(services: list[Manifest]) -> float:
    weights = {one["name"]: one.get("weight", 0) for one in services}
    if not any(weights.values()):
        weights = dict.fromkeys(weights, 1)
    return weights[CANARY] * FULL / sum(weights.values())


def contour_status(obj: Manifest) -> Manifest:
    valid = condition("Valid", obj, "Valid HTTPProxy")
    return {"currentStatus": "valid", "description": "Valid HTTPProxy", "conditions": [valid]}


def traefik_service(share: int) -> Manifest:
    return manifest(TRAEFIK_SERVICES, {"weighted": {"services": pair(named, share)}})


def by_address(share: int) -> Manifest:
    return manifest(TRAEFIK_SERVICES, {"highestRandomWeight": {"services": pair(named, share)}})


def traefik_lists(obj: Manifest) -> list[list[Manifest]]:
    return [next(iter(obj["spec"].values()))["services"]]


def ingress_route(share: int) -> Manifest:
    routes = [
        {"match": "PathPrefix(`/static`)", "kind": "Rule", "services": [{**named("static"), "weight": 3}]},
        {
            "match": "PathPrefix(`/pay`)",
            "kind": "Rule",
            "middlewares": [{"name": "limit"}],
            "services": pair(named, share),
        },
        {"match": "Host(`shop.example`)", "kind": "Rule", "services": pair(named, share)},
    ]
    return manifest(INGRESS_ROUTES, {"entryPoints": ["web"], "routes": routes})


def ingress_route_lists(obj: Manifest) -> list[list[Manifest]]:
    return [route["services"] for route in obj["spec"]["routes"] if len(route["services"]) > 1]


def virtual_server(share: int) -> Manifest:
    def to(name: str) -> Manifest:
        return {"action": {"pass": name}}

    upstreams = [{"name": name, "service": name, "port": 80} for name in (STABLE, CANARY, "static")]
    rewritten, matched, splits = (pair(to, share, whole=100, unsaid=False) for _ in range(3))
    rewritten[1]["action"] = {"proxy": {"upstream": CANARY, "rewritePath": "/next"}}
    routes = [
        {"path": "/static", "action": {"pass": "static"}},
        {"path": "/pay", "splits": rewritten, "matches": [{"conditions": [COND], "splits": matched}]},
        {"path": "/", "splits": splits},
    ]
    return manifest(VIRTUAL_SERVERS, {"host": "shop.example", "upstreams": upstreams, "routes": routes})


COND = {"header": "X-Frontend", "value": "shop"}


def virtual_server_lists(obj: Manifest) -> list[list[Manifest]]:
    routes = obj["spec"]["routes"]
    inner = [match["splits"] for route in routes for match in route.get("matches", ())]
    return [route["splits"] for route in routes if "splits" in route] + inner


# What is the same of all


def plain_share(default: int) -> Callable[[list[Manifest]], float]:
    def share(backends: list[Manifest]) -> float:
        weights = [one.get("weight", default) for one in backends]
        return weights[_canary(backends)] * FULL / sum(weights)

    return share


def _canary(backends: list[Manifest]) -> int:
    return next(at for at, one in enumerate(backends) if CANARY in f"{one}")


def adapter(
    name: str,
    crds: str,
    git: Callable[[int], Manifest],
    lists: Lists,
    traffic: Manifest,
    *,
    kind: Any,
    share: Callable[[list[Manifest]], float],
    also: tuple[Refused, ...] = (),
    **more: Any,
) -> Adapter:
    def alone(without: str) -> Manifest:
        changed = deepcopy(git(0))
        for backends in lists(changed):
            del backends[_canary(backends) if without == CANARY else 0]
        return changed

    field, settings = next(iter(traffic.items()))
    router = {field: {**settings, next(iter(settings)): "gone"}}
    refused = (
        Refused("sticky", {"traffic": {**traffic, "sticky": STICKY}}, "sticky"),
        Refused("cohort", {"stages": WITH_COHORT}, "its cohort needs a route of its own"),
        Refused("no such object", {"traffic": {**traffic, **router}}, f"{kind.kind} "),
        *also,
    )
    if crds != "contour":  # there lists() is not of the object's own lists
        refused = (*refused, Refused("stable alone", {}, "with weight 0", alone(CANARY)))
    return Adapter(
        name=name,
        crds=(crds,),
        resource=kind,
        traffic=traffic,
        git=git,
        share=lambda obj: max(share(backends) for backends in lists(obj)),
        blank=without_weights(lists),
        keep=with_live_weights(lists),
        refused=refused,
        **more,
    )


ADAPTERS = (
    adapter(
        "istio",
        "istio",
        virtual_service,
        istio_lists,
        {"istio": {"virtualService": ROLLOUT, "settle": "0s"}},
        kind=VIRTUAL_SERVICES,
        share=plain_share(0),
        settles=1.2,
    ),
    adapter(
        "contour",
        "contour",
        http_proxy,
        contour_lists,
        {"contour": {"httpProxy": ROLLOUT}},
        kind=HTTP_PROXIES,
        share=contour_share,
        status=contour_status,
    ),
    adapter(
        "traefik, weighted",
        "traefik",
        traefik_service,
        traefik_lists,
        {"traefik": {"traefikService": ROLLOUT, "settle": "0s"}},
        kind=TRAEFIK_SERVICES,
        share=plain_share(1),
        settles=1.2,
        contested=False,
    ),
    adapter(
        "traefik, by address",
        "traefik",
        by_address,
        traefik_lists,
        {"traefik": {"traefikService": ROLLOUT, "settle": "0s"}, "sticky": {"clientIP": True}},
        kind=TRAEFIK_SERVICES,
        share=plain_share(1),
        settles=1.2,
        contested=False,
    ),
    adapter(
        "traefik, IngressRoute",
        "traefik",
        ingress_route,
        ingress_route_lists,
        {"traefik": {"ingressRoute": ROLLOUT, "settle": "0s"}},
        kind=INGRESS_ROUTES,
        share=plain_share(1),
        settles=1.2,
        contested=False,
    ),
    adapter(
        "virtualServer",
        "nginx-ingress",
        virtual_server,
        virtual_server_lists,
        {"virtualServer": {"virtualServer": ROLLOUT, "settle": "3s"}},
        kind=VIRTUAL_SERVERS,
        share=plain_share(0),
        weights=(100, 500, 2500, 10_000, 0),
        also=(Refused("half a per cent", {"stages": HALF_PER_CENT}, "choose 1%"),),
        status=lambda _: {"state": "Valid", "reason": "AddedOrUpdated", "message": ""},
        settles=4.2,
    ),
)
