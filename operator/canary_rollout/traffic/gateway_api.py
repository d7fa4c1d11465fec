"""Gateway API: weights in an HTTPRoute or GRPCRoute, one the operator creates or one of the user's."""

from canary_rollout.traffic.gateway_api_created import CreatedRouteRouter
from canary_rollout.traffic.gateway_api_users import UsersRouteRouter
from canary_rollout.traffic.port import Router, RouterContext, RouterError


def gateway_api_router(context: RouterContext) -> Router:
    """The router for ``spec.traffic.gatewayAPI``.

    Raises:
        RouterError: the spec names another router.
    """
    settings = context.spec.traffic.gateway_api
    if settings is None:
        raise RouterError("spec.traffic.gatewayAPI is missing")
    if settings.create is not None:
        return CreatedRouteRouter(context, settings, settings.create)
    return UsersRouteRouter(context, settings)
