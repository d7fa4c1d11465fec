"""The same API server over HTTP on 127.0.0.1, for kopf, the real client and kubectl's simpler verbs."""

import asyncio
import json
import time
from email.utils import formatdate
from typing import Self
from urllib.parse import parse_qsl

import yaml
from aiohttp import web

from canary_rollout.kube.port import Resource
from fake_api.api import Call, Dropped, FakeApi
from fake_api.rows import WITH_STATUS, Failure

_PATCHES = {
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "merge",
    "application/json-patch+json": "json",
    "application/apply-patch+yaml": "apply",
}


class FakeServer:
    """``async with FakeServer(api) as server: server.url``. Another client name tells its calls from ours."""

    def __init__(self, api: FakeApi, *, client: str = "http") -> None:
        self.api, self.client = api, client
        self.url = ""
        self.port = 0
        self.authorizations: list[str | None] = []
        """``Authorization`` of every request, newest last."""
        self.accept: set[str] | None = None
        """Tokens that are let in; ``None``: everybody."""
        self.ahead = 0.0
        """Seconds that its clock is ahead of this process' one."""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.on_response_prepare.append(self._date)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.api.end_watches()
        await self._runner.cleanup()

    def kubeconfig(self, path, *, token: str = "secret-token", namespace: str = "default") -> str:
        """Write a kubeconfig for this server; its path."""
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "fake",
                    "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
                    "users": [{"name": "me", "user": {"token": token}}],
                    "contexts": [
                        {"name": "fake", "context": {"cluster": "fake", "user": "me", "namespace": namespace}}
                    ],
                }
            )
        )
        return str(path)

    async def _date(self, _: web.Request, response: web.StreamResponse) -> None:
        if self.ahead:
            response.headers["Date"] = formatdate(time.time() + self.ahead, usegmt=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.authorizations.append(request.headers.get("Authorization"))
        if self.accept is not None and request.headers.get("Authorization") not in self.accept:
            return self._failed(Failure(401, "Unauthorized", "Unauthorized"))
        if (found := self._discovery(request.path)) is not None:
            return web.json_response(found)
        try:
            return await self._resource(request)
        except Failure as failure:
            return self._failed(failure)
        except Dropped:
            request.transport.abort()
            return web.Response()

    @staticmethod
    def _failed(failure: Failure) -> web.Response:
        headers = {"Retry-After": str(failure.retry_after)} if failure.retry_after else {}
        return web.json_response(failure.status(), status=failure.code, headers=headers)

    async def _resource(self, request: web.Request) -> web.StreamResponse:
        resource, namespace, name, subresource = self._parse(request.path)
        query = dict(parse_qsl(request.query_string))
        if request.method == "GET" and name is None and query.get("watch") in {"1", "true"}:
            return await self._watch(request, resource, namespace, query)
        verb, act, body = await self._act(request, resource, namespace, name, subresource, query)
        call = Call(self.client, verb, resource, namespace, name, subresource, asyncio.get_running_loop().time(), body)
        answer = await self.api.call(call, act)
        return web.json_response(answer, status=201 if verb == "create" else 200)

    async def _act(self, request, resource, namespace, name, subresource, query):  # noqa: PLR0911 - one per verb
        store, method = self.api.store, request.method
        manager = query.get("fieldManager") or "unknown"
        where = (resource, namespace, name)
        if method == "GET" and name is None:
            options = {
                "labels": query.get("labelSelector", ""),
                "fields": query.get("fieldSelector", ""),
                "limit": int(query.get("limit") or 0),
                "token": query.get("continue", ""),
            }
            return "list", lambda: store.list_objects(resource, namespace, **options), None
        if method == "GET":
            return "get", lambda: store.get(*where), None
        if method == "DELETE":
            return "delete", lambda: store.delete(*where), None
        body = self._body(request, await request.read())
        if method == "POST":
            return "create", lambda: store.create(resource, namespace, body, manager=manager), body
        options = {"subresource": subresource, "manager": manager}
        if method == "PUT":
            return "update", lambda: store.replace(*where, body, **options), body
        match _PATCHES[request.content_type]:
            case "merge":
                return "patch", lambda: store.merge_patch(*where, body, **options), body
            case "json":
                dry = query.get("dryRun") == "All"
                return "patch", lambda: store.json_patch(*where, body, dry_run=dry, **options), body
            case _:
                force = query.get("force") == "true"
                return "patch", lambda: store.apply(*where, body, force=force, **options), body

    @staticmethod
    def _body(request, data: bytes):
        if request.method == "PATCH" and request.content_type not in _PATCHES:
            raise Failure(415, "UnsupportedMediaType", f"patches of {request.content_type} are not supported")
        if "protobuf" in request.content_type:
            raise Failure(415, "UnsupportedMediaType", "protobuf is not supported")
        try:
            return yaml.safe_load(data) if "yaml" in request.content_type else json.loads(data)
        except (ValueError, yaml.YAMLError) as error:
            raise Failure(400, "BadRequest", f"the body does not parse: {error}") from error

    async def _watch(self, request, resource, namespace, query) -> web.StreamResponse:
        call = Call(self.client, "watch", resource, namespace, None, "", asyncio.get_running_loop().time())
        seconds = float(query["timeoutSeconds"]) if query.get("timeoutSeconds") else None
        stream = self.api.watch(
            call,
            version=query.get("resourceVersion", ""),
            labels=query.get("labelSelector", ""),
            fields=query.get("fieldSelector", ""),
            seconds=seconds,
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async for kind, obj in stream:
                await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")
        except ConnectionResetError:
            return response
        finally:
            await stream.aclose()
        return response

    def _parse(self, path: str) -> tuple[Resource, str | None, str | None, str]:
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            group, version, rest = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            raise Failure(404, "NotFound", f"the server could not find {path}")
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        name, subresource = [*rest[1:], None, None][:2]
        for resource in self.api.store.resources:
            if (resource.group, resource.version, resource.plural) == (group, version, rest[0]):
                return resource, namespace, name, subresource or ""
        raise Failure(404, "NotFound", "the server could not find the requested resource")

    def _discovery(self, path: str) -> dict | None:  # noqa: PLR0911 - one per path
        resources = self.api.store.resources
        groups: dict[str, list[str]] = {}
        for resource in resources:
            if resource.group and resource.version not in groups.setdefault(resource.group, []):
                groups[resource.group].append(resource.version)
        parts = path.strip("/").split("/")
        match parts:
            case ["version"]:
                return {"major": "1", "minor": "36", "gitVersion": "v1.36.3-fake"}
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                return {
                    "kind": "APIGroupList",
                    "apiVersion": "v1",
                    "groups": [_group(*item) for item in groups.items()],
                }
            case ["apis", group] if group in groups:
                return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, groups[group])}
            case ["api", version]:
                return _listing("", version, resources)
            case ["apis", group, version] if version in groups.get(group, ()):
                return _listing(group, version, resources)
        return None


def _group(name: str, versions: list[str]) -> dict:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _listing(group: str, version: str, resources: list[Resource]) -> dict:
    found = []
    for resource in resources:
        if (resource.group, resource.version) == (group, version):
            entry = {
                "name": resource.plural,
                "singularName": resource.kind.lower(),
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            }
            found.append(entry)
            if resource.plural in WITH_STATUS:
                found.append({**entry, "name": f"{resource.plural}/status", "verbs": ["get", "patch", "update"]})
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": found,
    }
