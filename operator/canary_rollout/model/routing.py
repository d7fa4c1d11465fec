"""Traffic: the one router that writes the weights, and how requests are told apart."""

from typing import Final, Literal, Self

from pydantic import ConfigDict, Field, StrictBool, ValidationInfo, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import HeaderName, SafeValue, SpecModel, TenantName
from canary_rollout.model.headers import OwnHeaderName
from canary_rollout.model.routers import (
    ROUTERS,
    ContourTraffic,
    CustomTraffic,
    EnvoyTraffic,
    GatewayApiTraffic,
    IngressNginxTraffic,
    IstioTraffic,
    NginxTraffic,
    ServiceTraffic,
    TraefikTraffic,
    VirtualServerTraffic,
)
from canary_rollout.model.stored import is_stored

_ONE_KEY: Final = "sticky names exactly one of header, cookie and clientIP"


class Sticky(SpecModel):
    """The same tenant always gets the same version (within a weight; never leaves the canary as the weight rises)."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                cel.only_one("header", "cookie", "clientIP"),
                _ONE_KEY,
                f"'{_ONE_KEY}; found ' + " + cel.found("header", "cookie", "clientIP"),
            )
        )
    )

    header: HeaderName | None = Field(None, description="Request header that names the tenant, such as X-Tenant-ID.")
    cookie: HeaderName | None = Field(None, description="Cookie that names the tenant, instead of a header.")
    client_ip: Literal[True] | None = Field(
        None, alias="clientIP", description="true: the client's address is the tenant, instead of a header."
    )
    fallback: Literal["clientIP", "request"] = Field(
        "request",
        description="What decides when the header or cookie is absent. clientIP: the client's address. request: each "
        "request anew.",
    )
    allow: tuple[TenantName, ...] = Field(
        (), max_length=256, description="Tenants that are always in the canary while it serves at all."
    )
    deny: tuple[TenantName, ...] = Field(
        (), max_length=256, description="Tenants that are never in the canary below 100%; stronger than allow."
    )

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        given = [
            name
            for name, value in (("header", self.header), ("cookie", self.cookie), ("clientIP", self.client_ip))
            if value is not None
        ]
        if len(given) != 1:
            raise ValueError(f"{_ONE_KEY}; found {' and '.join(given) or 'none'}")
        if self.client_ip and (self.allow or self.deny):
            raise ValueError("allow and deny name tenants: they need header or cookie, not clientIP")
        if both := sorted(set(self.allow) & set(self.deny)):
            raise ValueError(f"a tenant is allowed or denied, not both: {', '.join(both)}")
        return self


class Pin(SpecModel):
    """A header by which a client chooses the version of one request."""

    header: HeaderName = Field(description="Request header to look at, such as X-Canary.")
    canary: SafeValue = Field(
        "always", description="Its value that asks for the canary, while the canary serves at all."
    )
    stable: SafeValue = Field("never", description="Its value that asks for stable.")


_SAME_HEADER: Final = "cohort and version are told in different headers: rename one"


class _Told(SpecModel):
    """Names of two headers."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule("self.cohort == '' || self.cohort.lowerAscii() != self.version.lowerAscii()", _SAME_HEADER)
        )
    )

    cohort: OwnHeaderName = Field("X-Canary-Cohort", description='Header with the cohort; "" switches it off.')
    version: OwnHeaderName = Field("X-Canary-Version", description='Header with the version; "" switches it off.')

    @model_validator(mode="after")
    def _different(self, info: ValidationInfo) -> Self:
        if not is_stored(info.context) and self.cohort and self.cohort.lower() == self.version.lower():
            raise ValueError(_SAME_HEADER)
        return self


class RequestHeaders(_Told):
    """What the app upstream is told about each request."""

    baggage: StrictBool = Field(
        default=False,
        description="true: cohort and version are added to the W3C baggage header too, so that traces can be split by them.",
    )


class ResponseHeaders(_Told):
    """Names of the headers that tell the client and the app which version answered; an empty string switches one off."""


_ONE_ROUTER: Final = "traffic names exactly one router"
_NO_STICKY_HEADER: Final = (
    "ingressNginx decides each request by itself and cannot keep tenants by a header: remove sticky.header, or use the "
    "nginx router"
)
_READ_AND_WRITTEN: Final = (
    "the header that names the tenant, or by which the client chooses, would be overwritten before the app reads it: take "
    "another name in requestHeaders"
)


