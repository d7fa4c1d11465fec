"""What the node does with pods and their containers, on the real control plane."""

import asyncio
import time

import pytest
from local_cluster import eventually
from pod_play import SERVER, container_state, is_ready, pod, shell, wait_pod

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("pod_images")]


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
    pause = 10 * 2 ** (status["restartCount"] - 1)
    assert f"back-off {pause}s restarting failed container=main" in status["state"]["waiting"]["message"]
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
    for name, container, grace in (("patient", patient, 100), ("deaf", deaf, 2)):
        await admin.create(pod(namespace, name, containers=[container], terminationGracePeriodSeconds=grace))
        await wait_pod(local_cluster, namespace, name, is_ready, "ready")
    await eventually(
        lambda: all("up" in local_cluster.pod_log(namespace, name, "main") for name in ("patient", "deaf")), "both up"
    )
    began = time.monotonic()
    took = {}

    async def delete(name):
        await admin.delete("v1", "Pod", name, namespace=namespace)
        await admin.wait_gone("v1", "Pod", name, namespace=namespace, timeout=90)
        took[name] = time.monotonic() - began

    await asyncio.gather(delete("patient"), delete("deaf"))
    assert 1 <= took["patient"] < 90, "it does not use its whole period"
    assert took["deaf"] >= 2
    assert "asked" in local_cluster.pod_log(namespace, "patient", "main")


async def test_a_forced_deletion_ends_the_process_at_once(local_cluster, namespace):
    admin = local_cluster.admin
    deaf = shell("trap '' TERM; while :; do sleep 0.1; done")
    await admin.create(pod(namespace, "stubborn", containers=[deaf], terminationGracePeriodSeconds=300))
    await wait_pod(local_cluster, namespace, "stubborn", is_ready, "ready")
    (runner,) = [one for one in local_cluster.node.pods.values() if one.name == "stubborn"]
    process = runner.main[0].process
    await admin.delete("v1", "Pod", "stubborn", namespace=namespace, grace_seconds=0)
    async with asyncio.timeout(60):
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
    took = []
    for colour in ("green", "red", "grey", "pink", "black"):  # the machine may stand still in one of them, not in all
        await admin.apply({**settings, "data": {"colour": colour}})
        took.append(await printed(2 * colour))
        if took[-1] < 1.0:
            return
    pytest.fail(f"{took} s")


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

    def asked():
        calls = local_cluster.controlplane.count_calls(user)
        return ("create", "selfsubjectreviews") in {(call.verb, call.resource) for call in calls}

    await eventually(asked, "in the audit log")


async def kubectl_path():
    from canary_rollout.local.tools import ensure_tool

    return await ensure_tool("kubectl")


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


async def test_a_pre_stop_command_runs_before_the_signal(local_cluster, namespace):
    admin = local_cluster.admin
    hooked = shell(
        "trap 'cat note; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "echo from the hook > note"]}}},
    )
    await admin.create(pod(namespace, "hooked", containers=[hooked]))
    await wait_pod(local_cluster, namespace, "hooked", is_ready, "ready")
    await eventually(lambda: local_cluster.pod_log(namespace, "hooked", "main") == "up\n", "up")
    await admin.delete("v1", "Pod", "hooked", namespace=namespace)
    await admin.wait_gone("v1", "Pod", "hooked", namespace=namespace)
    assert local_cluster.pod_log(namespace, "hooked", "main") == "up\nfrom the hook\n"


async def test_a_service_account_that_was_made_anew_gets_a_token_of_its_own(local_cluster, namespace):
    """The old one's is refused with 401: whoever is uninstalled and installed again would never come up."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "again", "namespace": namespace}}
    await local_cluster.admin.create(account)
    first = await local_cluster.node.service_account_token(namespace, "again")
    assert first == await local_cluster.node.service_account_token(namespace, "again")
    await local_cluster.admin.delete("v1", "ServiceAccount", "again", namespace=namespace)
    await local_cluster.admin.create(account)
    assert first != await local_cluster.node.service_account_token(namespace, "again")
