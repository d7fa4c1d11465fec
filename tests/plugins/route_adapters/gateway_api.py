"""Gateway API: the user's HTTPRoute and GRPCRoute, and an HTTPRoute of the operator's own."""

from copy import deepcopy
from typing import Any

from canary_rollout.kube.port import GRPC_ROUTES, HTTP_ROUTES, Resource

from .base import (
    CANARY,
    FULL,
    ROLLOUT,
    STABLE,
    STICKY,
    Adapter,
    Manifest,
    Refused,
    condition,
    two_stages,
    with_live_weights,
    without_weights,
)


def backend(name: str, weight: int | None) -> Manifest:
    return {"name": name, "port": 80} | ({} if weight is None else {"weight": weight})


def backends(share: int) -> list[Manifest]:
    """Without weights for one half, as people write it: Gateway API counts 1 for each."""
    stable, canary = (None, None) if share == FULL // 2 else (FULL - share, share)
    return [backend(STABLE, stable), backend(CANARY, canary)]


def http_route(share: int) -> Manifest:
    """Two rules with both Services, one without, filters, timeouts, another backend."""
    split = {"backendRefs": backends(share)}
    header = {"name": "X-Frontend", "value": "shop"}
    return {
        "apiVersion": HTTP_ROUTES.api_version,
        "kind": "HTTPRoute",
        "metadata": {"name": ROLLOUT, "labels": {"team": "shop"}, "annotations": {"example.com/owner": "us"}},
        "spec": {
            "parentRefs": [{"name": "front"}],
            "hostnames": ["shop.example"],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/static"}}],
                    "backendRefs": [backend("static", 3)],
                },
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/pay"}}, {"method": "PUT"}],
                    "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [header]}}],
                    "timeouts": {"request": "7s"},
                    **split,
                },
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], **split},
            ],
        },
    }


def grpc_route(share: int) -> Manifest:
    method = {"method": {"service": "shop.Checkout", "method": "Pay"}}
    return {
        "apiVersion": GRPC_ROUTES.api_version,
        "kind": "GRPCRoute",
        "metadata": {"name": ROLLOUT},
        "spec": {"parentRefs": [{"name": "front"}], "rules": [{"matches": [method], "backendRefs": backends(share)}]},
    }


def splits(route: Manifest) -> list[list[Manifest]]:
    found = [rule.get("backendRefs") or [] for rule in route["spec"]["rules"]]
    return [refs for refs in found if {STABLE, CANARY} <= {ref["name"] for ref in refs}]


def share(route: Manifest) -> float:
    """The largest share that any rule gives."""
    shares = []
    for refs in splits(route):
        weights = {ref["name"]: ref.get("weight", 1) for ref in refs}
        shares.append(weights[CANARY] * FULL / sum(weights.values()))
    return max(shares)


def status(route: Manifest) -> Manifest:
    refs = route["spec"].get("parentRefs") or []
    conditions = [condition(kind, route) for kind in ("Accepted", "ResolvedRefs")]
    return {
        "parents": [
            {"parentRef": ref, "controllerName": "example.com/gateway", "conditions": conditions} for ref in refs
        ]
    }


def without(route: Manifest, name: str) -> Manifest:
    changed = deepcopy(route)
    for rule in changed["spec"]["rules"]:
        rule["backendRefs"] = [ref for ref in rule["backendRefs"] if ref["name"] != name]
    return changed


def with_third(route: Manifest) -> Manifest:
    changed = deepcopy(route)
    changed["spec"]["rules"][-1]["backendRefs"] = [backend(STABLE, 8), backend(CANARY, 0), backend("static", 2)]
    return changed


def adapter(name: str, kind: Resource, traffic: Manifest, **more: Any) -> Adapter:
    return Adapter(
        name=f"gatewayAPI, {name}",
        crds=("gateway-api",),
        resource=kind,
        traffic=traffic,
        git=http_route if kind is HTTP_ROUTES else grpc_route,
        share=share,
        blank=without_weights(splits),
        keep=with_live_weights(splits),
        status=status,
        **more,
    )


USERS = {"gatewayAPI": {"httpRoute": ROLLOUT}}
CREATED = {
    "gatewayAPI": {"httpRoute": ROLLOUT, "create": {"parentRefs": [{"name": "front"}], "hostnames": ["shop.example"]}}
}
MEMBERS = {"header": "X-Cohort", "values": ["internal"]}
CROWD = {"header": "X-Cohort", "values": [f"group{number}" for number in range(64)]}
MANY_PATHS = {**CREATED["gatewayAPI"]["create"], "paths": [f"/{letter}" for letter in "abcdefgh"]}

ADAPTERS = (
    adapter(
        "your HTTPRoute",
        HTTP_ROUTES,
        USERS,
        refused=(
            Refused("sticky", {"traffic": {**USERS, "sticky": STICKY}}, "sessionPersistence is experimental"),
            Refused("cohort", {"stages": two_stages(**MEMBERS)}, "cohortRules to true"),
            Refused("stable alone", {}, "with weight 0", without(http_route(0), CANARY)),
            Refused("neither", {}, "has no rule that names", without(without(http_route(0), CANARY), STABLE)),
            Refused("others", {}, "add up to 10000", with_third(http_route(0))),
            Refused("no such route", {"traffic": {"gatewayAPI": {"httpRoute": "gone"}}}, "does not exist"),
            Refused(
                "no such rule",
                {"traffic": {"gatewayAPI": {"httpRoute": ROLLOUT, "rule": "gone"}}},
                "no rule named gone",
            ),
        ),
    ),
    adapter(
        "your GRPCRoute",
        GRPC_ROUTES,
        {"gatewayAPI": {"grpcRoute": ROLLOUT}},
    ),
    adapter(
        "an HTTPRoute of its own",
        HTTP_ROUTES,
        CREATED,
        owned=True,
        refused=(
            Refused("sticky", {"traffic": {**CREATED, "sticky": STICKY}}, "sessionPersistence is experimental"),
            Refused("pattern", {"stages": two_stages(header="User-Agent", pattern="Mozilla*")}, "regularExpressions"),
            Refused("cookie", {"stages": two_stages(cookie="cohort", values=["internal"])}, "regularExpressions"),
            Refused(
                "too many",
                {
                    "stages": two_stages(**CROWD),
                    "traffic": {"gatewayAPI": {"httpRoute": ROLLOUT, "create": MANY_PATHS}},
                },
                "Gateway API takes 16",
            ),
            Refused("somebody else's", {}, "is not ours", http_route(0)),
        ),
    ),
    adapter(
        "a GRPCRoute of its own",
        GRPC_ROUTES,
        {"gatewayAPI": {"grpcRoute": ROLLOUT, "create": {"parentRefs": [{"name": "front"}]}}},
        owned=True,
        refused=(
            Refused(
                "paths",
                {"traffic": {"gatewayAPI": {"grpcRoute": ROLLOUT, "create": MANY_PATHS}}},
                "matches services and methods",
            ),
        ),
    ),
)
