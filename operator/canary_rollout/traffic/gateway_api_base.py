"""What both ways of using Gateway API share: the kind, the Services, what no route can express."""

from collections.abc import Iterator
from typing import Final

from canary_rollout.kube.port import GRPC_ROUTES, HTTP_ROUTES, SERVICES, Object, Resource
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.route import Capabilities, Proof
from canary_rollout.model.routers import GatewayApiTraffic
from canary_rollout.traffic.foreign import last_writer
from canary_rollout.traffic.gateway_api_accepted import pending
from canary_rollout.traffic.port import RouterContext, RouterError, Watched
from canary_rollout.traffic.services import find_service

_COARSE: Final = 1.0
"""Seconds: the API server notes the time of a write in whole ones."""
UNKNOWN_COHORT = Cohort.model_construct(header="unknown", cookie=None, values=())
"""Rules for people that are none of this spec's: equal to no cohort anybody wants."""


class GatewayApiBase:
    """What a router for one HTTPRoute or GRPCRoute knows and is told."""

    own = False
    """Whether the route is the operator's."""

    def __init__(self, context: RouterContext, settings: GatewayApiTraffic) -> None:
        self._context = context
        self._settings = settings

    @property
    def resource(self) -> Resource:
        """HTTPRoute or GRPCRoute."""
        return HTTP_ROUTES if self._settings.http_route is not None else GRPC_ROUTES

    @property
    def name(self) -> str:
        """Name of the route."""
        return f"{self._settings.http_route or self._settings.grpc_route}"

    @property
    def where(self) -> str:
        """The route, for people."""
        return f"{self.resource.kind} {self._context.namespace}/{self.name}"

    def capabilities(self) -> Capabilities:
        """0.01 % steps; the controller reports which generation it has taken."""
        proof = Proof.ACCEPTED if self._settings.settle is None else Proof.SETTLE
        return Capabilities(step=1, sticky=False, cohorts=True, proof=proof, mirror=self.own, variants=not self.own)

    def watched(self) -> tuple[Watched, ...]:
        """The route and both Services."""
        namespace, services = self._context.namespace, self._context.spec.workload
        return (
            Watched(self.resource, namespace, self.name),
            Watched(SERVICES, namespace, services.stable.service),
            Watched(SERVICES, namespace, services.canary.service),
        )

    def _object(self) -> Object | None:
        return self._context.reader.get(self.resource, self._context.namespace, self.name)

    def _not_accepted(self, route: Object) -> str:
        """What the route's controllers have not reported yet; empty: they have taken this generation."""
        settles_at = self._settles_at(route)
        return pending(route, None if settles_at is None else self._context.clock.now() >= settles_at)

    def _again_at(self, route: Object) -> float | None:
        """When silence will count as well, POSIX seconds; ``None``: never, or already."""
        settles_at = self._settles_at(route)
        return settles_at if settles_at is not None and settles_at > self._context.clock.now() else None

    def _settles_at(self, route: Object) -> float | None:
        settle = self._settings.settle
        return None if settle is None else last_writer(route, "spec", "rules").at + _COARSE + settle

    def _common_problems(self) -> Iterator[str]:
        services = self._context.spec.workload
        if self._context.spec.traffic.sticky is not None:
            yield (
                "Gateway API decides each request by itself; its sessionPersistence is experimental and keeps people on the "
                "canary even at weight 0: remove traffic.sticky, or use the nginx or envoy router"
            )
        for name in (services.stable.service, services.canary.service):
            try:
                service = find_service(self._context.reader, self._context.namespace, name)
            except RouterError as error:
                yield f"{error}"
                continue
            if (service.get("spec") or {}).get("type") == "ExternalName":
                yield (
                    f"Service {self._context.namespace}/{name} is an ExternalName: name a Service that selects pods of this "
                    "namespace"
                )

    def _stage_cohorts(self) -> Iterator[tuple[str, Cohort | None]]:
        """Every stage's name and cohort."""
        for stage in self._context.spec.stages:
            yield stage.name, stage.cohort
