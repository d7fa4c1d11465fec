"""The spec of a route that the operator owns, every default written out, so that it reads back as it was written."""

import re
from dataclasses import dataclass
from typing import Final

from canary_rollout.kube.port import GRPC_ROUTES, Object, Resource
from canary_rollout.model.route import Route
from canary_rollout.model.routers import OwnedRoute, ParentRef
from canary_rollout.model.routing import RequestHeaders, ResponseHeaders, Traffic
from canary_rollout.model.units import FULL
from canary_rollout.traffic.gateway_api_members import check_size, member_rules, weighted
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.port import RouterError

_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]{0,255}")


@dataclass(frozen=True, slots=True)
class Backends:
    """Service and port of both versions."""

    stable: tuple[str, int]
    canary: tuple[str, int]


def render(resource: Resource, create: OwnedRoute, traffic: Traffic, route: Route, backends: Backends) -> Object:
    """The spec.

    Raises:
        RouterError: what the kind of route cannot express.
    """
    stable = _backend(backends.stable, create, traffic, version=route.stable_revision)
    canary = _backend(backends.canary, create, traffic, version=route.revision)
    base: Object = {"matches": _matches(resource, create), "backendRefs": weighted([stable], [canary], route.weight)}
    if resource == GRPC_ROUTES:
        del base["matches"]
    if route.mirror:
        base["filters"] = [_mirror(backends.canary, route.mirror)]
    members: list[Object] = []
    if route.weight > 0:
        members = member_rules(base, "", traffic, route.cohort, (stable, canary), full=route.weight >= FULL)
    # Rule names are younger than many an installed CRD, and nobody needs them in a route that is all ours.
    rules = [*({key: part for key, part in rule.items() if key != "name"} for rule in members), base]
    check_size(rules)
    spec: Object = {"parentRefs": [_parent(parent) for parent in create.parent_refs], "rules": rules}
    if create.hostnames:
        spec["hostnames"] = [
            validate.dns_name("hostnames", name.removeprefix("*.")) and name for name in create.hostnames
        ]
    return spec


def _parent(parent: ParentRef) -> Object:
    raw: Object = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
    names = (("name", parent.name), ("namespace", parent.namespace), ("sectionName", parent.section_name))
    raw |= {key: validate.dns_name(f"parentRefs.{key}", value) for key, value in names if value is not None}
    if parent.port is not None:
        raw["port"] = validate.whole_number("parentRefs.port", parent.port, 1, 65535)
    return raw


def _matches(resource: Resource, create: OwnedRoute) -> list[Object]:
    if resource == GRPC_ROUTES and create.paths != ("/",):
        raise RouterError(
            "a GRPCRoute matches services and methods, not paths: drop traffic.gatewayAPI.create.paths, or write the route "
            "yourself"
        )
    for path in create.paths:
        if not _PATH.fullmatch(path):
            raise validate.UnsafeValueError("paths", path, "'/', then letters, digits, '.', '_', '~', '-' and '/'")
    return [{"path": {"type": "PathPrefix", "value": path}} for path in create.paths]


def _backend(service: tuple[str, int], create: OwnedRoute, traffic: Traffic, *, version: str) -> Object:
    name, port = service
    backend: Object = {
        "group": "",
        "kind": "Service",
        "name": validate.dns_name("service", name),
        "port": validate.whole_number("port", port, 1, 65535),
    }
    filters = (
        _told(traffic.request_headers, traffic.response_headers, version) if create.backend_filters and version else []
    )
    if filters:
        backend["filters"] = filters
    return backend


def _told(request: RequestHeaders, response: ResponseHeaders, version: str) -> list[Object]:
    """Filters that tell the app and the client which version answers."""
    found: list[Object] = []
    upstream: Object = {}
    if request.version:
        upstream["set"] = [
            {"name": validate.own_header_name("requestHeaders.version", request.version), "value": version}
        ]
    if request.baggage:
        upstream["add"] = [{"name": "baggage", "value": f"canary.version={version}"}]
    if upstream:
        found.append({"type": "RequestHeaderModifier", "requestHeaderModifier": upstream})
    if response.version:
        name = validate.own_header_name("responseHeaders.version", response.version)
        found.append(
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": name, "value": version}]}}
        )
    return found


def _mirror(canary: tuple[str, int], share: int) -> Object:
    name, port = canary
    mirror: Object = {"backendRef": {"group": "", "kind": "Service", "name": name, "port": port}}
    if share < FULL:
        mirror["fraction"] = {"numerator": share, "denominator": FULL}
    return {"type": "RequestMirror", "requestMirror": mirror}
