"""What an agent may do with its rights, on a real API server: its own Lease, and of other people's as little as there is a way to say."""

import asyncio
import time
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from canary_rollout.kube.client import Client
from canary_rollout.kube.port import CONFIG_MAPS, LEASES, ApiError, ForbiddenError, NotFoundError
from canary_rollout.traffic.nginx.ack import Ack, lease_name, to_lease

pytestmark = pytest.mark.e2e
EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIG_MAP = "checkout-nginx"
NOT_YOURS = "an agent writes the Lease of its own pod"
WITHIN = 60.0


def documents(name, namespace):
    text = (EXAMPLES / name).read_text().replace("namespace: shop", f"namespace: {namespace}")
    return list(yaml.safe_load_all(text.replace("serviceaccount:shop:", f"serviceaccount:{namespace}:")))


def lease(namespace, pod, config_map=CONFIG_MAP):
    """What the agent in that pod applies."""
    now = time.time()
    ack = Ack(
        pod=pod, config_map=config_map, rollout="checkout", applied="1.abc", applied_at=now, config="", mode="njs", weight=0,
        error="", nginx_version="1.29.0", renewed=now, duration=120,
    )  # fmt: skip
    return to_lease(ack, namespace, "")


@pytest_asyncio.fixture(loop_scope="session")
async def agent(local_cluster, namespace, tmp_path):
    """Clients with the rights of the example's ServiceAccount, by the pod whose token they carry."""
    made = []
    keep = {"ServiceAccount", "Role", "RoleBinding"}
    for one in documents("nginx-proxy.yaml", namespace):
        if one["kind"] in keep:
            await local_cluster.admin.create(one)
    for name in ("proxy-a", "proxy-b"):
        container = {"name": "idle", "image": "never-pulled"}
        spec = {"serviceAccountName": "checkout-proxy", "containers": [container], "nodeName": "nowhere"}
        metadata = {"name": name, "namespace": namespace}
        await local_cluster.admin.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    async def of(pod=None, account="checkout-proxy"):
        token = await _token(local_cluster, namespace, account, pod)
        path = local_cluster.controlplane.kubeconfig(
            tmp_path / f"{pod}-{account}-{len(made)}", token=token, user=account
        )
        made.append(await Client.from_kubeconfig(str(path)))
        return made[-1]

    yield of
    for client in made:
        await client.close()


async def _token(cluster, namespace, account, pod):
    """A token as a kubelet asks for it: bound to the pod it is for."""
    spec = {"audiences": [], "expirationSeconds": 3600}
    if pod is not None:
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    return (await cluster.admin.request("POST", path, body=body))["status"]["token"]


async def once_granted(call):
    """Repeat a call until its right is there: the API server learns of a new one through a watch of its own."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                return await call()
            except ForbiddenError:
                await asyncio.sleep(0.1)


async def refusal(call):
    """Repeat a call until it is refused, and in which words: the API server compiles a policy a moment later."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                await call()
            except ApiError as error:
                return str(error)
            await asyncio.sleep(0.2)


async def apply(client, namespace, pod, **more):
    body = lease(namespace, pod, **more)
    return await client.apply(LEASES, namespace, body["metadata"]["name"], body, manager="canary-rollout-agent")


async def test_an_agent_writes_its_lease_and_reads_lists_and_deletes_none(agent, namespace):
    client = await agent("proxy-a")
    await once_granted(lambda: apply(client, namespace, "proxy-a"))
    await apply(client, namespace, "proxy-a")
    name = lease_name(CONFIG_MAP, "proxy-a")
    refused = (
        lambda: client.get(LEASES, namespace, name),
        lambda: client.list_all(LEASES, namespace),
        lambda: client.delete(LEASES, namespace, name),
        lambda: client.get(CONFIG_MAPS, namespace, "checkout-envoy"),
        lambda: client.list_all(CONFIG_MAPS, namespace),
        lambda: client.merge_patch(CONFIG_MAPS, namespace, CONFIG_MAP, {"data": {}}),
        lambda: apply(client, "kube-system", "proxy-a"),
    )
    for call in refused:
        with pytest.raises(ForbiddenError):
            await call()
    with pytest.raises(NotFoundError):  # it may, there is none
        await client.get(CONFIG_MAPS, namespace, CONFIG_MAP)


async def test_where_the_names_are_known_create_too_is_bound_to_them(local_cluster, agent, namespace):
    """The agent applies, and a server-side apply that creates is authorized with the name."""
    account, names = "edge", ["edge-1", "edge-2"]
    rules = [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [lease_name(CONFIG_MAP, name) for name in names],
            "verbs": ["create", "patch"],
        }
    ]
    rbac, place = "rbac.authorization.k8s.io", {"name": account, "namespace": namespace}
    for one in (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": place, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": place,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", **place}],
        },
    ):
        await local_cluster.admin.create(one)
    client = await agent(account=account)
    await once_granted(lambda: apply(client, namespace, "edge-1"))
    await apply(client, namespace, "edge-1")
    await apply(client, namespace, "edge-2")
    with pytest.raises(ForbiddenError):
        await apply(client, namespace, "edge-3")


async def test_with_the_policy_an_agent_writes_the_lease_of_its_own_pod_and_no_other(local_cluster, agent, namespace):
    first, second = await agent("proxy-a"), await agent("proxy-b")
    await once_granted(lambda: apply(first, namespace, "proxy-b"))  # without the policy any Lease of the namespace
    names = []
    try:
        for one in documents("proxy-leases-policy.yaml", namespace):
            one["metadata"]["name"] += f"-{namespace}"
            if one["kind"] == "ValidatingAdmissionPolicyBinding":
                one["spec"]["policyName"] += f"-{namespace}"
            await local_cluster.admin.create(one)
            names.append((one["kind"], one["metadata"]["name"]))
        assert NOT_YOURS in await refusal(lambda: apply(first, namespace, "proxy-b"))
        await apply(first, namespace, "proxy-a")
        await apply(second, namespace, "proxy-b")
        for client, pod, more in (
            (second, "proxy-a", {}),
            (first, "proxy-c", {}),
            (await agent(), "proxy-a", {}),  # a token that names no pod
        ):
            with pytest.raises(ApiError, match=NOT_YOURS):
                await apply(client, namespace, pod, **more)
        body = lease(namespace, "proxy-b")
        body["metadata"]["name"] = "some-controller"
        with pytest.raises(ApiError, match=NOT_YOURS):
            await first.apply(LEASES, namespace, "some-controller", body, manager="canary-rollout-agent")
        # Nobody else is held up.
        await local_cluster.admin.create(
            {**lease(namespace, "x"), "metadata": {"name": "somebodys", "namespace": namespace}}
        )
    finally:
        for kind, name in reversed(names):
            await local_cluster.admin.delete("admissionregistration.k8s.io/v1", kind, name)
