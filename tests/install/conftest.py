"""The CRD on the real API server, Helm, and what manifests and chart render to."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from local_cluster import until_served

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "canaryrollout.yaml"
CHART = ROOT / "helm" / "canary-rollout"

Create = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Run = Callable[..., Awaitable[str]]
Objects = dict[tuple[str, str], dict[str, Any]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crd(local_cluster) -> None:
    await local_cluster.kubectl("apply", "--server-side", "-f", str(CRD))
    await until_served(local_cluster, "canaryrollouts.canaryrollout.dev")


@pytest.fixture
def create(local_cluster, crd, namespace) -> Create:
    """Create a CanaryRollout as ``kubectl apply --dry-run=server`` would; raises the API server's refusal."""

    async def dry_run(manifest: dict[str, Any]) -> dict[str, Any]:
        return await _dry_run(local_cluster, f"namespaces/{namespace}/canaryrollouts", manifest)

    return dry_run


@pytest.fixture
def create_set(local_cluster, crd, namespace) -> Create:
    """The same for a HaltRuleSet or ClusterHaltRuleSet."""

    async def dry_run(manifest: dict[str, Any]) -> dict[str, Any]:
        namespaced = manifest["kind"] == "HaltRuleSet"
        place = f"namespaces/{namespace}/haltrulesets" if namespaced else "clusterhaltrulesets"
        own = {"namespace": namespace} if namespaced else {}
        return await _dry_run(
            local_cluster, place, {**manifest, "metadata": {"name": manifest["metadata"]["name"], **own}}
        )

    return dry_run


async def _dry_run(local_cluster: Any, place: str, manifest: dict[str, Any]) -> dict[str, Any]:
    from canary_rollout.local.errors import ApiError

    query = {"dryRun": "All", "fieldValidation": "Strict"}
    for _ in range(300):
        try:
            path = f"/apis/canaryrollout.dev/v1alpha1/{place}"
            found: dict[str, Any] = await local_cluster.admin.request("POST", path, query=query, body=manifest)
        except ApiError as refused:
            # A new CRD is served a moment after it is established.
            if refused.status not in {404, 429}:
                raise
            await asyncio.sleep(0.2)
        else:
            return found
    raise AssertionError(f"{place} are not served")


async def run(program: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run a program and return what it printed on both outputs; raises AssertionError when it fails."""
    process = await asyncio.create_subprocess_exec(
        str(program),
        *arguments,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    return text


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def helm(tmp_path_factory) -> Run:
    """Real Helm, with a home of its own."""
    from canary_rollout.local.build import ensure_helm

    program = await ensure_helm()
    home = tmp_path_factory.mktemp("helm")
    own = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}

    async def call(*arguments: str, environment: dict[str, str] | None = None) -> str:
        return await run(program, *arguments, environment={**own, **(environment or {})})

    return call


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kustomized() -> Objects:
    """What ``kubectl kustomize manifests`` prints."""
    from canary_rollout.local.tools import ensure_tool

    return objects(await run(await ensure_tool("kubectl"), "kustomize", str(ROOT / "manifests")))


def objects(text: str) -> Objects:
    """The objects of a YAML stream by kind and name."""
    documents = [document for document in yaml.safe_load_all(text) if document]
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    assert len(found) == len(documents)
    return found


@pytest.fixture(scope="session")
def read() -> Callable[[str], Objects]:
    return objects


@pytest.fixture(scope="session")
def chart() -> str:
    return str(CHART)
