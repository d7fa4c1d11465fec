"""The operator as a process of its own, with its ServiceAccount's rights, on the tests' cluster."""

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from local_cluster import until_served

from canary_rollout.local.ports import free_port

SYSTEM, ACCOUNT = "canary-rollout-system", "canary-rollout-operator"
MANIFESTS = Path(__file__).parents[2] / "manifests"
WITHIN = 120.0

Manifest = dict[str, Any]


async def install_operator(cluster: Any) -> None:
    """CRD, ServiceAccount and rights as manifests/ has them; no Deployment."""
    text = await cluster.kubectl("kustomize", str(MANIFESTS))
    objects = [one for one in yaml.safe_load_all(text) if one and one["kind"] != "Deployment"]
    await cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=yaml.safe_dump_all(objects))
    names = [one["metadata"]["name"] for one in objects if one["kind"] == "CustomResourceDefinition"]
    await until_served(cluster, *names)


@contextlib.asynccontextmanager
async def running_operator(cluster: Any, namespaces: Sequence[str]) -> AsyncIterator[Path]:
    """An operator that minds these namespaces; yields its log file."""
    await install_operator(cluster)
    kubeconfig = await cluster.kubeconfig_for(SYSTEM, ACCOUNT)
    identity, port = f"operator-{uuid.uuid4().hex[:6]}", free_port()
    await _grant_lease(cluster, identity)
    log = cluster.run_dir / f"{identity}.log"
    words = [
        *(sys.executable, "-m", "canary_rollout.controller"),
        *("--kubeconfig", str(kubeconfig), "--namespace", SYSTEM, "--identity", identity, "--lease", identity),
        *("--watch-namespaces", ",".join(namespaces)),
        *("--host", "127.0.0.1", "--port", str(port), "--log-format", "json"),
    ]
    process = cluster.table.start(words, name=identity, log=log)
    try:
        await ready(port)
        yield log
    finally:
        await process.stop()


async def _grant_lease(cluster: Any, name: str) -> None:
    """Rights on a Lease of another name than the installed one's, so that operators of several tests hold one each."""
    rbac, place = "rbac.authorization.k8s.io", {"name": f"lease-{name}", "namespace": SYSTEM}
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [name],
        "verbs": ["get", "patch"],
    }
    await cluster.admin.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": place, "rules": [rule]})
    await cluster.admin.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": place,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": place["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM}],
        }
    )


async def ready(port: int, within: float = WITHIN) -> None:
    """Return when the operator on this port knows enough to act, as the holder of the Lease or as its understudy."""
    async with asyncio.timeout(within), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)


def deployment(name: str, image: str, *, env: Manifest | None = None, port: int = 8080, replicas: int = 1) -> Manifest:
    """A Deployment of one version; its pods carry ``app: name``."""
    container: Manifest = {"name": "app", "image": image, "ports": [{"containerPort": port}]}
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }
