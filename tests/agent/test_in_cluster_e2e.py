"""The example's nginx pods on a real API server, with the rights of the example alone, and the ingress-nginx router."""

import asyncio
import json
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from envoys import envoy_binary
from keepalive import Load, fetch_all
from proxies import WallClock, spec_of

from canary_rollout.kube.cache import Cache
from canary_rollout.kube.client import Client
from canary_rollout.kube.port import CONFIG_MAPS, ConflictError
from canary_rollout.local.demo_cast import IMAGES
from canary_rollout.local.demo_objects import APP_IMAGE
from canary_rollout.model.spec import CanaryRolloutSpec, Cohort
from canary_rollout.traffic.port import Latch, Route, RouterContext
from canary_rollout.traffic.registry import router_for

pytestmark = pytest.mark.e2e
EXAMPLES = Path(__file__).parents[2] / "examples"
LATCH = Latch("v2", "error-rate", "5 % of 200 requests failed", 1_000_000.0)


class Operator:
    """Routers on the real API; its cache is listed anew at every look."""

    def __init__(self, client, namespace, spec):
        self.client, self.namespace, self.spec = client, namespace, spec

    async def router(self):
        cache = Cache()
        context = RouterContext(self.namespace, "checkout", "uid", self.spec, self.client, cache, WallClock())
        router = router_for(context)
        for watched in router.watched():
            items, version = await self.client.list_all(watched.resource, self.namespace)
            cache.replace(watched.resource, self.namespace, items, version)
        return router

    async def view(self):
        return (await self.router()).observe()

    async def to(self, weight, **more):
        answer = await (await self.router()).ensure(Route(weight, "v2", "v1", **more), fence=None)
        assert not hasattr(answer, "reason"), answer
        return await self.confirmed()

    async def confirmed(self):
        async with asyncio.timeout(30):
            while not (view := await self.view()).confirmed:  # noqa: ASYNC110 - a real cluster
                await asyncio.sleep(0.05)
        return view


@pytest_asyncio.fixture(loop_scope="session")
async def client(local_cluster):
    made = await Client.from_kubeconfig(str(local_cluster.kubeconfig))
    yield made
    await made.close()


async def apply_example(local_cluster, namespace, *names):
    # Not the operator's: other tests install its Deployment, and its pods would mind everybody's rollouts.
    local_cluster.images.update({name: IMAGES[name] for name in (APP_IMAGE, "canary-rollout/agent")})
    for name in names:
        documents = [
            one
            for one in yaml.safe_load_all((EXAMPLES / name).read_text())
            if one["kind"] not in {"Namespace", "CanaryRollout"}
        ]
        text = yaml.safe_dump_all(documents).replace("namespace: shop", f"namespace: {namespace}")
        await local_cluster.kubectl("apply", "-f", "-", input=text)


async def proxies(local_cluster, namespace, name="checkout-proxy"):
    text = await local_cluster.kubectl("-n", namespace, "get", "pods", "-l", f"app={name}", "-o", "json")
    return [
        (pod["metadata"]["name"], local_cluster.listen_address(pod["status"]["podIP"]))
        for pod in json.loads(text)["items"]
        if pod["status"].get("podIP") and "deletionTimestamp" not in pod["metadata"]
    ]


