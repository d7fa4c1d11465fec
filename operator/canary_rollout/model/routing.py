"""Traffic: the one router that writes the weights, and how requests are told apart."""

from typing import Final, Literal, Self

from pydantic import ConfigDict, Field, StrictInt, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import ControllerVersion, DnsLabel, DnsName, HeaderName, OptionalHeaderName, SpecModel
from canary_rollout.model.units import Duration, SecondOrMore

_ONE_KEY: Final = "sticky names exactly one of header and cookie"


class Sticky(SpecModel):
    """The same tenant always gets the same version (within a weight; never leaves the canary as the weight rises)."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(cel.only_one("header", "cookie"), _ONE_KEY, f"'{_ONE_KEY}; found ' + " + cel.found("header", "cookie"))
        )
    )

    header: HeaderName | None = Field(None, description="Request header that names the tenant, such as X-Tenant-ID.")
    cookie: HeaderName | None = Field(None, description="Cookie that names the tenant, instead of a header.")
    fallback: Literal["clientIP", "request"] = Field(
        "request",
        description="What decides when the header or cookie is absent. clientIP: the client's address. request: each "
        "request anew.",
    )

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if (self.header is None) == (self.cookie is None):
            raise ValueError(f"{_ONE_KEY}; found {'none' if self.header is None else 'header and cookie'}")
        return self


class ResponseHeaders(SpecModel):
    """Names of the headers that tell the client and the app which version answered; an empty string switches one off."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                "self.cohort == '' || self.cohort.lowerAscii() != self.version.lowerAscii()",
                "cohort and version are told in different headers: rename one",
            )
        )
    )

    cohort: OptionalHeaderName = Field("X-Canary-Cohort", description='Header with the cohort; "" switches it off.')
    version: OptionalHeaderName = Field("X-Canary-Version", description='Header with the version; "" switches it off.')

    @model_validator(mode="after")
    def _different(self) -> Self:
        if self.cohort and self.cohort.lower() == self.version.lower():
            raise ValueError("cohort and version are told in different headers: rename one")
        return self


class NginxTraffic(SpecModel):
    """Our own nginx with the agent beside it."""

    service: DnsLabel = Field(
        description="Service that selects the nginx pods; all of them must confirm before a step counts."
    )
    config_map: DnsName | None = Field(
        None, description="ConfigMap the operator writes for the agents. Default: the CanaryRollout's name plus -nginx."
    )
    listen: StrictInt = Field(8080, ge=1024, le=65535, description="Port nginx listens on.")
    stale_after: SecondOrMore = Field(
        default=120.0,
        description="A proxy whose agent could not renew its lease for this long serves stable only, until it can.",
    )
    mode: Literal["auto", "njs", "reload"] = Field(
        "auto",
        description="How weights reach nginx. njs: in shared memory, without a reload. reload: split_clients and a "
        "reload. auto: njs where nginx has it.",
    )


class IngressNginxTraffic(SpecModel):
    """The community ingress-nginx controller: a canary Ingress beside the user's own."""

    ingress: DnsName = Field(description="Your Ingress that routes to the stable Service; it is never changed.")
    settle: Duration = Field(
        default=5.0, description="Time after a write until the controller is taken to have it; it reports nothing."
    )
    controller_version: ControllerVersion | None = Field(
        None,
        description="Version of the controller, such as 1.12.1. Needed for weights that are no whole per cent: before "
        "1.7.0 it ignores canary-weight-total, and 0.5% would be 50%.",
    )


ROUTERS: Final = {"nginx": "nginx", "ingressNginx": "ingress_nginx"}
"""Routers as the resource names them, and the field of :class:`Traffic` that holds each."""

_ONE_ROUTER: Final = "traffic names exactly one router"
_NO_STICKY_HEADER: Final = (
    "ingressNginx decides each request by itself and cannot keep tenants by a header: remove sticky.header, or use the "
    "nginx router"
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
        )
    )

    nginx: NginxTraffic | None = Field(
        None, description="Router: our own nginx with the agent beside it. Name exactly one router."
    )
    ingress_nginx: IngressNginxTraffic | None = Field(
        None, description="Router: the community ingress-nginx controller. Name exactly one router."
    )
    sticky: Sticky | None = Field(
        None, description="Keep each tenant on one version. Absent: every request is decided by itself."
    )
    response_headers: ResponseHeaders = Field(
        default_factory=ResponseHeaders,
        description="Names of the response headers that say which version answered; the app upstream is told as well.",
    )

    @model_validator(mode="after")
    def _one_router(self) -> Self:
        given = [name for name, field in ROUTERS.items() if getattr(self, field) is not None]
        if len(given) != 1:
            raise ValueError(f"{_ONE_ROUTER} ({' or '.join(ROUTERS)}); found {' and '.join(given) or 'none'}")
        if self.ingress_nginx is not None and self.sticky is not None and self.sticky.header is not None:
            raise ValueError(_NO_STICKY_HEADER)
        return self

    @property
    def router(self) -> str:
        """Name of the one router that is set, as in the resource (``nginx``, ``ingressNginx``)."""
        return "nginx" if self.nginx is not None else "ingressNginx"
