"""The CRD, applied once to the real API server."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "canaryrollout.yaml"

Create = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crd(local_cluster) -> None:
    await local_cluster.kubectl("apply", "--server-side", "-f", str(CRD))
    await local_cluster.kubectl("wait", "--for=condition=Established", "-f", str(CRD))


@pytest.fixture
def create(local_cluster, crd, namespace) -> Create:
    """Create a CanaryRollout as ``kubectl apply --dry-run=server`` would; raises the API server's refusal."""

    async def dry_run(manifest: dict[str, Any]) -> dict[str, Any]:
        from canary_rollout.local.errors import ApiError

        path = f"/apis/canaryrollout.dev/v1alpha1/namespaces/{namespace}/canaryrollouts"
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        for _ in range(20):
            try:
                return await local_cluster.admin.request("POST", path, query=query, body=manifest)
            except ApiError as refused:
                # A new CRD is served a moment after it is established.
                if refused.status not in {404, 429}:
                    raise
                await asyncio.sleep(0.2)
        raise AssertionError("canaryrollouts are not served")

    return dry_run


def manifests(text: str) -> list[dict[str, Any]]:
    """The objects of a YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]
