"""What the node asks of containers, and what it does with the answers, on the real control plane."""

import asyncio

import pytest
from pod_play import container_state, is_ready, pod, shell, wait_pod

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("pod_images")]


async def test_a_failing_liveness_probe_restarts_the_container_and_a_readiness_probe_only_unreadies_it(
    local_cluster, namespace
):
    admin = local_cluster.admin
    every_second = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 30}
    probed = shell(
        "rm -f sick; while :; do sleep 0.1; done",
        livenessProbe={"exec": {"command": ["test", "!", "-e", "sick"]}, **every_second},
        readinessProbe={"exec": {"command": ["test", "!", "-e", "tired"]}, **every_second},
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
        local_cluster, namespace, "probed", lambda one: container_state(one)["restartCount"] >= 1, "restarted"
    )


async def test_a_startup_probe_holds_the_others_back_and_kills_what_never_starts(local_cluster, namespace):
    admin = local_cluster.admin
    probe = {
        "exec": {"command": ["test", "-e", "started"]},
        "periodSeconds": 1,
        "failureThreshold": 2,
        "timeoutSeconds": 30,
    }
    slow = shell("sleep 0.5; touch started; sleep 100", startupProbe={**probe, "failureThreshold": 10})
    never = shell("sleep 100", startupProbe=probe)
    await admin.create(pod(namespace, "slow", containers=[slow]))
    await admin.create(pod(namespace, "never", containers=[never]))
    found = await wait_pod(local_cluster, namespace, "slow", is_ready, "ready")
    assert container_state(found)["restartCount"] == 0
    await wait_pod(
        local_cluster, namespace, "never", lambda one: container_state(one).get("restartCount", 0) >= 1, "restarted"
    )


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
    async with asyncio.timeout(60):
        async for event in local_cluster.admin.stream("v1", "Event", namespace=namespace):
            if "no port is named 'nope'" in event.object.get("message", ""):
                break
    # The event is told at once, the status is written a moment later: wait for the one, not for luck.
    found = await wait_pod(
        local_cluster, namespace, "misnamed", lambda one: "running" in container_state(one).get("state", {}), "running"
    )
    assert not is_ready(found)
