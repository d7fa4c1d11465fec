"""``status -w``: follows one CanaryRollout through a watch, and says so when it loses sight of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from canary_rollout.cli import render
from canary_rollout.cli.errors import CliError
from canary_rollout.cli.find import get_rollout
from canary_rollout.cli.screenful import fitting
from canary_rollout.cli.session import Connection, Tools
from canary_rollout.cli.view import RolloutView, clean, view_of
from canary_rollout.kube.port import CANARY_ROLLOUTS, GoneError, Object, UnavailableError

_AGAIN: Final = 2.0
"""Seconds until the API server is asked again after it did not answer."""
_PAUSE: Final = 0.2
"""Seconds between two watches, so that a server that ends them at once is not stormed."""


async def follow(connection: Connection, tools: Tools, name: str) -> None:
    """Draw the status until the rollout is deleted or Ctrl-C; where there is no terminal, a line per change.

    Raises:
        CliError: there is no such rollout, or it was deleted while it was followed.
    """
    first = await get_rollout(connection, name)
    console = tools.console()
    if console.is_terminal:
        await _live(connection, tools, console, first)
        return
    last = ""
    async for rollout, trouble in sights(connection, tools, first):
        now = tools.now()
        line = trouble or render.summary(view_of(rollout, now), now)
        # The time in front differs each time; the rest decides whether there is news.
        if line.partition(" ")[2] != last.partition(" ")[2]:
            click.echo(line)
            last = line


async def _live(connection: Connection, tools: Tools, console: Console, first: Object) -> None:
    """Redraw on every change, and each second because times run on."""
    seen, trouble = first, ""

    def picture() -> RenderableType:
        now = tools.now()
        view: RolloutView = view_of(seen, now)
        foot = Text(trouble or "Ctrl-C ends the view, not the rollout.", "yellow" if trouble else "dim")
        whole = f"kubectl canary status {view.name}"
        return fitting(
            console, lambda without: render.rollout(view, now, console, without), render.LEAST_FIRST, foot, whole
        )

    with Live(console=console, get_renderable=picture, auto_refresh=False, vertical_overflow="ellipsis") as live:
        ticker = asyncio.create_task(_every_second(tools, live.refresh))
        try:
            async for seen, trouble in sights(connection, tools, first):  # noqa: B007 - picture() reads them
                live.refresh()
        finally:
            ticker.cancel()


async def _every_second(tools: Tools, refresh: Callable[[], None]) -> None:
    while True:
        await tools.sleep(1.0)
        refresh()


async def sights(connection: Connection, tools: Tools, first: Object) -> AsyncIterator[tuple[Object, str]]:
    """The rollout each time it changes, with a sentence when the API server is out of reach (else empty).

    Raises:
        CliError: it was deleted.
    """
    name = first["metadata"]["name"]
    seen = first
    yield seen, ""
    while True:
        try:
            async for kind, seen in _changes(connection, seen):  # noqa: B020 - goes on from the last one seen
                if kind == "DELETED":
                    raise CliError(f"{name} was deleted while it was followed")
                yield seen, ""
            await tools.sleep(_PAUSE)
            continue
        except GoneError:
            await tools.sleep(_PAUSE)
        except UnavailableError as error:
            yield seen, f"lost sight of {name}: {clean(str(error))}; trying again"
            await tools.sleep(_AGAIN)
        try:
            seen = await get_rollout(connection, name)
        except UnavailableError:
            continue
        yield seen, ""


async def _changes(connection: Connection, seen: Object) -> AsyncIterator[tuple[str, Object]]:
    """Events of this one object after ``seen``; bookmarks only move the resourceVersion."""
    metadata = seen["metadata"]
    events = connection.api.watch(
        CANARY_ROLLOUTS,
        connection.namespace,
        resource_version=metadata["resourceVersion"],
        fields=f"metadata.name={metadata['name']}",
    )
    async for kind, found in events:
        if kind != "BOOKMARK":
            yield kind, found
