"""The agent's own pages: ``/readyz``, ``/healthz``, ``/metrics``, and ``/lease`` for Envoy."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from canary_rollout.agent.agent import Agent
from canary_rollout.agent.settings import Settings
from canary_rollout.traffic.nginx.document import DocumentType


async def serve_pages(
    agent: Agent[DocumentType], settings: Settings, registry: CollectorRegistry, lease: Callable[[], bool] | None = None
) -> web.AppRunner:
    """Start listening; the caller cleans the runner up.

    Args:
        agent: whose pages.
        settings: where.
        registry: what ``/metrics`` shows.
        lease: what ``/lease`` answers, for a proxy that asks; ``None``: there is no such page.
    """

    async def ready(_: web.Request) -> web.Response:
        if agent.ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="no configuration has been loaded yet\n")

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def metrics(_: web.Request) -> web.Response:
        await agent.counting.now()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def leased(_: web.Request) -> web.Response:
        held = lease is not None and lease()
        return web.Response(status=200 if held else 503, text="held\n" if held else "over\n")

    app = web.Application()
    if lease is not None:
        app.add_routes([web.get("/lease", leased)])
    app.add_routes([web.get("/readyz", ready), web.get("/healthz", healthy), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for address in settings.bind:
        await web.TCPSite(runner, address.strip("[]"), settings.port).start()
    return runner
