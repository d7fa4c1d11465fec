"""A real Prometheus with a history that is known exactly."""

import time

import pytest_asyncio
from known_prometheus import prometheus_knowing
from metrics_world import WORLD, Known


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def known(tmp_path_factory):
    """Address and evaluation time of a Prometheus that knows ``metrics_world.WORLD``."""
    end = int(time.time()) // 10 * 10
    directory = tmp_path_factory.mktemp("prometheus")
    async with prometheus_knowing(WORLD(end), end, directory, every=1.0, within=120) as prometheus:
        yield Known(prometheus.url, end, prometheus)
