"""A real Prometheus whose whole history is known: it scrapes one page of samples that carry their own times."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from canary_rollout.local.build import ensure_prometheus
from canary_rollout.local.ports import free_port
from canary_rollout.local.process import ProcessTable
from canary_rollout.local.prometheus import Prometheus, static_scrape_config


@asynccontextmanager
async def prometheus_knowing(
    samples: Iterable[str], end: int, directory: Path, *, every: float, within: float
) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that has taken in all ``samples`` (the last at ``end``), scraping every so many seconds."""
    body = "\n".join([*samples, f"world_is_complete 1 {end * 1000}", ""])

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=body, content_type="text/plain")

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    table = ProcessTable(directory, remove_run_dir=False)
    binary = await ensure_prometheus()
    job = static_scrape_config("known", [f"127.0.0.1:{port}"], every) | {"honor_labels": True}
    prometheus = Prometheus(binary.path, directory, table, scrape_configs=[job])
    try:
        await prometheus.start()
        async with asyncio.timeout(within):
            while not await prometheus.query("world_is_complete", at=end):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.1)
        yield prometheus
    finally:
        await prometheus.stop()
        await table.close()
        await runner.cleanup()
