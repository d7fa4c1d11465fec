"""The agent's own pages: ``/readyz``, ``/healthz``, ``/metrics``."""

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from canary_rollout.agent.agent import Agent
from canary_rollout.agent.settings import Settings


async def serve_pages(agent: Agent, settings: Settings, registry: CollectorRegistry) -> web.AppRunner:
    """Start listening; the caller cleans the runner up."""

    async def ready(_: web.Request) -> web.Response:
        if agent.ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="no configuration has been loaded yet\n")

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def metrics(_: web.Request) -> web.Response:
        await agent.count_now()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/readyz", ready), web.get("/healthz", healthy), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for address in settings.bind:
        await web.TCPSite(runner, address.strip("[]"), settings.port).start()
    return runner
