"""The Kubernetes API over the official asyncio client, at the layer below its typed models.

``ApiClient.call_api`` keeps what is hard to get right (kubeconfig, exec plugins, TLS, in-cluster tokens that are re-read)
and takes and gives plain dicts. ``kubernetes`` itself is imported when the first client is made: it costs half a second
and 24 MB, which ``kubectl canary --help`` must not pay.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from canary_rollout.kube.answers import error_of, watch_error
from canary_rollout.kube.lines import lines
from canary_rollout.kube.login import ConfigError, Connection, Login, by_kubeconfig, by_service_account
from canary_rollout.kube.port import (
    FIELD_MANAGER,
    ApiError,
    GoneError,
    NotFoundError,
    Object,
    Resource,
    UnavailableError,
)

PAGE: Final = 500
"""Objects per page of a list."""
WATCH_SILENCE: Final = 75.0
"""Seconds without a byte after which a watch is taken for dead; the API server sends a bookmark about every 60 s."""
_RELOGIN_EVERY: Final = 10.0


class CallObserver(Protocol):
    """Told about every call, for metrics and for the clock guard. Must not block."""

    def call(self, verb: str, resource: Resource, code: int, seconds: float) -> None:
        """One call has ended: ``verb`` as RBAC names it, HTTP ``code`` (0: no answer)."""
        ...

    def server_date(self, server: float, sent: float, received: float) -> None:
        """The server's ``Date`` (POSIX seconds, whole) and our wall clock around the call that carried it."""
        ...


