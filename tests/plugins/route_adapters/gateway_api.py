"""Gateway API: the user's HTTPRoute and GRPCRoute, and an HTTPRoute of the operator's own."""

from copy import deepcopy
from typing import Any

from canary_rollout.kube.port import GRPC_ROUTES, HTTP_ROUTES

from .base import CANARY, ROLLOUT, STABLE, Adapter, Manifest, Refused

FULL = 10_000


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


def blank(route: Manifest) -> Manifest:
    without = deepcopy(route["spec"])
    for refs in splits({"spec": without}):
        for ref in refs:
            ref.pop("weight", None)
    return without


def keep(manifest: Manifest, live: Manifest) -> Manifest:
    """``.spec.rules[].backendRefs[].weight`` ignored."""
    kept = deepcopy(manifest)
    for refs, there in zip(splits(kept), splits(live), strict=True):
        for ref, one in zip(refs, there, strict=True):
            ref["weight"] = one["weight"]
    return kept


def status(route: Manifest) -> Manifest:
    generation, refs = route["metadata"]["generation"], route["spec"].get("parentRefs") or []
    conditions = [
        {
            "type": kind,
            "status": "True",
            "reason": kind,
            "message": "",
            "observedGeneration": generation,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for kind in ("Accepted", "ResolvedRefs")
    ]
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


STICKY: dict[str, Any] = {"header": "X-Tenant-ID"}


def stages(**cohort: Any) -> list[Manifest]:
    return [
        {"name": "some", "weight": "5%", "hold": "1h", "cohort": cohort},
        {"name": "all", "weight": "100%", "hold": "1h"},
    ]


USERS = {"gatewayAPI": {"httpRoute": ROLLOUT}}
CREATED = {
    "gatewayAPI": {"httpRoute": ROLLOUT, "create": {"parentRefs": [{"name": "front"}], "hostnames": ["shop.example"]}}
}
MEMBERS = {"header": "X-Cohort", "values": ["internal"]}
CROWD = {"header": "X-Cohort", "values": [f"group{number}" for number in range(64)]}
MANY_PATHS = {**CREATED["gatewayAPI"]["create"], "paths": [f"/{letter}" for letter in "abcdefgh"]}

ADAPTERS = (
    Adapter(
        name="gatewayAPI, your HTTPRoute",
        crds=("gateway-api",),
        resource=HTTP_ROUTES,
        traffic=USERS,
        git=http_route,
        share=share,
        blank=blank,
        keep=keep,
        status=status,
        refused=(
            Refused("sticky", {"traffic": {**USERS, "sticky": STICKY}}, "sessionPersistence is experimental"),
            Refused("cohort", {"stages": stages(**MEMBERS)}, "cohortRules to true"),
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
    Adapter(
        name="gatewayAPI, your GRPCRoute",
        crds=("gateway-api",),
        resource=GRPC_ROUTES,
        traffic={"gatewayAPI": {"grpcRoute": ROLLOUT}},
        git=grpc_route,
        share=share,
        blank=blank,
        keep=keep,
        status=status,
    ),
    Adapter(
        name="gatewayAPI, an HTTPRoute of its own",
        crds=("gateway-api",),
        resource=HTTP_ROUTES,
        traffic=CREATED,
        git=http_route,
        share=share,
        blank=blank,
        keep=keep,
        status=status,
        owned=True,
        refused=(
            Refused("sticky", {"traffic": {**CREATED, "sticky": STICKY}}, "sessionPersistence is experimental"),
            Refused("pattern", {"stages": stages(header="User-Agent", pattern="Mozilla*")}, "regularExpressions"),
            Refused("cookie", {"stages": stages(cookie="cohort", values=["internal"])}, "regularExpressions"),
            Refused(
                "too many",
                {"stages": stages(**CROWD), "traffic": {"gatewayAPI": {"httpRoute": ROLLOUT, "create": MANY_PATHS}}},
                "Gateway API takes 16",
            ),
            Refused("somebody else's", {}, "is not ours", http_route(0)),
        ),
    ),
    Adapter(
        name="gatewayAPI, a GRPCRoute of its own",
        crds=("gateway-api",),
        resource=GRPC_ROUTES,
        traffic={"gatewayAPI": {"grpcRoute": ROLLOUT, "create": {"parentRefs": [{"name": "front"}]}}},
        git=grpc_route,
        share=share,
        blank=blank,
        keep=keep,
        status=status,
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
