"""Objects of other data planes with weights in them, and a router on each: what their tests play with."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

from fake_api import FakeApi
from proxies import NAMESPACE, StoreReader, service

from canary_rollout.kube.port import (
    HTTP_PROXIES,
    INGRESS_ROUTES,
    SERVICES,
    TRAEFIK_SERVICES,
    VIRTUAL_SERVERS,
    VIRTUAL_SERVICES,
    Object,
    Resource,
)
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic.port import Route, Router, RouterContext, Written
from canary_rollout.traffic.registry import router_for

USER = "kubectl-client-side-apply"


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    Attributes:
        name: for the test's name.
        resource: its kind.
        traffic: how a CanaryRollout names it.
        build: the object, from the two weights (``None``: the field is absent).
        weights: the two weights in it.
        step: smallest weight, basis points.
        reports: what its controller writes into status once it has taken the object; ``None``: it reports nothing.
    """

    name: str
    resource: Resource
    traffic: Object
    build: Callable[[int | None, int | None], Object]
    weights: Callable[[Object], tuple[int | None, int | None]]
    step: int = 1
    reports: Callable[[Object], Object] | None = None


def _weighed(weight: int | None) -> Object:
    return {} if weight is None else {"weight": weight}


def virtual_service(stable: int | None, canary: int | None) -> Object:
    route = [
        {"destination": {"host": "checkout", "port": {"number": 80}}, **_weighed(stable), "headers": {"request": {}}},
        {"destination": {"host": f"checkout-canary.{NAMESPACE}.svc.cluster.local"}, **_weighed(canary)},
    ]
    other = {"match": [{"uri": {"prefix": "/other"}}], "route": [{"destination": {"host": "other"}}]}
    spec = {"hosts": ["shop.example"], "gateways": ["mesh"], "http": [other, {"name": "main", "route": route}]}
    return {"spec": spec}


def http_proxy(stable: int | None, canary: int | None) -> Object:
    services = [
        {"name": "checkout", "port": 80, **_weighed(stable)},
        {"name": "checkout-canary", "port": 80, **_weighed(canary)},
        {"name": "audit", "port": 80, "mirror": True, "weight": 50},
    ]
    routes = [
        {"conditions": [{"prefix": "/other"}], "services": [{"name": "other", "port": 80}]},
        {"conditions": [{"prefix": "/"}], "services": services, "timeoutPolicy": {"response": "5s"}},
    ]
    return {"spec": {"virtualhost": {"fqdn": "shop.example"}, "routes": routes}}


def traefik_service(stable: int | None, canary: int | None) -> Object:
    services = [
        {"name": "checkout", "port": 80, **_weighed(stable)},
        {"name": "checkout-canary", "port": 80, **_weighed(canary)},
    ]
    return {"spec": {"weighted": {"services": services}}}


def by_address(stable: int | None, canary: int | None) -> Object:
    return {"spec": {"highestRandomWeight": traefik_service(stable, canary)["spec"]["weighted"]}}


def ingress_route(stable: int | None, canary: int | None) -> Object:
    services = traefik_service(stable, canary)["spec"]["weighted"]["services"]
    routes = [
        {"match": "Host(`shop.example`) && PathPrefix(`/other`)", "services": [{"name": "other", "port": 80}]},
        {"match": "Host(`shop.example`)", "services": services, "middlewares": [{"name": "gzip"}]},
    ]
    return {"spec": {"entryPoints": ["web"], "routes": routes}}


def virtual_server(stable: int | None, canary: int | None) -> Object:
    splits = [
        {**_weighed(stable), "action": {"pass": "now"}},
        {**_weighed(canary), "action": {"proxy": {"upstream": "next", "rewritePath": "/"}}},
    ]
    upstreams = [
        {"name": "now", "service": "checkout", "port": 80},
        {"name": "next", "service": "checkout-canary", "port": 80},
        {"name": "other", "service": "other", "port": 80},
    ]
    routes = [{"path": "/other", "action": {"pass": "other"}}, {"path": "/", "splits": splits}]
    return {"spec": {"host": "shop.example", "upstreams": upstreams, "routes": routes}}


def _valid(obj: Object) -> Object:
    condition = {
        "type": "Valid",
        "status": "True",
        "observedGeneration": obj["metadata"]["generation"],
        "reason": "Valid",
        "message": "Valid HTTPProxy",
    }
    return {"currentStatus": "valid", "description": "Valid HTTPProxy", "conditions": [condition]}


def _pair(backends: list[Object]) -> tuple[int | None, int | None]:
    return backends[0].get("weight"), backends[1].get("weight")


