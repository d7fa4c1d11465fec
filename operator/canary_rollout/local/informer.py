"""One list-and-watch over a kind, with the gaps of broken connections filled in."""

import asyncio
from collections.abc import Callable
from typing import Literal

import aiohttp

from .client import KubeClient, Manifest
from .errors import ApiError

RETRY_SECONDS = 0.3
Change = Literal["ADDED", "MODIFIED", "DELETED"]
OnChange = Callable[[Change, Manifest], None]


async def follow(
    client: KubeClient,
    api_version: str,
    kind: str,
    on_change: OnChange,
    listed: asyncio.Event | None = None,
) -> None:
    """Call ``on_change`` for every object of all namespaces and each change of one, for ever.

    After a lost connection it lists again and reports what is new, different or gone since. ``listed`` is set when the
    first listing has been reported.
    """
    follower = _Follower(client, api_version, kind, on_change)
    while True:
        try:
            version = await follower.list()
            if listed is not None:
                listed.set()
            while True:
                version = await follower.watch(version)
        except ApiError as error:
            if error.status not in {410, 429, 500, 503, 504}:
                raise
        except (aiohttp.ClientError, TimeoutError):
            pass  # the API server is away or restarting: list again
        await asyncio.sleep(RETRY_SECONDS)


class _Follower:
    def __init__(self, client: KubeClient, api_version: str, kind: str, on_change: OnChange) -> None:
        self._client = client
        self._api_version, self._kind = api_version, kind
        self._on_change = on_change
        self._known: dict[str, Manifest] = {}

    async def list(self) -> str:
        items, version = await self._client.list_with_version(self._api_version, self._kind)
        listed = {item["metadata"]["uid"] for item in items}
        for uid in [uid for uid in self._known if uid not in listed]:
            self._report("DELETED", self._known[uid])
        for item in items:
            before = self._known.get(item["metadata"]["uid"])
            if before is None:
                self._report("ADDED", item)
            elif before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._report("MODIFIED", item)
        return version

    async def watch(self, version: str) -> str:
        async for event in self._client.stream(self._api_version, self._kind, resource_version=version):
            version = event.object["metadata"]["resourceVersion"]
            if event.type in {"ADDED", "MODIFIED", "DELETED"}:
                self._report(event.type, event.object)  # type: ignore[arg-type]  # mypy does not narrow by "in"
        return version

    def _report(self, change: Change, item: Manifest) -> None:
        uid = item["metadata"]["uid"]
        if change == "DELETED":
            self._known.pop(uid, None)
        else:
            self._known[uid] = item
        self._on_change(change, item)