def _reads_no_told_header(read: str) -> str:
    """CEL expression: the header at ``read`` (of sticky or pin) is none of ``requestHeaders``."""
    where = read.rpartition(".")[0]
    return (
        f"!has({where}) || !has({read}) || !has(self.requestHeaders) || "
        f"self.requestHeaders.cohort.lowerAscii() != {read}.lowerAscii() && "
        f"self.requestHeaders.version.lowerAscii() != {read}.lowerAscii()"
    )


class Traffic(SpecModel):
    """Exactly one router, and how requests are told apart."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                cel.only_one(*ROUTERS),
                f"{_ONE_ROUTER}: {' or '.join(ROUTERS)}",
                f"'{_ONE_ROUTER} ({' or '.join(ROUTERS)}); found ' + " + cel.found(*ROUTERS),
            ),
            Rule(
                "!has(self.ingressNginx) || !has(self.sticky) || !has(self.sticky.header)",
                _NO_STICKY_HEADER,
                field=".sticky",
            ),
            *(
                Rule(_reads_no_told_header(read), _READ_AND_WRITTEN, field=".requestHeaders")
                for read in ("self.sticky.header", "self.pin.header")
            ),
        )
    )

    nginx: NginxTraffic | None = Field(
        None, description="Router: our own nginx with the agent beside it. Name exactly one router."
    )
    ingress_nginx: IngressNginxTraffic | None = Field(
        None, description="Router: the community ingress-nginx controller. Name exactly one router."
    )
    gateway_api: GatewayApiTraffic | None = Field(
        None, alias="gatewayAPI", description="Router: a Gateway API HTTPRoute or GRPCRoute. Name exactly one router."
    )
    istio: IstioTraffic | None = Field(None, description="Router: an Istio VirtualService. Name exactly one router.")
    traefik: TraefikTraffic | None = Field(
        None, description="Router: a TraefikService or IngressRoute. Name exactly one router."
    )
    virtual_server: VirtualServerTraffic | None = Field(
        None, description="Router: a VirtualServer of the F5 NGINX Ingress Controller. Name exactly one router."
    )
    contour: ContourTraffic | None = Field(None, description="Router: a Contour HTTPProxy. Name exactly one router.")
    envoy: EnvoyTraffic | None = Field(
        None, description="Router: a plain Envoy with the agent beside it. Name exactly one router."
    )
    service: ServiceTraffic | None = Field(
        None, description="Router: one Service, the share is the ratio of pods. Name exactly one router."
    )
    custom: CustomTraffic | None = Field(
        None, description="Router: one that is installed beside the operator. Name exactly one router."
    )
    sticky: Sticky | None = Field(
        None, description="Keep each tenant on one version. Absent: every request is decided by itself."
    )
    pin: Pin | None = Field(None, description="A header by which a client chooses the version. Absent: nobody can.")
    response_headers: ResponseHeaders = Field(
        default_factory=ResponseHeaders,
        description="Names of the response headers that say which version answered.",
    )
    request_headers: RequestHeaders = Field(
        default_factory=RequestHeaders, description="Names of the headers by which the app upstream is told."
    )

    @model_validator(mode="after")
    def _one_router(self, info: ValidationInfo) -> Self:
        given = [name for name, field in ROUTERS.items() if getattr(self, field) is not None]
        if len(given) != 1:
            raise ValueError(f"{_ONE_ROUTER} ({' or '.join(ROUTERS)}); found {' and '.join(given) or 'none'}")
        if self.ingress_nginx is not None and self.sticky is not None and self.sticky.header is not None:
            raise ValueError(_NO_STICKY_HEADER)
        if is_stored(info.context):
            return self
        told = {self.request_headers.cohort.lower(), self.request_headers.version.lower()}
        tenant = self.sticky.header if self.sticky is not None else None
        choice = self.pin.header if self.pin is not None else None
        if any(name is not None and name.lower() in told for name in (tenant, choice)):
            raise ValueError(_READ_AND_WRITTEN)
        return self

    @property
    def router(self) -> str:
        """Name of the one router that is set, as in the resource (``nginx``, ``gatewayAPI``, a custom one's own name)."""
        if self.custom is not None:
            return self.custom.router
        return next(name for name, field in ROUTERS.items() if getattr(self, field) is not None)
