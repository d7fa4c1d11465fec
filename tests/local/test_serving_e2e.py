"""Workloads on the real control plane: Services answer, Prometheus finds them, the API server may restart."""

import asyncio

import aiohttp
import pytest
from pod_play import container_state, deployment, fetch, service, shell, wait_answer, wait_deployment

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("pod_images")]


async def test_a_deployment_becomes_ready_and_its_service_answers_from_every_pod(local_cluster, namespace):
    admin = local_cluster.admin
    await admin.apply_all([deployment(namespace), service(namespace)])
    await wait_deployment(local_cluster, namespace)
    pods = {one["metadata"]["name"] for one in await admin.list("v1", "Pod", namespace=namespace)}
    address = (await admin.get("v1", "Service", "web", namespace=namespace))["spec"]["clusterIP"]
    for name in pods:
        await wait_answer(f"http://{address}:8080/", name)
    assert "serving as" in local_cluster.pod_log(namespace, min(pods), "web")
    assert "Ready" in await local_cluster.kubectl("get", "nodes")


async def test_a_service_without_endpoints_refuses_connections(local_cluster, namespace):
    await local_cluster.admin.apply(service(namespace))
    address = (await local_cluster.admin.get("v1", "Service", "web", namespace=namespace))["spec"]["clusterIP"]
    with pytest.raises(aiohttp.ClientConnectorError):
        await fetch(f"http://{address}:8080/")


async def test_a_request_under_way_ends_on_the_pod_that_is_being_deleted(local_cluster, namespace):
    admin = local_cluster.admin
    web = deployment(namespace, replicas=1)
    # Routing follows within this time, as in any cluster; the server itself ends at once when asked to.
    web["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 20}}}
    web["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 40
    await admin.apply_all([web, service(namespace)])
    await wait_deployment(local_cluster, namespace, 1)
    address = (await admin.get("v1", "Service", "web", namespace=namespace))["spec"]["clusterIP"]
    (only,) = await admin.list("v1", "Pod", namespace=namespace)
    name = only["metadata"]["name"]
    await wait_answer(f"http://{address}:8080/", name)
    slow = asyncio.create_task(fetch(f"http://{address}:8080/slow=2"))
    await asyncio.sleep(0.3)
    await admin.delete("v1", "Pod", name, namespace=namespace)
    assert await slow == name
    found = await admin.get("v1", "Pod", name, namespace=namespace)
    assert found["metadata"]["deletionTimestamp"]


async def test_prometheus_finds_annotated_pods_and_labels_their_series(local_cluster, namespace):
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}
    await local_cluster.admin.apply(deployment(namespace, annotations=annotations))
    await wait_deployment(local_cluster, namespace)
    series = []
    async with asyncio.timeout(60):
        while len(series) < 2:
            series = await local_cluster.prometheus.query(f'demo_requests_total{{namespace="{namespace}"}}')
            await asyncio.sleep(0.2)
    assert {labels["version"] for labels, _ in series} == {"v1"}
    assert all(labels["pod"].startswith("web-") and value == 7 for labels, value in series)


async def test_the_node_goes_on_over_a_restart_of_the_api_server(local_cluster, namespace):
    admin = local_cluster.admin
    await admin.apply(deployment(namespace))
    await wait_deployment(local_cluster, namespace)
    before = {one["metadata"]["name"] for one in await admin.list("v1", "Pod", namespace=namespace)}
    await local_cluster.restart_apiserver()
    await admin.patch("apps/v1", "Deployment", "web", {"spec": {"replicas": 3}}, namespace=namespace)
    await wait_deployment(local_cluster, namespace, 3)
    after = {one["metadata"]["name"]: one for one in await admin.list("v1", "Pod", namespace=namespace)}
    assert before < after.keys()
    assert all(container_state(one)["restartCount"] == 0 for one in after.values())


async def test_a_daemon_set_and_a_job_run_too(local_cluster, namespace):
    admin = local_cluster.admin
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [shell("sleep 100")]}}
    daemons = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "d", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j", "namespace": namespace},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [shell("exit 0")]}}},
    }
    await admin.apply_all([daemons, job])
    await admin.wait_for(
        "apps/v1", "DaemonSet", "d", lambda one: one["status"].get("numberReady") == 1, namespace=namespace
    )
    await admin.wait_for("batch/v1", "Job", "j", lambda one: one["status"].get("succeeded") == 1, namespace=namespace)
    await admin.delete("apps/v1", "DaemonSet", "d", namespace=namespace)
