"""What the node does with pods, on the real control plane."""

import asyncio
import time

import aiohttp
import pytest
from local_cluster import eventually

pytestmark = pytest.mark.e2e

SERVER = """
import http.server, os, signal, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(float(self.path.split("=")[1]))
        body = {
            "/metrics": "demo_requests_total 7\\n",
            "/env": "\\n".join(f"{k}={v}" for k, v in os.environ.items()),
        }.get(self.path, os.environ["HOSTNAME"]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("serving as", os.environ["HOSTNAME"], flush=True)
http.server.ThreadingHTTPServer((os.environ["BIND_ADDRESS"], 8080), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def images(local_cluster):
    local_cluster.images["web"] = ["{python}", "-c", SERVER]
    local_cluster.images["sh"] = []


def pod(namespace, name, **spec):
    containers = spec.pop("containers", None) or [{"name": "web", "image": "web:v1"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, "version": "v1"}},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 5, **spec},
    }


def shell(script, **container):
    return {"name": "main", "image": "sh", "command": ["sh", "-c", script], **container}


def deployment(namespace, replicas=2, **template_metadata):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web", "version": "v1"}, **template_metadata},
                "spec": {
                    "terminationGracePeriodSeconds": 30,
                    "containers": [
                        {
                            "name": "web",
                            "image": "web:v1",
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 1},
                        }
                    ],
                },
            },
        },
    }


def service(namespace):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]},
    }


def container_state(found, index=0):
    statuses = (found.get("status") or {}).get("containerStatuses") or [{}]
    return statuses[index]


def is_ready(found):
    conditions = (found.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def wait_pod(cluster, namespace, name, predicate, what):
    return await cluster.admin.wait_for("v1", "Pod", name, predicate, namespace=namespace, what=what)


async def wait_deployment(cluster, namespace, replicas=2):
    await cluster.admin.wait_for(
        "apps/v1",
        "Deployment",
        "web",
        lambda found: found["status"].get("readyReplicas") == replicas,
        namespace=namespace,
        what="ready",
    )


async def fetch(url, **kwargs):
    async with aiohttp.ClientSession() as session, session.get(url, **kwargs) as response:
        return await response.text()


async def wait_answer(url, text):
    """Ask on new connections until the answer is this; the proxy follows the EndpointSlice in its own time."""
    async with asyncio.timeout(10):
        while True:
            try:
                if await fetch(url, headers={"Connection": "close"}) == text:
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


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
    web["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 3}}}
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


async def test_a_crashing_container_goes_into_crash_loop_back_off(local_cluster, namespace):
    container = shell("echo going down; exit 3")
    await local_cluster.admin.create(pod(namespace, "bad", containers=[container]))
    found = await wait_pod(
        local_cluster,
        namespace,
        "bad",
        lambda one: (
            container_state(one).get("restartCount", 0) >= 2
            and container_state(one)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
        ),
        "in CrashLoopBackOff",
    )
    status = container_state(found)
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["lastState"]["terminated"]["reason"] == "Error"
    assert "back-off 20s restarting failed container=main" in status["state"]["waiting"]["message"]
    assert not status["ready"]
    assert found["status"]["phase"] == "Running"
    assert local_cluster.pod_log(namespace, "bad", "main").count("going down") >= 2


async def test_a_container_above_its_memory_limit_is_oom_killed(local_cluster, namespace):
    greedy = {
        "name": "main",
        "image": "web",
        "command": ["python3", "-c", "import time; held = bytearray(80_000_000); time.sleep(60)"],
        "resources": {"limits": {"memory": "40Mi"}},
    }
    await local_cluster.admin.create(pod(namespace, "greedy", containers=[greedy], restartPolicy="Never"))
    found = await wait_pod(
        local_cluster, namespace, "greedy", lambda one: "terminated" in container_state(one).get("state", {}), "ended"
    )
    ended = container_state(found)["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    assert found["status"]["phase"] == "Failed"


async def test_an_unknown_image_goes_into_image_pull_back_off_and_is_taken_up_once_known(local_cluster, namespace):
    await local_cluster.admin.create(pod(namespace, "late", containers=[{"name": "web", "image": "late:v1"}]))
    found = await wait_pod(
        local_cluster,
        namespace,
        "late",
        lambda one: container_state(one).get("state", {}).get("waiting", {}).get("reason") == "ImagePullBackOff",
        "in ImagePullBackOff",
    )
    assert "late:v1" in container_state(found)["state"]["waiting"]["message"]
    assert found["status"]["phase"] == "Pending"
    local_cluster.images["late"] = ["{python}", "-c", SERVER]
    await wait_pod(local_cluster, namespace, "late", is_ready, "ready")


async def test_deletion_waits_for_the_process_and_ends_with_its_grace_period(local_cluster, namespace):
    admin = local_cluster.admin
    patient = shell("trap 'echo asked; sleep 1; exit 0' TERM; echo up; while :; do sleep 0.1; done")
    deaf = shell("trap '' TERM; echo up; while :; do sleep 0.1; done")
    for name, container, grace in (("patient", patient, 20), ("deaf", deaf, 2)):
        await admin.create(pod(namespace, name, containers=[container], terminationGracePeriodSeconds=grace))
        await wait_pod(local_cluster, namespace, name, is_ready, "ready")
    await eventually(
        lambda: all("up" in local_cluster.pod_log(namespace, name, "main") for name in ("patient", "deaf")), "both up"
    )
    began = time.monotonic()
    took = {}

    async def delete(name):
        await admin.delete("v1", "Pod", name, namespace=namespace)
        await admin.wait_gone("v1", "Pod", name, namespace=namespace)
        took[name] = time.monotonic() - began

    await asyncio.gather(delete("patient"), delete("deaf"))
    assert 1 <= took["patient"] < 1.9
    assert 2 <= took["deaf"] < 3.5
    assert "asked" in local_cluster.pod_log(namespace, "patient", "main")


async def test_a_forced_deletion_ends_the_process_at_once(local_cluster, namespace):
    admin = local_cluster.admin
    await admin.create(pod(namespace, "stubborn", containers=[shell("trap '' TERM; while :; do sleep 0.1; done")]))
    await wait_pod(local_cluster, namespace, "stubborn", is_ready, "ready")
    (runner,) = [one for one in local_cluster.node.pods.values() if one.name == "stubborn"]
    process = runner.main[0].process
    await admin.delete("v1", "Pod", "stubborn", namespace=namespace, grace_seconds=0)
    async with asyncio.timeout(2):
        assert await process.wait() == -9


async def test_a_config_map_volume_follows_its_config_map_within_a_second(local_cluster, namespace):
    admin = local_cluster.admin
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": namespace},
        "data": {"colour": "blue"},
    }
    reader = shell(
        "while :; do cat /etc/settings/colour; cat $VOLUME_SETTINGS_DIR/colour; echo; sleep 0.05; done",
        volumeMounts=[{"name": "settings-dir", "mountPath": "/etc/settings"}],
    )
    volume = {"name": "settings-dir", "configMap": {"name": "settings"}}
    await admin.create(pod(namespace, "reader", containers=[reader], volumes=[volume]))
    found = await wait_pod(
        local_cluster,
        namespace,
        "reader",
        lambda one: "not found" in container_state(one).get("state", {}).get("waiting", {}).get("message", ""),
        "waiting for its ConfigMap",
    )
    assert found["status"]["phase"] == "Pending"
    await admin.create(settings)
    await wait_pod(local_cluster, namespace, "reader", is_ready, "ready")

    async def printed(text):
        began = time.monotonic()
        await eventually(lambda: text in local_cluster.pod_log(namespace, "reader", "main"), f"printed {text}")
        return time.monotonic() - began

    await printed("blueblue")
    await admin.apply({**settings, "data": {"colour": "green"}})
    assert await printed("greengreen") < 1.0


async def test_a_failing_liveness_probe_restarts_the_container_and_a_readiness_probe_only_unreadies_it(
    local_cluster, namespace
):
    admin = local_cluster.admin
    probed = shell(
        "rm -f sick; while :; do sleep 0.1; done",
        livenessProbe={"exec": {"command": ["test", "!", "-e", "sick"]}, "periodSeconds": 1, "failureThreshold": 1},
        readinessProbe={"exec": {"command": ["test", "!", "-e", "tired"]}, "periodSeconds": 1, "failureThreshold": 1},
    )
    await admin.create(pod(namespace, "probed", containers=[probed]))
    await wait_pod(local_cluster, namespace, "probed", is_ready, "ready")
    (runner,) = [one for one in local_cluster.node.pods.values() if one.name == "probed"]
    directory = runner.container_directory("main")
    (directory / "tired").touch()
    found = await wait_pod(local_cluster, namespace, "probed", lambda one: not is_ready(one), "unready")
    assert container_state(found)["restartCount"] == 0
    (directory / "tired").unlink()
    await wait_pod(local_cluster, namespace, "probed", is_ready, "ready again")
    (directory / "sick").touch()
    await wait_pod(
        local_cluster, namespace, "probed", lambda one: container_state(one)["restartCount"] == 1, "restarted"
    )


async def test_init_containers_run_in_order_and_a_sidecar_outlives_the_main_container(local_cluster, namespace):
    order = [
        {**shell("echo first >> /shared/order"), "name": "first"},
        {**shell("echo side >> /shared/order; while :; do sleep 0.1; done"), "name": "side", "restartPolicy": "Always"},
        {**shell("sleep 0.3; echo second >> /shared/order"), "name": "second"},
    ]
    main = shell("echo main >> /shared/order; cat /shared/order")
    mount = [{"name": "shared", "mountPath": "/shared"}]
    await local_cluster.admin.create(
        pod(
            namespace,
            "ordered",
            initContainers=[{**one, "volumeMounts": mount} for one in order],
            containers=[{**main, "volumeMounts": mount}],
            volumes=[{"name": "shared", "emptyDir": {}}],
            restartPolicy="Never",
        )
    )
    await wait_pod(
        local_cluster, namespace, "ordered", lambda one: one["status"].get("phase") == "Succeeded", "succeeded"
    )
    assert local_cluster.pod_log(namespace, "ordered", "main").split() == ["first", "side", "second", "main"]
    await eventually(
        lambda: not any(one.name == "ordered" and one.init[1].process for one in local_cluster.node.pods.values()),
        "the sidecar stopped",
    )


async def test_a_pod_runs_with_the_rights_of_its_service_account(local_cluster, namespace):
    admin = local_cluster.admin
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": namespace}}
    await admin.apply(account)
    asking = {
        "name": "main",
        "image": "sh",
        "command": ["sh", "-c", f"{await kubectl_path()} auth whoami -o jsonpath={{.status.userInfo.username}}"],
    }
    await admin.create(
        pod(namespace, "asking", containers=[asking], serviceAccountName="reader", restartPolicy="Never")
    )
    await wait_pod(
        local_cluster, namespace, "asking", lambda one: one["status"].get("phase") == "Succeeded", "succeeded"
    )
    user = f"system:serviceaccount:{namespace}:reader"
    assert local_cluster.pod_log(namespace, "asking", "main") == user
    calls = local_cluster.controlplane.count_calls(user)
    assert {(call.verb, call.resource) for call in calls} >= {("create", "selfsubjectreviews")}


async def kubectl_path():
    from canary_rollout.local.tools import ensure_tool

    return await ensure_tool("kubectl")


async def test_prometheus_finds_annotated_pods_and_labels_their_series(local_cluster, namespace):
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}
    await local_cluster.admin.apply(deployment(namespace, annotations=annotations))
    await wait_deployment(local_cluster, namespace)
    series = []
    async with asyncio.timeout(20):
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


async def test_kubectl_logs_shows_what_a_container_prints_and_what_its_last_run_printed(local_cluster, namespace):
    counting = shell("echo run; sleep 0.3; echo over; exit 1")
    await local_cluster.admin.create(pod(namespace, "talks", containers=[counting]))
    await wait_pod(local_cluster, namespace, "talks", lambda one: container_state(one).get("restartCount"), "restarted")
    assert await local_cluster.kubectl("logs", "-n", namespace, "talks", "--follow") == "run\nover\n"
    assert await local_cluster.kubectl("logs", "-n", namespace, "talks", "--previous", "--tail=1") == "over\n"


async def test_a_command_that_does_not_exist_and_an_env_that_leads_nowhere_say_so(local_cluster, namespace):
    admin = local_cluster.admin
    missing = {"name": "main", "image": "sh", "command": ["/no/such/program"]}
    await admin.create(pod(namespace, "missing", containers=[missing], restartPolicy="Never"))
    found = await wait_pod(
        local_cluster, namespace, "missing", lambda one: one["status"].get("phase") == "Failed", "failed"
    )
    ended = container_state(found)["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert "/no/such/program" in ended["message"]

    reference = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "x"}}}
    await admin.create(pod(namespace, "waits", containers=[shell("echo $X; sleep 100", env=[reference])]))
    await wait_pod(
        local_cluster,
        namespace,
        "waits",
        lambda one: (
            container_state(one).get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError"
        ),
        "refused",
    )
    later = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later", "namespace": namespace}}
    await admin.create({**later, "data": {"x": "found"}})
    await wait_pod(local_cluster, namespace, "waits", is_ready, "ready")
    await eventually(lambda: local_cluster.pod_log(namespace, "waits", "main") == "found\n", "printed")


async def test_a_startup_probe_holds_the_others_back_and_kills_what_never_starts(local_cluster, namespace):
    admin = local_cluster.admin
    probe = {"exec": {"command": ["test", "-e", "started"]}, "periodSeconds": 1, "failureThreshold": 2}
    slow = shell("sleep 0.5; touch started; sleep 100", startupProbe={**probe, "failureThreshold": 10})
    never = shell("sleep 100", startupProbe=probe)
    await admin.create(pod(namespace, "slow", containers=[slow]))
    await admin.create(pod(namespace, "never", containers=[never]))
    found = await wait_pod(local_cluster, namespace, "slow", is_ready, "ready")
    assert container_state(found)["restartCount"] == 0
    await wait_pod(
        local_cluster, namespace, "never", lambda one: container_state(one).get("restartCount", 0) >= 1, "restarted"
    )


async def test_a_pre_stop_command_runs_before_the_signal(local_cluster, namespace):
    admin = local_cluster.admin
    hooked = shell(
        "trap 'cat note; exit 0' TERM; while :; do sleep 0.05; done",
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "echo from the hook > note"]}}},
    )
    await admin.create(pod(namespace, "hooked", containers=[hooked]))
    await wait_pod(local_cluster, namespace, "hooked", is_ready, "ready")
    await admin.delete("v1", "Pod", "hooked", namespace=namespace)
    await admin.wait_gone("v1", "Pod", "hooked", namespace=namespace)
    assert local_cluster.pod_log(namespace, "hooked", "main") == "from the hook\n"


async def test_a_readiness_gate_keeps_a_pod_unready_until_somebody_opens_it(local_cluster, namespace):
    admin = local_cluster.admin
    gate = "tests.canary-rollout.dev/gate"
    await admin.create(
        pod(namespace, "gated", containers=[shell("sleep 100")], readinessGates=[{"conditionType": gate}])
    )
    found = await wait_pod(local_cluster, namespace, "gated", lambda one: container_state(one).get("ready"), "running")
    assert not is_ready(found)
    opened = {"status": {"conditions": [{"type": gate, "status": "True"}]}}
    await admin.patch("v1", "Pod", "gated", opened, namespace=namespace, patch_type="strategic", subresource="status")
    await wait_pod(local_cluster, namespace, "gated", is_ready, "ready")


async def test_a_readiness_probe_that_can_never_pass_leaves_the_pod_unready_and_says_why(local_cluster, namespace):
    probe = {"tcpSocket": {"port": "nope"}, "periodSeconds": 1, "failureThreshold": 1}
    await local_cluster.admin.create(pod(namespace, "misnamed", containers=[shell("sleep 100", readinessProbe=probe)]))
    async with asyncio.timeout(10):
        async for event in local_cluster.admin.stream("v1", "Event", namespace=namespace):
            if "no port is named 'nope'" in event.object.get("message", ""):
                break
    # The event is told at once, the status is written a moment later: wait for the one, not for luck.
    found = await wait_pod(
        local_cluster, namespace, "misnamed", lambda one: "running" in container_state(one).get("state", {}), "running"
    )
    assert not is_ready(found)


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
