"""The routers a CanaryRollout may name: one model per data plane, each only what that data plane needs to be told."""

from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, StrictBool, StrictInt, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import (
    ControllerVersion,
    DnsLabel,
    DnsName,
    Hostname,
    Network,
    SafeValue,
    SpecModel,
    UrlPath,
)
from canary_rollout.model.units import Duration, SecondOrMore

SettingName = Annotated[str, Field(pattern=r"^[a-zA-Z][A-Za-z0-9]{0,62}$", max_length=63)]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]


def _one_of(*fields: str) -> Rule:
    text = f"name exactly one of {' and '.join(fields)}"
    return Rule(cel.only_one(*fields), text, f"'{text}; found ' + " + cel.found(*fields))


_WHO: Final = "name the proxies: service for pods of this cluster, proxies for those outside, or both"
_PROXIES: Final = Rule("has(self.service) || (has(self.proxies) && self.proxies.size() > 0)", _WHO)


class AgentTraffic(SpecModel):
    """What every proxy of our own, with the agent beside it, has in common."""

    model_config = ConfigDict(json_schema_extra=cel.rules(_PROXIES))

    service: DnsLabel | None = Field(
        None, description="Service that selects the proxy's pods; all of them must confirm before a step counts."
    )
    proxies: tuple[DnsLabel, ...] = Field(
        (),
        max_length=64,
        description="Proxies outside the cluster (a host, a VM), by the name their agent was given; all of them must "
        "confirm too.",
    )
    via: Literal["clusterIP", "loadBalancer"] = Field(
        "clusterIP",
        description="How the proxies reach both Services. loadBalancer: by the address in the Service's status, for "
        "proxies outside the cluster.",
    )
    listen: StrictInt = Field(8080, ge=1024, le=65535, description="Port the proxy listens on.")
    stale_after: SecondOrMore = Field(
        default=120.0,
        description="A proxy whose agent could not renew its lease for this long serves stable only, until it can.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (),
        max_length=16,
        description="Proxies in front whose X-Forwarded-For is believed when the client's address is asked for. "
        "Default: none, the address that connects counts.",
    )

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.service is None and not self.proxies:
            raise ValueError(_WHO)
        return self


class DirectPaths(SpecModel):
    """Paths that lead to one version whatever the weight, for people who compare; each is cut off before the app sees it."""

    stable: UrlPath = Field("/stable", description="Path before that of the app which leads to stable.")
    canary: UrlPath = Field(
        "/canary", description="Path before that of the app which leads to the canary while it serves at all."
    )
    allow_from: tuple[Network, ...] = Field(
        min_length=1, max_length=16, description="Addresses and networks that may use them; everybody else gets 403."
    )


class NginxTraffic(AgentTraffic):
    """Our own nginx with the agent beside it."""

    config_map: DnsName | None = Field(
        None, description="ConfigMap the operator writes for the agents. Default: the CanaryRollout's name plus -nginx."
    )
    mode: Literal["auto", "njs", "reload"] = Field(
        "auto",
        description="How weights reach nginx. njs: in shared memory, without a reload. reload: split_clients and a "
        "reload. auto: njs where nginx has it.",
    )
    direct_paths: DirectPaths | None = Field(
        None, description="Paths to one version directly, such as /stable/… and /canary/…. Absent: there are none."
    )


class IngressNginxTraffic(SpecModel):
    """The community ingress-nginx controller: a canary Ingress beside the user's own."""

    ingress: DnsName = Field(description="Your Ingress that routes to the stable Service; it is never changed.")
    settle: Duration = Field(
        default=5.0, description="Time after a write until the controller is taken to have it; it reports nothing."
    )
    controller_version: ControllerVersion | None = Field(
        None,
        description="Version of the controller, such as 1.12.1, where the image of its Deployment does not tell it. Needed "
        "for weights that are no whole per cent: before 1.7.0 it ignores canary-weight-total, and 0.5% would be 50%.",
    )
    controller_namespace: DnsLabel = Field(
        "ingress-nginx",
        description="Namespace of the controller's Deployment (label app.kubernetes.io/name: ingress-nginx), whose image "
        "tells its version.",
    )


class ParentRef(SpecModel):
    """A Gateway that an operator-created route attaches to."""

    name: DnsName = Field(description="Name of the Gateway.")
    namespace: DnsLabel | None = Field(None, description="Its namespace. Default: the CanaryRollout's.")
    section_name: DnsName | None = Field(None, description="One listener of it. Default: all that fit.")
    port: Port | None = Field(None, description="One port of it. Default: all that fit.")


class OwnedRoute(SpecModel):
    """A route that the operator creates and owns whole."""

    parent_refs: tuple[ParentRef, ...] = Field(min_length=1, max_length=8, description="Gateways it attaches to.")
    hostnames: tuple[Hostname, ...] = Field((), max_length=16, description="Host names it serves. Default: all.")
    paths: tuple[UrlPath, ...] = Field(("/",), min_length=1, max_length=8, description="Path prefixes it serves.")
    port: Port | None = Field(None, description="Port of both Services. Needed where they have more than one.")
    backend_filters: StrictBool = Field(
        default=False,
        description="true: your implementation takes filters on single backends (Extended in Gateway API); then the app "
        "and the client are told in headers which version answers.",
    )


