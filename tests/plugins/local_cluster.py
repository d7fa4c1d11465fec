"""A real Kubernetes for tests: the session fixture ``local_cluster`` and a fresh ``namespace`` per test.

Tests marked ``e2e`` run in the session's event loop (set here), because the cluster's node lives in it: so they must
never block it, ``await local_cluster.kubectl(...)`` instead of ``subprocess.run``. That loop stands still while a test runs
that is not in it, and with it kubelet, probes and whatever reads from processes; so these come last, in one piece, and those
that share the play of ``tests/e2e`` at the very end. Each xdist worker has a cluster of
its own. Images are registered as a test needs them: ``local_cluster.images["name"] = [...]``.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from canary_rollout.local.cluster import LocalCluster

BACK_OFF_SCALE = 0.05  # a crashed container waits 0.5 s, 1 s, 2 s … instead of 10 s, 20 s, 40 s …


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("e2e") is not None:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    items.sort(key=_turn)  # stable: what was shuffled stays shuffled


def _turn(item: pytest.Item) -> int:
    """What needs the session's loop to go on comes later; see above."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    return 2 if "stage_set" in fixtures else int("local_cluster" in fixtures)


async def eventually(condition: Callable[[], object], what: str, within: float = 60.0) -> None:
    """Wait until ``condition()`` is true; for what no watch tells."""
    try:
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110  # nothing would set an event
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not {what} within {within:g} s")


async def until_served(cluster: "LocalCluster", *crds: str) -> None:
    """Wait until the kinds of CustomResourceDefinitions are served, and lists of them are answered.

    ``kubectl wait`` fails on one whose conditions are still null, as they are right after an apply; and once established
    a kind answers 404, then 429, for a moment.
    """
    from canary_rollout.local.errors import ApiError

    for name in crds:
        definition = await cluster.admin.wait_for(
            "apiextensions.k8s.io/v1", "CustomResourceDefinition", name, _established, what="established", timeout=120
        )
        spec = definition["spec"]
        version = next(version["name"] for version in spec["versions"] if version["storage"])
        path = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}"
        async with asyncio.timeout(60):
            while True:
                try:
                    await cluster.admin.request("GET", path, query={"limit": "1"})
                    break
                except ApiError as error:
                    if error.status not in {404, 429}:
                        raise
                    await asyncio.sleep(0.2)


def _established(crd: dict[str, object]) -> bool:
    status = crd.get("status") or {}
    conditions = status.get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def local_cluster() -> "AsyncIterator[LocalCluster]":
    from canary_rollout.local.cluster import LocalCluster

    async with LocalCluster(audit=True, scrape_interval=1.0, time_scale=BACK_OFF_SCALE) as cluster:
        yield cluster
        cluster.check()


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(local_cluster: "LocalCluster") -> AsyncIterator[str]:
    """Name of a namespace that exists for this test only (with its ServiceAccount ``default``)."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await local_cluster.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    await local_cluster.admin.wait_for(
        "v1",
        "ServiceAccount",
        "default",
        lambda _: True,
        namespace=name,
        what="made by the controller manager",
        timeout=120,
    )
    yield name
    await local_cluster.admin.delete("v1", "Namespace", name)
