"""A router by itself against the real API server: built as the controller builds it, its cache filled before each use."""

from copy import deepcopy
from typing import Any

import yaml
from route_adapters import CANARY, ROLLOUT, STABLE, Adapter, http_service

from canary_rollout.controller.clock import SystemClock
from canary_rollout.kube.cache import Cache
from canary_rollout.kube.client import Client
from canary_rollout.kube.port import NotFoundError, Object
from canary_rollout.kube.recording import RecordingApi
from canary_rollout.model.route import Route, RouteView
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic.port import Rejected, Router, RouterContext, Written
from canary_rollout.traffic.registry import router_for

Manifest = dict[str, Any]
REVISION, STABLE_REVISION = "0123456789", "abcdef0123"
SPEC: Manifest = {
    "workload": {
        "stable": {"service": STABLE, "deployment": STABLE},
        "canary": {"service": CANARY, "deployment": CANARY},
    },
    "metrics": {"prometheus": "http://prometheus:9090"},
    "stages": [
        {"name": "some", "weight": "5%", "hold": "1h"},
        {"name": "all", "weight": "100%", "hold": "1h"},
    ],
}


def route(weight: int, *, revision: str = REVISION, **more: Any) -> Route:
    return Route(weight, revision, STABLE_REVISION, **more)


class HeldClock:
    """This machine's clock, which a test can hold: what settles by time alone does not settle under its hands."""

    def __init__(self) -> None:
        self._held: float | None = None
        self._ahead = 0.0

    def now(self) -> float:
        return SystemClock().now() + self._ahead if self._held is None else self._held

    def hold(self) -> None:
        """Stands at what it really is."""
        self._held = SystemClock().now()

    def go_on(self, *, ahead: float) -> None:
        """As many seconds further than it really is."""
        self._held, self._ahead = None, ahead


class Bench:
    """One adapter's router in a namespace of its own."""

    def __init__(self, cluster: Any, client: Client, namespace: str, adapter: Adapter) -> None:
        self.cluster, self.client, self.namespace, self.adapter = cluster, client, namespace, adapter
        self.cache = Cache()
        self.api = RecordingApi(client, self.cache)
        self.clock = HeldClock()
        self.spec = {**SPEC, "traffic": adapter.traffic}
        self.name = ROLLOUT
        self.proved = (0, "")
        """Weight and revision that the status would hold as served."""

    async def set_up(self) -> None:
        for service in (http_service(STABLE, STABLE), http_service(CANARY, CANARY)):
            await self.cluster.admin.create(
                {**service, "metadata": {**service["metadata"], "namespace": self.namespace}}
            )
        for manifest in self.adapter.needs:
            await self.apply(manifest)
        if not self.adapter.owned:
            await self.apply(self.adapter.git(0))

    # Other people

    async def apply(self, manifest: Manifest, *options: str) -> None:
        """kubectl apply."""
        await self.cluster.kubectl("apply", "-n", self.namespace, *options, "-f", "-", input=yaml.safe_dump(manifest))

    async def force(self, manifest: Manifest, manager: str = "argocd-controller") -> None:
        """Server-side apply by force, as Argo CD and Flux do."""
        await self.apply(manifest, "--server-side", "--force-conflicts", f"--field-manager={manager}")

    async def live(self) -> Object:
        return await self.client.get(self.adapter.resource, self.namespace, self.adapter.name_of)

    async def report(self) -> None:
        """The data plane's controller takes what is there."""
        status = self.adapter.status(await self.live())
        if status is not None:
            body = {"status": status}
            name, kind = self.adapter.name_of, self.adapter.resource
            await self.client.merge_patch(kind, self.namespace, name, body, subresource="status", manager="controller")

    # The router

    def router(self) -> Router:
        spec = CanaryRolloutSpec.model_validate(self.spec)
        context = RouterContext(self.namespace, self.name, "uid", spec, self.api, self.cache, self.clock, *self.proved)
        return router_for(context)

    async def refresh(self) -> Router:
        """The cache shows what is there now."""
        router = self.router()
        for item in router.watched():
            if item.name is None:
                found, version = await self.client.list_all(item.resource, item.namespace)
                self.cache.replace(item.resource, item.namespace, found, version)
                continue
            try:
                self.cache.record(item.resource, await self.client.get(item.resource, item.namespace, item.name))
            except NotFoundError:
                self.cache.remove(item.resource, item.namespace, item.name)
        return router

    async def observe(self) -> RouteView | None:
        return (await self.refresh()).observe()

    async def seen(self) -> RouteView:
        view = await self.observe()
        assert view is not None
        return view

    async def ensure(self, wanted: Route, *, fence: str | None = None) -> Written | Rejected:
        return await (await self.refresh()).ensure(wanted, fence=fence)

    async def write(self, weight: int, **more: Any) -> Written:
        """As the engine does: an object first, at 0; raises with a fence."""
        view = await self.observe()
        if view is None:
            assert isinstance(await self.ensure(route(0)), Written)
            view = await self.seen()
        answer = await self.ensure(route(weight, **more), fence=view.resource_version if weight > view.weight else None)
        assert isinstance(answer, Written), answer
        return answer

    async def problems(self) -> list[str]:
        return (await self.refresh()).problems()


def without_server_fields(obj: Object) -> Object:
    """What people wrote."""
    kept = deepcopy(obj)
    kept.pop("status", None)
    for field in ("managedFields", "resourceVersion", "generation"):
        kept["metadata"].pop(field, None)
    return kept
