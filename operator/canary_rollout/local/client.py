"""A thin asynchronous Kubernetes client: plain dicts in, plain dicts out.

Straight on aiohttp instead of ``kubernetes.aio``: importing the latter's client costs a second and 60 MB for models
that nothing here uses, and every pod process of the demo would pay for it too.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import aiohttp

from canary_rollout.kube.lines import lines

from .errors import ApiError, LocalClusterError

Manifest = dict[str, Any]
Manifests = list[Manifest]  # KubeClient.list would shadow the builtin inside the class
PatchType = Literal["merge", "strategic", "json", "apply"]

CONTENT_TYPES: Mapping[PatchType, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
FIELD_MANAGER = "canary-rollout-local"
REQUEST_TIMEOUT_SECONDS = 30.0
WATCH_SECONDS = 600
READY_AGAIN_TRIES, READY_AGAIN_PAUSE_SECONDS = 60, 0.25


@dataclass(frozen=True)
class WatchEvent:
    """One line of a watch: ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``, and the object."""

    type: str
    object: Manifest


@dataclass(frozen=True)
class _Resource:
    plural: str
    namespaced: bool


class KubeClient:
    """One user's connection to the API server. Use as an async context manager, or call :meth:`close`.

    Objects are addressed by ``apiVersion`` and ``kind`` as in a manifest; plurals come from discovery, once per group.

    Args:
        server: URL of the API server.
        ca: its certificate authority, PEM.
        token: bearer token.
        user_agent: what the audit log shows.
    """

    def __init__(self, server: str, ca: bytes, token: str, *, user_agent: str = FIELD_MANAGER) -> None:
        self.server = server
        self.ca = ca
        self.token = token
        self._ssl = ssl.create_default_context(cadata=ca.decode())
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._ssl, limit=64),
            headers={"Authorization": f"Bearer {token}", "User-Agent": user_agent},
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS),
        )
        self._resources: dict[tuple[str, str], _Resource] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    # -- requests ---------------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Any:
        """Send one request and return the decoded JSON (or the text, when the answer is no JSON).

        Raises:
            ApiError: the answer's status is 400 or above.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if data is not None else {}
        async with self._session.request(
            method, self.server + path, params=query or {}, data=data, headers=headers
        ) as response:
            decoded = await _decoded(response)
            if response.status >= 400:
                raise _error(response.status, decoded)
            return decoded

    async def path_of(self, api_version: str, kind: str, name: str = "", namespace: str = "") -> str:
        """Return the URL path of an object, or of its collection when ``name`` is empty."""
        resource = await self._resource(api_version, kind)
        prefix = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        middle = f"/namespaces/{namespace}" if resource.namespaced and namespace else ""
        if resource.namespaced and name and not namespace:
            raise LocalClusterError(f"{kind} {name!r} is namespaced: give a namespace")
        return f"{prefix}{middle}/{resource.plural}" + (f"/{name}" if name else "")

    async def _resource(self, api_version: str, kind: str) -> _Resource:
        known = self._resources.get((api_version, kind))
        # A CRD's kind appears in discovery a moment after its creation, so a miss asks again.
        for _ in range(READY_AGAIN_TRIES):
            if known is not None:
                return known
            await self._discover(api_version)
            known = self._resources.get((api_version, kind))
            if known is None:
                await asyncio.sleep(READY_AGAIN_PAUSE_SECONDS)
        raise LocalClusterError(f"the API server knows no kind {kind} in {api_version}: is its CRD applied?")

    async def _discover(self, api_version: str) -> None:
        prefix = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        try:
            listed = await self.request("GET", prefix)
        except ApiError as error:
            if error.status in {404, 503}:
                return
            raise
        for item in listed["resources"]:
            if "/" not in item["name"]:
                self._resources[api_version, item["kind"]] = _Resource(item["name"], item["namespaced"])

    # -- objects ----------------------------------------------------------------------------------------------------

    async def get(self, api_version: str, kind: str, name: str, *, namespace: str = "") -> Manifest:
        """Return one object; :class:`ApiError` with status 404 when there is none."""
        answer: Manifest = await self.request("GET", await self.path_of(api_version, kind, name, namespace))
        return answer

    async def find(self, api_version: str, kind: str, name: str, *, namespace: str = "") -> Manifest | None:
        """Return one object, or None when there is none."""
        try:
            return await self.get(api_version, kind, name, namespace=namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, api_version: str, kind: str, *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Manifests:
        """Return the objects of one namespace, or of all when it is empty."""
        items, _ = await self.list_with_version(
            api_version, kind, namespace=namespace, label_selector=label_selector, field_selector=field_selector
        )
        return items

    async def list_with_version(
        self, api_version: str, kind: str, *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> tuple[Manifests, str]:
        """Return the objects and the resourceVersion from which a watch continues."""
        answer = await self.request(
            "GET",
            await self.path_of(api_version, kind, namespace=namespace),
            query=_selectors(label_selector, field_selector),
        )
        items: Manifests = answer["items"] or []
        for item in items:  # lists leave these out of their items
            item.setdefault("apiVersion", api_version)
            item.setdefault("kind", kind)
        return items, answer["metadata"]["resourceVersion"]

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object as the manifest says."""
        metadata = manifest["metadata"]
        path = await self.path_of(manifest["apiVersion"], manifest["kind"], namespace=metadata.get("namespace", ""))
        answer: Manifest = await self._while_initializing("POST", path, manifest)
        return answer

    async def apply(
        self, manifest: Manifest, *, field_manager: str = FIELD_MANAGER, force: bool = True, namespace: str = ""
    ) -> Manifest:
        """Server-side apply one manifest, ``namespace`` being the default for one that names none.

        A 429 "storage is (re)initializing", which a new CRD gives for a moment, is waited out.
        """
        metadata = manifest["metadata"]
        path = await self.path_of(
            manifest["apiVersion"], manifest["kind"], metadata["name"], metadata.get("namespace", namespace)
        )
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        answer: Manifest = await self._while_initializing("PATCH", path, manifest, query, CONTENT_TYPES["apply"])
        return answer

    async def apply_all(
        self, manifests: Sequence[Manifest], *, field_manager: str = FIELD_MANAGER, namespace: str = ""
    ) -> Manifests:
        """Server-side apply several manifests, in their order."""
        return [await self.apply(one, field_manager=field_manager, namespace=namespace) for one in manifests]

    async def patch(  # noqa: PLR0913  # what the API's own verb takes
        self,
        api_version: str,
        kind: str,
        name: str,
        body: object,
        *,
        namespace: str = "",
        patch_type: PatchType = "merge",
        subresource: str = "",
        field_manager: str = FIELD_MANAGER,
    ) -> Manifest:
        """Patch an object or its subresource (``"status"``, ``"scale"``)."""
        path = await self.path_of(api_version, kind, name, namespace)
        answer: Manifest = await self.request(
            "PATCH",
            path + (f"/{subresource}" if subresource else ""),
            query={"fieldManager": field_manager},
            body=body,
            content_type=CONTENT_TYPES[patch_type],
        )
        return answer

    async def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        *,
        namespace: str = "",
        grace_seconds: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        uid: str = "",
    ) -> bool:
        """Delete an object; returns False when there was none (or another one under that name, with ``uid``)."""
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", await self.path_of(api_version, kind, name, namespace), body=options)
        except ApiError as error:
            if error.status == 404 or (uid and error.status == 409):
                return False
            raise
        return True

    # -- watching ---------------------------------------------------------------------------------------------------

    async def stream(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Watch objects until the server ends it (after about ten minutes) or the caller stops iterating.

        Without ``resource_version`` it begins with an ``ADDED`` for everything there is.

        Raises:
            ApiError: 410 when ``resource_version`` is too old: list again.
        """
        query = _selectors(label_selector, field_selector)
        query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        if resource_version:
            query["resourceVersion"] = resource_version
        path = await self.path_of(api_version, kind, namespace=namespace)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT_SECONDS, sock_read=WATCH_SECONDS + 60)
        async with self._session.get(
            self.server + path, params=query, timeout=timeout, read_bufsize=1 << 22
        ) as response:
            if response.status >= 400:
                raise _error(response.status, await _decoded(response))
            async for line in lines(response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(event["object"].get("code", 500), event["object"])
                yield WatchEvent(event["type"], event["object"])

    async def wait_for(
        self,
        api_version: str,
        kind: str,
        name: str,
        predicate: Callable[[Manifest], bool],
        *,
        namespace: str = "",
        timeout: float = 30.0,  # noqa: ASYNC109  # part of the condition that the message names
        what: str = "",
    ) -> Manifest:
        """Return the object as soon as ``predicate`` holds for it.

        Raises:
            LocalClusterError: it did not within ``timeout`` seconds; the message carries the last status seen.
        """
        last: Manifest | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    events = self.stream(api_version, kind, namespace=namespace, field_selector=f"metadata.name={name}")
                    async for event in events:
                        if event.type in {"ADDED", "MODIFIED"}:
                            last = event.object
                            if predicate(last):
                                return last
        except TimeoutError:
            seen = "it never existed" if last is None else f"last status: {json.dumps(last.get('status'))}"
            raise LocalClusterError(
                f"{kind} {namespace}/{name} did not become {what or 'as expected'} within {timeout:g} s; {seen}"
            ) from None

    async def wait_gone(
        self,
        api_version: str,
        kind: str,
        name: str,
        *,
        namespace: str = "",
        timeout: float = 30.0,  # noqa: ASYNC109  # part of the condition that the message names
    ) -> None:
        """Return when the object does not exist any more.

        Raises:
            LocalClusterError: it still does after ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    items, version = await self.list_with_version(
                        api_version, kind, namespace=namespace, field_selector=f"metadata.name={name}"
                    )
                    if not items:
                        return
                    async for event in self.stream(
                        api_version,
                        kind,
                        namespace=namespace,
                        field_selector=f"metadata.name={name}",
                        resource_version=version,
                    ):
                        if event.type == "DELETED":
                            return
        except TimeoutError:
            raise LocalClusterError(f"{kind} {namespace}/{name} still exists after {timeout:g} s") from None

    async def service_account_token(self, namespace: str, name: str, *, seconds: int = 86_400) -> str:
        """Return a real token of a ServiceAccount (TokenRequest)."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        answer = await self.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", body=body)
        return str(answer["status"]["token"])

    async def _while_initializing(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        for attempt in range(READY_AGAIN_TRIES):
            try:
                return await self.request(method, path, query=query, body=body, content_type=content_type)
            except ApiError as error:
                last_try = attempt == READY_AGAIN_TRIES - 1
                if last_try or not (error.status == 429 and "initializing" in str(error)):
                    raise
                await asyncio.sleep(READY_AGAIN_PAUSE_SECONDS)
        raise AssertionError("the loop returns or raises")


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    query = {}
    if label_selector:
        query["labelSelector"] = label_selector
    if field_selector:
        query["fieldSelector"] = field_selector
    return query


async def _decoded(response: aiohttp.ClientResponse) -> Any:
    """JSON, or the text where it is none: a kind that is gone is answered with ``404 page not found``."""
    text = await response.text()
    return json.loads(text) if response.content_type == "application/json" and text else text


def _error(status: int, body: Any) -> ApiError:
    if isinstance(body, dict):
        return ApiError(status, body.get("reason") or "Unknown", body.get("message") or "no message", body)
    return ApiError(status, "Unknown", str(body)[:500], {})