class GatewayApiTraffic(SpecModel):
    """Gateway API: an HTTPRoute or GRPCRoute, yours or one the operator creates."""

    model_config = ConfigDict(json_schema_extra=cel.rules(_one_of("httpRoute", "grpcRoute")))

    http_route: DnsName | None = Field(None, description="Name of the HTTPRoute.")
    grpc_route: DnsName | None = Field(None, description="Name of the GRPCRoute, instead of an HTTPRoute.")
    create: OwnedRoute | None = Field(
        None,
        description="The operator creates the route and owns it whole; what GitOps users are told to take. Absent: the "
        "route is yours, and only weights in it are changed.",
    )
    rule: DnsName | None = Field(
        None, description="Name of the one rule to change in your route. Default: all rules that name both Services."
    )
    cohort_rules: StrictBool = Field(
        default=False, description="true: rules for cohort members may be added to your route, and removed again."
    )
    regular_expressions: StrictBool = Field(
        default=False,
        description="true: your implementation matches headers by regular expression, which Gateway API leaves to it. "
        "Needed for cohorts by cookie, prefix or pattern.",
    )
    settle: Duration | None = Field(
        None,
        description="Only for an implementation that reports nothing, or conditions without observedGeneration (Linkerd): "
        "time after a write until it is taken to have it.",
    )

    @model_validator(mode="after")
    def _one_route(self) -> Self:
        if (self.http_route is None) == (self.grpc_route is None):
            raise ValueError("name exactly one of httpRoute and grpcRoute")
        return self


class Subsets(SpecModel):
    """Two subsets of one host (DestinationRule), instead of two Services."""

    host: DnsName = Field(description="Host that both subsets belong to, as the route names it.")
    stable: SafeValue = Field(description="Subset of the stable pods.")
    canary: SafeValue = Field(description="Subset of the canary pods.")


class IstioTraffic(SpecModel):
    """Istio: weights in a VirtualService of yours."""

    virtual_service: DnsName = Field(description="Your VirtualService; only weights in it are changed.")
    route: SafeValue | None = Field(
        None, description="Name of the one http route to change. Default: all that name both versions."
    )
    subsets: Subsets | None = Field(None, description="Versions as subsets of one host. Default: the two Services.")
    cohort_rules: StrictBool = Field(
        default=False,
        description="true: http routes for cohort members and pins may be added to your VirtualService, and removed again.",
    )
    mirror: StrictBool = Field(
        default=False, description="true: mirrors to the canary may be added to those http routes, and removed again."
    )
    settle: Duration = Field(
        default=5.0, description="Time after a write until the proxies are taken to have it; nothing is reported."
    )


class TraefikTraffic(SpecModel):
    """Traefik: weights in a TraefikService or an IngressRoute of yours."""

    model_config = ConfigDict(json_schema_extra=cel.rules(_one_of("traefikService", "ingressRoute")))

    traefik_service: DnsName | None = Field(None, description="Your weighted TraefikService.")
    ingress_route: DnsName | None = Field(None, description="Your IngressRoute, instead of a TraefikService.")
    settle: Duration = Field(
        default=5.0, description="Time after a write until the proxies are taken to have it; nothing is reported."
    )

    @model_validator(mode="after")
    def _one_object(self) -> Self:
        if (self.traefik_service is None) == (self.ingress_route is None):
            raise ValueError("name exactly one of traefikService and ingressRoute")
        return self


class VirtualServerTraffic(SpecModel):
    """F5 NGINX Ingress Controller: splits of a route in a VirtualServer of yours. Whole per cents only."""

    virtual_server: DnsName = Field(description="Your VirtualServer; only the splits of its routes are changed.")
    path: UrlPath | None = Field(
        None, description="Path of the one route to change. Default: all that name both Services."
    )
    settle: Duration = Field(default=5.0, description="Time after a write until nginx is taken to have reloaded.")


class ContourTraffic(SpecModel):
    """Contour: weights in an HTTPProxy of yours."""

    http_proxy: DnsName = Field(description="Your HTTPProxy; only weights in it are changed.")


class EnvoyTraffic(AgentTraffic):
    """A plain Envoy with the agent beside it: weights by file, kept tenants by hash."""

    config_map: DnsName | None = Field(
        None, description="ConfigMap the operator writes for the agents. Default: the CanaryRollout's name plus -envoy."
    )


class ServiceTraffic(SpecModel):
    """One Service over the pods of both versions: the share is the ratio of ready pods, per connection."""

    service: DnsLabel = Field(description="Service that selects the pods of both versions.")
    replicas: StrictInt = Field(
        ge=1, le=10_000, description="Pods of both versions together; weights must be whole numbers of them."
    )
    settle: Duration = Field(default=5.0, description="Time after the pods are ready until every node routes to them.")


class Setting(SpecModel):
    """One thing a custom router wants to know. It comes to that router as written: it must check it itself."""

    name: SettingName = Field(description="Name of the setting.")
    value: Annotated[str, Field(max_length=253)] = Field(description="Its value.")


class CustomTraffic(SpecModel):
    """A router of somebody else's, installed beside the operator (entry point ``canary_rollout.routers``)."""

    router: DnsLabel = Field(description="Name of the router, as its package registers it.")
    settings: tuple[Setting, ...] = Field(
        (), max_length=16, description="What that router wants to know; it says what."
    )


ROUTERS: Final = {
    "nginx": "nginx",
    "ingressNginx": "ingress_nginx",
    "gatewayAPI": "gateway_api",
    "istio": "istio",
    "traefik": "traefik",
    "virtualServer": "virtual_server",
    "contour": "contour",
    "envoy": "envoy",
    "service": "service",
    "custom": "custom",
}
"""Routers as the resource names them, and the field of ``Traffic`` that holds each."""
