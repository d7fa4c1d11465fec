"""``envoy.json``: everything an agent beside Envoy has to know, and the only contract with it.

Data alone: the agent makes Envoy's resources of it, so nothing in it can mean anything to Envoy but what it is.
"""

from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from canary_rollout.model.routing import Pin, RequestHeaders, ResponseHeaders, Sticky
from canary_rollout.model.stored import AS_WRITTEN
from canary_rollout.traffic.nginx.document import RouteDocument

ENVOY_KEY: Final = "envoy.json"
_Headers = TypeVar("_Headers", RequestHeaders, ResponseHeaders)


def _as_written(kind: type[_Headers]) -> BeforeValidator:
    """Names that an earlier version wrote are read, or nobody could tell what the proxies serve; none of them is rendered."""

    def read(raw: Any) -> Any:
        return kind.model_validate(raw, context=AS_WRITTEN) if isinstance(raw, dict) else raw

    return BeforeValidator(read)


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
    request_headers: Annotated[RequestHeaders, _as_written(RequestHeaders)] = Field(default_factory=RequestHeaders)
    response_headers: Annotated[ResponseHeaders, _as_written(ResponseHeaders)] = Field(default_factory=ResponseHeaders)
    trusted_proxies: tuple[str, ...] = ()