async def test_the_examples_proxies_confirm_serve_and_are_replaced_without_a_lost_request(
    local_cluster, namespace, client
):
    await apply_example(local_cluster, namespace, "app.yaml", "nginx-proxy.yaml")
    spec = spec_of(nginx={"service": "checkout-proxy"})
    operator = Operator(client, namespace, spec)
    view = await operator.to(0)
    assert view.mode == "njs"
    assert (await operator.router()).problems() == []
    view = await operator.to(2500, cohort=Cohort(header="X-Cohort", values=("internal",)))
    found = await proxies(local_cluster, namespace)
    assert len(found) == 2
    for _, address in found:
        tenants = [{"X-Tenant-ID": f"tenant-{n}"} for n in range(400)]
        answers = await fetch_all(address, 8080, tenants)
        seen = [answer.headers["x-canary-version"] for answer in answers]
        assert {answer.status for answer in answers} == {200}
        assert 60 < seen.count("v2") < 140
        member = await fetch_all(address, 8080, [{**tenant, "X-Cohort": "internal"} for tenant in tenants[:20]])
        assert {answer.headers["x-canary-version"] for answer in member} == {"v2"}
    # A raise from a stale reading is refused by the real server too.
    with pytest.raises(ConflictError):
        await (await operator.router()).ensure(Route(5000, "v2", "v1"), fence="1")
    view = await operator.to(0, latch=LATCH)
    assert (view.latch, view.contested_by) == (LATCH, "")
    # kubectl's own edit is named by its field manager and taken back.
    written = await client.get(CONFIG_MAPS, namespace, "checkout-nginx")
    edited = written["data"]["weights.json"].replace('"weight": 0', '"weight": 9000')
    patch = json.dumps({"data": {"weights.json": edited}})
    await local_cluster.kubectl("-n", namespace, "patch", "configmap", "checkout-nginx", "--type=merge", "-p", patch)
    view = await operator.view()
    assert (view.weight, view.confirmed) == (9000, False)
    assert view.contested_by.startswith("kubectl")
    view = await operator.to(500)
    assert view.contested_by == ""
    # A proxy goes, another comes: requests under way end, and the step is confirmed again by exactly those that serve.
    load = Load(found[0][1], 8080, connections=4, think=0.02)
    load.start()
    await asyncio.sleep(0.5)
    await local_cluster.kubectl("-n", namespace, "delete", "pod", found[0][0], "--wait=false")
    await asyncio.sleep(1.0)
    await load.stop()
    assert load.failures == []
    async with asyncio.timeout(60):
        while found[0][0] in (pods := dict(await proxies(local_cluster, namespace))) or len(pods) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await operator.confirmed()


async def test_the_examples_envoys_confirm_and_serve(local_cluster, namespace, client):
    run = f"import os, sys; os.execv({envoy_binary()!r}, [{envoy_binary()!r}, *sys.argv[2:]])"
    local_cluster.images["envoyproxy/envoy"] = ("{python}", "-c", run)
    await apply_example(local_cluster, namespace, "app.yaml", "envoy-proxy.yaml")
    operator = Operator(client, namespace, spec_of(nginx=None, envoy={"service": "checkout-envoy"}))
    assert (await operator.to(0)).mode == "envoy"
    assert (await operator.router()).problems() == []
    await operator.to(2500)
    found = await proxies(local_cluster, namespace, "checkout-envoy")
    assert len(found) == 2
    for _, address in found:
        tenants = [{"X-Tenant-ID": f"tenant-{n}"} for n in range(400)]
        answers = await fetch_all(address, 8080, tenants)
        assert {answer.status for answer in answers} == {200}
        assert 60 < [answer.headers["x-canary-version"] for answer in answers].count("v2") < 140
    assert (await operator.to(0, latch=LATCH)).latch == LATCH


async def test_the_canary_ingress_is_one_that_the_api_server_takes(local_cluster, namespace, client):
    await apply_example(local_cluster, namespace, "app.yaml")
    documents = list(yaml.safe_load_all((EXAMPLES / "ingress-nginx.yaml").read_text()))
    ingress = next(one for one in documents if one["kind"] == "Ingress")
    ingress["metadata"]["namespace"] = namespace
    await local_cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(ingress))
    rollout = next(one for one in documents if one["kind"] == "CanaryRollout")
    rollout["spec"]["traffic"]["ingressNginx"]["settle"] = "1s"
    operator = Operator(client, namespace, CanaryRolloutSpec.model_validate(rollout["spec"]))
    assert (await operator.router()).problems() == []
    view = await operator.to(50, cohort=Cohort(header="X-Cohort", values=("internal", "friendly")))
    assert (view.weight, view.mode, view.contested_by, view.outdated) == (50, "canary Ingress", "", False)
    await local_cluster.kubectl(
        "-n", namespace, "annotate", "ingress", "checkout-canary", "--overwrite",
        "nginx.ingress.kubernetes.io/canary-weight=9000",
    )  # fmt: skip
    view = await operator.view()
    assert (view.weight, view.confirmed) == (9000, False)
    assert view.contested_by.startswith("kubectl")
    view = await operator.to(0, latch=LATCH)
    assert (view.weight, view.cohort, view.latch, view.contested_by) == (0, None, LATCH, "")
    await (await operator.router()).release()
    assert await operator.view() is None
