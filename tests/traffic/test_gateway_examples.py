"""The examples for Gateway API, APISIX, HAProxy and Linkerd on a real API server with the real CRDs."""

from pathlib import Path

import pytest
import yaml
from foreign_crds import install_crds
from live_operator import install_operator
from route_adapters import http_service
from route_adapters.gateway_api import share
from route_bench import route

from canary_rollout.controller.clock import SystemClock
from canary_rollout.kube.cache import Cache
from canary_rollout.kube.client import Client
from canary_rollout.kube.port import HTTP_ROUTES, SERVICES
from canary_rollout.kube.recording import RecordingApi
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic.port import RouterContext, Written
from canary_rollout.traffic.registry import router_for

pytestmark = pytest.mark.e2e
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("gateway-api*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_is_taken_by_the_api_server_and_its_weights_move(local_cluster, namespace, path):
    await install_crds(local_cluster, "gateway-api")
    await install_operator(local_cluster)
    spec = None
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        if document["metadata"].get("namespace"):
            document["metadata"]["namespace"] = namespace
        await local_cluster.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump(document))
        if document["kind"] == "CanaryRollout":
            spec = CanaryRolloutSpec.model_validate(document["spec"])
    assert spec is not None
    for name in ("checkout", "checkout-canary"):
        service = http_service(name, name)
        await local_cluster.admin.create({**service, "metadata": {"name": name, "namespace": namespace}})
    client = await Client.from_kubeconfig(str(local_cluster.kubeconfig))
    try:
        cache = Cache()
        router = router_for(
            RouterContext(namespace, "checkout", "uid", spec, RecordingApi(client, cache), cache, SystemClock())
        )
        for kind in (HTTP_ROUTES, SERVICES):
            cache.replace(kind, namespace, *await client.list_all(kind, namespace))
        assert router.problems() == []
        for stage in spec.stages:
            wanted = route(stage.weight, cohort=stage.cohort, mirror=stage.mirror or 0)
            assert isinstance(await router.ensure(wanted, fence=None), Written)
            view = router.observe()
            assert view is not None
            assert (view.weight, view.cohort, view.mirror) == (stage.weight, stage.cohort, stage.mirror or 0)
            assert share(await client.get(HTTP_ROUTES, namespace, "checkout")) == stage.weight
    finally:
        await client.close()
