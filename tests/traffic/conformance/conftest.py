"""Every router's adapter on the real API server with the real CRDs."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from foreign_crds import available, install_crds
from route_adapters import ADAPTERS, Adapter
from route_bench import Bench

from canary_rollout.kube.client import Client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real_crds(local_cluster) -> None:
    await install_crds(
        local_cluster,
        *sorted(name for name in {name for adapter in ADAPTERS for name in adapter.crds} if available(name)),
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(local_cluster) -> AsyncIterator[Client]:
    made = await Client.from_kubeconfig(str(local_cluster.kubeconfig))
    yield made
    await made.close()


@pytest.fixture(params=ADAPTERS, ids=[adapter.name for adapter in ADAPTERS])
def adapter(request) -> Adapter:
    for name in request.param.crds:
        if not available(name):
            pytest.skip(f"the CRDs of {name} are neither beside the checkout nor in a Go module")
    return request.param


@pytest_asyncio.fixture(loop_scope="session")
async def bench(local_cluster, real_crds, client, namespace, adapter) -> Bench:
    made = Bench(local_cluster, client, namespace, adapter)
    await made.set_up()
    return made
