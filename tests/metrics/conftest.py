"""A real Prometheus with a history that is known exactly."""

import asyncio
import time

import pytest_asyncio
from aiohttp import web
from metrics_world import WORLD, Known

from canary_rollout.local.build import ensure_prometheus
from canary_rollout.local.ports import free_port
from canary_rollout.local.process import ProcessTable
from canary_rollout.local.prometheus import Prometheus, static_scrape_config


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def known(tmp_path_factory):
    """Address and evaluation time of a Prometheus that knows ``metrics_world.WORLD``."""
    end = int(time.time()) // 10 * 10
    lines = list(WORLD(end))
    body = "\n".join([*lines, f"world_is_complete 1 {end * 1000}", ""])

    async def metrics(request):
        return web.Response(text=body, content_type="text/plain")

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    directory = tmp_path_factory.mktemp("prometheus")
    table = ProcessTable(directory, remove_run_dir=False)
    binary = await ensure_prometheus()
    job = static_scrape_config("known", [f"127.0.0.1:{port}"], 1.0) | {"honor_labels": True}
    prometheus = Prometheus(binary.path, directory, table, scrape_configs=[job])
    try:
        await prometheus.start()
        async with asyncio.timeout(30):
            while not await prometheus.query("world_is_complete", at=end):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.1)
        yield Known(prometheus.url, end, prometheus)
    finally:
        await prometheus.stop()
        await table.close()
        await runner.cleanup()