KINDS = (
    Kind(
        "istio",
        VIRTUAL_SERVICES,
        {"istio": {"virtualService": "shop"}},
        virtual_service,
        lambda obj: _pair(obj["spec"]["http"][1]["route"]),
    ),
    Kind(
        "contour",
        HTTP_PROXIES,
        {"contour": {"httpProxy": "shop"}},
        http_proxy,
        lambda obj: _pair(obj["spec"]["routes"][1]["services"]),
        reports=_valid,
    ),
    Kind(
        "traefikService",
        TRAEFIK_SERVICES,
        {"traefik": {"traefikService": "shop"}},
        traefik_service,
        lambda obj: _pair(obj["spec"]["weighted"]["services"]),
    ),
    Kind(
        "highestRandomWeight",
        TRAEFIK_SERVICES,
        {"traefik": {"traefikService": "shop"}, "sticky": {"clientIP": True}},
        by_address,
        lambda obj: _pair(obj["spec"]["highestRandomWeight"]["services"]),
    ),
    Kind(
        "ingressRoute",
        INGRESS_ROUTES,
        {"traefik": {"ingressRoute": "shop"}},
        ingress_route,
        lambda obj: _pair(obj["spec"]["routes"][1]["services"]),
    ),
    Kind(
        "virtualServer",
        VIRTUAL_SERVERS,
        {"virtualServer": {"virtualServer": "shop"}},
        virtual_server,
        lambda obj: _pair(obj["spec"]["routes"][1]["splits"]),
        step=100,
        reports=lambda _: {"state": "Valid", "reason": "AddedOrUpdated", "message": "configuration was added"},
    ),
)


class TurnedClock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time


@dataclass
class There:
    """A namespace with the user's object, and a router on it."""

    kind: Kind
    clock: TurnedClock = field(default_factory=TurnedClock)
    stages: list[Object] = field(
        default_factory=lambda: [
            {"name": "half", "weight": "50%", "hold": "1m"},
            {"name": "all", "weight": "100%", "hold": "1m"},
        ]
    )
    name: str = "checkout"
    canary: str = "checkout-canary"
    stable: str = "checkout"

    def __post_init__(self) -> None:
        self.api = FakeApi(wall=self.clock.now)
        self.traffic: Object = copy.deepcopy(self.kind.traffic)

    async def build(self, stable: int | None = 100, canary: int | None = 0) -> "There":
        for number, name in enumerate(("checkout", self.canary), 1):
            await self.put(SERVICES, service(name, f"10.96.0.{number}", 80))
        await self.apply(self.kind.build(stable, canary))
        return self

    async def put(self, resource: Resource, obj: Object) -> None:
        await self.api.client("user").apply(resource, NAMESPACE, obj["metadata"]["name"], obj, manager="user")

    async def apply(self, obj: Object, manager: str = USER) -> None:
        """The user's own manifest, server-side applied by force."""
        body = {"metadata": {"name": "shop"}, **obj}
        await self.api.client("user").apply(self.kind.resource, NAMESPACE, "shop", body, manager=manager)
        self.report()

    def report(self) -> None:
        """The controller has taken the object."""
        if self.kind.reports is not None:
            status = {"status": self.kind.reports(self.body())}
            self.api.store.merge_patch(
                self.kind.resource, NAMESPACE, "shop", status, subresource="status", manager="controller"
            )

    def body(self) -> Object:
        found = self.api.store.peek(self.kind.resource, NAMESPACE, "shop")
        assert found is not None
        return found

    @property
    def weights(self) -> tuple[int | None, int | None]:
        return self.kind.weights(self.body())

    def spec(self) -> CanaryRolloutSpec:
        return CanaryRolloutSpec.model_validate(
            {
                "workload": {
                    "stable": {"service": self.stable, "deployment": self.stable},
                    "canary": {"service": self.canary, "deployment": self.canary},
                },
                "traffic": self.traffic,
                "metrics": {"prometheus": "http://prometheus:9090"},
                "stages": self.stages,
            }
        )

    def router(self) -> Router:
        client, reader = self.api.client("operator"), StoreReader(self.api)
        return router_for(RouterContext(NAMESPACE, self.name, "uid", self.spec(), client, reader, self.clock))

    async def route(self, weight: int, fence: str | None = None, revision: str = "v2", **more: object) -> Written:
        answer = await self.router().ensure(Route(weight, revision, "v1", **more), fence=fence)
        assert isinstance(answer, Written), answer
        return answer

    def writes(self) -> int:
        """How many writes we sent."""
        return len(self.api.calls_of("operator", "patch"))
