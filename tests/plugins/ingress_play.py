"""A namespace with an Ingress, and the router of ingress-nginx on it."""

from fake_api import FakeApi
from proxies import NAMESPACE, StoreReader, service
from weighted_objects import TurnedClock

from canary_rollout.kube.port import INGRESSES, SERVICES
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic.port import Route, RouterContext, Written
from canary_rollout.traffic.registry import router_for

P = "nginx.ingress.kubernetes.io/"


def path(name, where="/", port=None):
    """A path of an Ingress."""
    backend = {"service": {"name": name, "port": port or {"number": 80}}}
    return {"path": where, "pathType": "Prefix", "backend": backend}


def ingress(name="shop", host="shop.example", paths=None, annotations=None):
    """The user's Ingress."""
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, **({"annotations": annotations} if annotations else {})},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": [host], "secretName": "cert"}],
            "rules": [{"host": host, "http": {"paths": paths or [path("checkout"), path("other", "/other")]}}],
        },
    }


class Controlled:
    """A namespace with an Ingress, and a router on it."""

    def __init__(self):
        self.api = FakeApi()
        self.clock = TurnedClock()
        self.settings = {"ingress": "shop", "controllerVersion": "1.12.1"}
        self.traffic = {}
        self.stages = None

    def router(self):
        spec = {
            "workload": {
                "stable": {"service": "checkout", "deployment": "checkout"},
                "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
            },
            "traffic": {"ingressNginx": self.settings, **self.traffic},
            "metrics": {"prometheus": "http://prometheus:9090"},
            **({"stages": self.stages} if self.stages else {}),
        }
        model = CanaryRolloutSpec.model_validate(spec)
        client, reader = self.api.client("operator"), StoreReader(self.api)
        return router_for(RouterContext(NAMESPACE, "checkout", "uid", model, client, reader, self.clock))

    async def put(self, resource, obj):
        await self.api.client("user").apply(resource, NAMESPACE, obj["metadata"]["name"], obj, manager="user")

    async def route(self, weight, fence=None, **more):
        answer = await self.router().ensure(Route(weight, "v2", "v1", **more), fence=fence)
        assert isinstance(answer, Written), answer
        return answer

    def ours(self):
        return self.api.store.peek(INGRESSES, NAMESPACE, "checkout-canary")

    def notes(self):
        notes = self.ours()["metadata"]["annotations"]
        return {key.removeprefix(P): value for key, value in notes.items() if key.startswith(P)}


async def controlled() -> Controlled:
    """One with the user's Ingress and both Services."""
    made = Controlled()
    await made.put(INGRESSES, ingress())
    await made.put(SERVICES, service("checkout", "10.96.0.1", 80))
    await made.put(SERVICES, service("checkout-canary", "10.96.0.2", 80))
    return made
