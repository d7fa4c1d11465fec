"""A KubeApi that puts the answer of every write into the cache at once, so that the next look already sees it.

An answer may also hold what somebody else wrote a moment before. The watch will not tell it again (it is no news any
more), so whoever listens is told from here.
"""

from collections.abc import AsyncIterator

from canary_rollout.kube.cache import Cache, Change, Listener
from canary_rollout.kube.port import FIELD_MANAGER, KubeApi, NotFoundError, Object, Resource


class RecordingApi:
    """:class:`kube.port.KubeApi` around another one. Reads by name are recorded too: they are fresher than the cache."""

    def __init__(self, api: KubeApi, cache: Cache, *, noticed: Listener | None = None) -> None:
        """Create it.

        Args:
            api: does the calls.
            cache: takes the answers in.
            noticed: told of every answer that was news; unlike the cache's listeners it is told of our own writes.
        """
        self._api = api
        self._cache = cache
        self._noticed = noticed

    def _record(self, resource: Resource, answer: Object) -> Object:
        metadata = answer["metadata"]
        namespace, name = metadata.get("namespace") or "", metadata["name"]
        before = self._cache.get(resource, namespace, name)
        if self._cache.record(resource, answer) and self._noticed is not None:
            self._noticed(Change(resource, namespace, name, before=before, after=answer))
        return answer

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object; its absence is recorded as well."""
        try:
            return self._record(resource, await self._api.get(resource, namespace, name))
        except NotFoundError:
            self._cache.remove(resource, namespace, name, quiet=True)
            raise

    async def list_all(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """A list; not recorded, since it may be a part of the whole."""
        return await self._api.list_all(resource, namespace, labels=labels, fields=fields)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Create and record."""
        return self._record(resource, await self._api.create(resource, namespace, body))

    async def apply(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        manager: str = FIELD_MANAGER,
        force: bool = True,
    ) -> Object:
        """Server-side apply and record."""
        answer = await self._api.apply(resource, namespace, name, body, manager=manager, force=force)
        return self._record(resource, answer)

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: str | None = None,
        manager: str = FIELD_MANAGER,
    ) -> Object:
        """Merge patch and record."""
        answer = await self._api.merge_patch(resource, namespace, name, body, subresource=subresource, manager=manager)
        return self._record(resource, answer)

    async def json_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        operations: list[Object],
        *,
        subresource: str | None = None,
        manager: str = FIELD_MANAGER,
        dry_run: bool = False,
    ) -> Object:
        """JSON patch and record (unless it was a dry run)."""
        answer = await self._api.json_patch(
            resource, namespace, name, operations, subresource=subresource, manager=manager, dry_run=dry_run
        )
        return answer if dry_run else self._record(resource, answer)

    async def delete(self, resource: Resource, namespace: str | None, name: str) -> None:
        """Delete; the watch brings the news, since a finalizer may keep the object."""
        await self._api.delete(resource, namespace, name)

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str = "",
        fields: str = "",
        timeout: float = 290.0,
    ) -> AsyncIterator[tuple[str, Object]]:
        """Pass through; the informers feed the cache."""
        return self._api.watch(
            resource, namespace, resource_version=resource_version, labels=labels, fields=fields, timeout=timeout
        )
