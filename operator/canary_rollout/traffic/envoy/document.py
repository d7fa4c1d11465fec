"""``envoy.json``: everything an agent beside Envoy has to know, and the only contract with it.

Data alone: the agent makes Envoy's resources of it, so nothing in it can mean anything to Envoy but what it is.
"""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from canary_rollout.model.routing import Pin, RequestHeaders, ResponseHeaders, Sticky
from canary_rollout.traffic.nginx.document import RouteDocument

ENVOY_KEY: Final = "envoy.json"


class Upstream(BaseModel):
    """Where a Service answers.

    Attributes:
        address: IP address.
        port: TCP port.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    address: str = Field(max_length=45)
    port: int = Field(ge=1, le=65535)


class EnvoyDocument(RouteDocument):
    """What every Envoy of one CanaryRollout should serve.

    Attributes:
        stable: stable's Service.
        canary: the canary's Service.
        sticky: how tenants are told apart; ``None``: each request anew.
        pin: header by which a client chooses; ``None``: nobody can.
        request_headers: names of the headers that tell the app.
        response_headers: names of the headers that tell the client.
        trusted_proxies: networks whose X-Forwarded-For is believed.
    """

    stable: Upstream
    canary: Upstream
    sticky: Sticky | None = None
    pin: Pin | None = None
    request_headers: RequestHeaders = Field(default_factory=RequestHeaders)
    response_headers: ResponseHeaders = Field(default_factory=ResponseHeaders)
    trusted_proxies: tuple[str, ...] = ()