class Client:
    """:class:`kube.port.KubeApi` over HTTP. Make it with :meth:`from_kubeconfig` or :meth:`in_cluster`, inside the event loop."""

    def __init__(
        self,
        api_client: Any,
        *,
        observer: CallObserver | None = None,
        timeout: float = 10.0,
        relogin: Callable[[], Awaitable[None]] | None = None,
        namespace: str = "default",
    ) -> None:
        self._api = api_client
        self._configuration = api_client.configuration
        self._observer = observer
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._relogin = relogin
        self._relogin_at = -_RELOGIN_EVERY
        self.namespace = namespace
        """Namespace of the kubeconfig's context, or of the pod."""

    @classmethod
    async def from_kubeconfig(
        cls,
        path: str | None = None,
        *,
        context: str | None = None,
        observer: CallObserver | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109 - of the calls that will be made
    ) -> "Client":
        """Connect as kubectl would: ``path``, else ``KUBECONFIG``, else the default file.

        Raises:
            ConfigError: the file is missing or says nothing usable.
        """
        login = await by_kubeconfig(path, context=context)
        return cls._of(login, observer, timeout)

    @classmethod
    def in_cluster(cls, *, observer: CallObserver | None = None, timeout: float = 10.0) -> "Client":
        """Connect with the pod's service account; its token is read again every minute.

        Raises:
            ConfigError: the process does not run in a pod.
        """
        return cls._of(by_service_account(), observer, timeout)

    @classmethod
    def _of(cls, login: Login, observer: CallObserver | None, timeout: float) -> "Client":
        # Half a second of import that only those pay who talk to a cluster.
        from kubernetes.aio.client.api_client import ApiClient  # noqa: PLC0415

        return cls(
            ApiClient(login.configuration),
            observer=observer,
            timeout=timeout,
            relogin=login.again,
            namespace=login.namespace,
        )

    def with_timeout(self, seconds: float) -> "Client":
        """The same connection with another time limit per call; for lowerings, which should fail and repeat quickly."""
        twin = object.__new__(Client)
        twin.__dict__.update(self.__dict__)
        twin._timeout = aiohttp.ClientTimeout(total=seconds)
        return twin

    def apart(self, seconds: float) -> "Client":
        """The same cluster over a connection of its own: its calls never wait for others'. To be closed as well."""
        twin = self.with_timeout(seconds)
        twin.__dict__["_api"] = type(self._api)(self._configuration)
        return twin

    async def connection(self) -> Connection:
        """Address and credentials as they are now (tokens are refreshed by this)."""
        c = self._configuration
        return Connection(
            server=c.host,
            ca_path=c.ssl_ca_cert,
            verify=c.verify_ssl,
            authorization=await self._authorization(),
            certificate_path=c.cert_file,
            key_path=c.key_file,
            proxy=c.proxy,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object. Raises NotFoundError."""
        return await self._call("get", "GET", resource, namespace, name)

    async def list_all(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """All objects and the list's resourceVersion, in pages of :data:`PAGE`."""
        query = _selectors(labels, fields) | {"limit": str(PAGE)}
        items: list[Object] = []
        while True:
            try:
                page = await self._call("list", "GET", resource, namespace, query=query)
            except GoneError:
                if "continue" not in query:
                    raise
                # The list outlived its continue token: take all in one piece, as client-go does.
                query = _selectors(labels, fields)
                items = []
                continue
            items.extend(page.get("items") or ())
            metadata = page.get("metadata") or {}
            if not (token := metadata.get("continue")):
                break
            query["continue"] = token
        for item in items:
            # Lists of built-in kinds leave these out of their items; everything after this relies on them.
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return items, metadata.get("resourceVersion", "")

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Create; ConflictError when it exists."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("create", "POST", resource, namespace, query=query, body=body)

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
        """Server-side apply; ``apiVersion``, ``kind`` and ``metadata.name`` are filled in."""
        metadata = {**body.get("metadata", {}), "name": name}
        full = {"apiVersion": resource.api_version, "kind": resource.kind, **body, "metadata": metadata}
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        kind = "application/apply-patch+yaml"
        return await self._call("patch", "PATCH", resource, namespace, name, query=query, body=full, content=kind)

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
        """JSON merge patch."""
        return await self._call(
            "patch",
            "PATCH",
            resource,
            namespace,
            name,
            subresource=subresource,
            query={"fieldManager": manager},
            body=body,
            content="application/merge-patch+json",
        )

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
        """JSON patch; a ``test`` that does not hold raises ConflictError. ``dry_run``: the answer is made, nothing is stored."""
        return await self._call(
            "patch",
            "PATCH",
            resource,
            namespace,
            name,
            subresource=subresource,
            query={"fieldManager": manager} | ({"dryRun": "All"} if dry_run else {}),
            body=operations,
            content="application/json-patch+json",
        )

    async def delete(self, resource: Resource, namespace: str | None, name: str) -> None:
        """Delete in the background; an object that is already gone is fine."""
        try:
            await self._call("delete", "DELETE", resource, namespace, name, query={"propagationPolicy": "Background"})
        except NotFoundError:
            return

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str = "",
        fields: str = "",
        timeout: float = 290.0,  # noqa: ASYNC109 - it is the server's to keep, not ours
    ) -> AsyncIterator[tuple[str, Object]]:
        """Events after ``resource_version`` until the server ends the watch or nothing came for :data:`WATCH_SILENCE`."""
        query = _selectors(labels, fields) | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(int(timeout)),
        }
        # No total: a watch is meant to last.
        limit = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.total, sock_read=WATCH_SILENCE)
        target = _target(resource, namespace)
        response = await self._send("watch", "GET", resource, target, query=query, timeout=limit)
        try:
            if response.status != 200:
                raise error_of("watch", target, response.status, await response.read(), response.headers)
            async for line in lines(response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise watch_error(target, event["object"])
                yield event["type"], event["object"]
        except TimeoutError:
            return  # silent for too long: the caller goes on from the last resourceVersion
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UnavailableError(f"watch {target} broke off: {_text(error)}") from error
        finally:
            response.close()

    async def _call(  # noqa: PLR0913 - one funnel for every verb
        self,
        verb: str,
        method: str,
        resource: Resource,
        namespace: str | None,
        name: str | None = None,
        *,
        subresource: str | None = None,
        query: dict[str, str] | None = None,
        body: Object | list[Object] | None = None,
        content: str = "application/json",
    ) -> Object:
        """One request, its answer as a dict. Raises ApiError."""
        target = _target(resource, namespace, name, subresource)
        response = await self._send(verb, method, resource, target, query=query, body=body, content=content)
        try:
            data = await response.read()
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise UnavailableError(f"{verb} {target}: the answer broke off: {_text(error)}") from error
        if response.status >= 300:
            raise error_of(verb, target, response.status, data, response.headers, operations=body)
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise UnavailableError(f"{verb} {target}: the answer is not JSON; is this an API server?") from error
        if not isinstance(answer, dict):
            raise UnavailableError(f"{verb} {target}: the answer is not an object; is this an API server?")
        return answer

    async def _send(  # noqa: PLR0913 - one funnel for every verb
        self,
        verb: str,
        method: str,
        resource: Resource,
        target: str,
        *,
        query: dict[str, str] | None,
        body: Object | list[Object] | None = None,
        content: str = "application/json",
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - passed on to aiohttp
    ) -> aiohttp.ClientResponse:
        """Send one request, logging in again once when the credentials have run out."""
        # Built by ourselves from quoted parts: yarl then need not parse and quote it once more.
        url = URL(f"{self._configuration.host}{target}" + (f"?{urlencode(query)}" if query else ""), encoded=True)
        while True:
            headers = {"Accept": "application/json", "Content-Type": content, "User-Agent": FIELD_MANAGER}
            if authorization := await self._authorization():
                headers["authorization"] = authorization
            sent, started, code = time.time(), time.perf_counter(), 0
            try:
                answer = await self._api.call_api(
                    method, url, header_params=headers, body=body, _request_timeout=timeout or self._timeout
                )
                response: aiohttp.ClientResponse = answer.response
                code = response.status
            except (aiohttp.ClientError, OSError) as error:
                raise UnavailableError(f"{verb} {target}: no answer from the API server: {_text(error)}") from error
            finally:
                if self._observer is not None:
                    self._observer.call(verb, resource, code, time.perf_counter() - started)
            self._note_date(response, sent)
            if code == 401 and await self._login_again():
                response.release()
                continue
            return response

    async def _authorization(self) -> str | None:
        value: str | None = await self._configuration.get_api_key_with_prefix("BearerToken")
        return value

    async def _login_again(self) -> bool:
        """Read the credentials anew, at most every few seconds; whether that was done."""
        now = time.monotonic()
        if self._relogin is None or now - self._relogin_at < _RELOGIN_EVERY:
            return False
        self._relogin_at = now
        try:
            await self._relogin()
            if self._configuration.cert_file:
                await self._connect_anew()
        except (ConfigError, OSError):
            return False  # the file is just being replaced, perhaps: whoever calls is told of the 401, and calls again
        return True

    async def _connect_anew(self) -> None:
        """A certificate is shown when a connection is made, so those that are open go."""
        before = self._api.rest_client
        self._api.rest_client = type(before)(self._configuration)
        await before.close()

    def _note_date(self, response: aiohttp.ClientResponse, sent: float) -> None:
        """Hand the server's ``Date`` to the observer."""
        if self._observer is None or (date := response.headers.get("Date")) is None:
            return
        try:
            server = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return  # a proxy's invention; the guard works with those that parse
        self._observer.server_date(server, sent, time.time())


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


def _target(resource: Resource, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
    """URL path with every name quoted, so that a name can never become a path."""
    return resource.path(
        None if namespace is None else quote(namespace, safe=""),
        None if name is None else quote(name, safe=""),
        subresource,
    )


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


__all__ = ["ApiError", "CallObserver", "Client", "ConfigError", "Connection"]
