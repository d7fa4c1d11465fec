"""What both ways of using Gateway API share: the kind, when a write counts, what no route can express."""

from collections.abc import Iterator

from canary_rollout.kube.port import GRPC_ROUTES, HTTP_ROUTES, Object
from canary_rollout.model.routers import GatewayApiTraffic
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic.foreign import Writer, settled_at, status_written_at
from canary_rollout.traffic.gateway_api_accepted import pending
from canary_rollout.traffic.object_router import Confirmation, Place


def place_of(settings: GatewayApiTraffic) -> Place:
    """The HTTPRoute or GRPCRoute."""
    http = settings.http_route is not None
    kind, name = (HTTP_ROUTES, settings.http_route) if http else (GRPC_ROUTES, settings.grpc_route)
    field = "traffic.gatewayAPI.httpRoute" if http else "traffic.gatewayAPI.grpcRoute"
    return Place(kind, f"{name}", field, ("spec", "rules"), "Gateway API")


def confirmation(route: Object, writer: Writer, settle: float | None, now: float) -> Confirmation:
    """What the route's controllers have reported, or silence that counts as well (see :func:`gateway_api_accepted.pending`).

    Args:
        route: as the API server has it.
        writer: of its rules.
        settle: seconds after which silence counts; ``None``: it never does.
        now: POSIX seconds.
    """
    at = None if settle is None else settled_at(writer, settle)
    to_come = at is not None and at > now
    missing = pending(route, None if at is None else not to_come)
    return Confirmation(missing, status_written_at(route), at if to_come else None)


def sticky_problems(spec: CanaryRolloutSpec) -> Iterator[str]:
    """Why tenants cannot be kept on a version."""
    if spec.traffic.sticky is not None:
        yield (
            "Gateway API decides each request by itself; its sessionPersistence is experimental and keeps people on the "
            "canary even at weight 0: remove traffic.sticky, or use the nginx or envoy router"
        )
