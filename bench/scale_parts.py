"""The cast of `bench/scale.py`: everything around the operator that has to be there but is not what is measured.

The API server, etcd and the controller manager are real. Pods run on paper (a node that only says they are ready),
proxies acknowledge on paper, and Prometheus' part is a server that speaks its wire format and answers at once.
"""

import asyncio
import contextlib
import json
import multiprocessing
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from canary_rollout.kube.client import Client
from canary_rollout.kube.port import CONFIG_MAPS, LEASES, MANAGED_BY, OPERATOR, PODS, ApiError
from canary_rollout.local.client import KubeClient
from canary_rollout.local.errors import LocalClusterError
from canary_rollout.traffic.nginx.ack import Ack, to_lease
from canary_rollout.traffic.nginx.document import parse

AT_ONCE = 24


class PaperNode:
    """Binds every pod and says it is ready."""

    def __init__(self, client: Client, local: KubeClient) -> None:
        self._client = client
        self._local = local
        self._free = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0

    async def run(self) -> None:
        items, version = await self._client.list_all(PODS)
        for pod in items:
            self._start(pod)
        while True:
            async for kind, pod in self._client.watch(PODS, resource_version=version):
                version = pod["metadata"]["resourceVersion"]
                if kind in {"ADDED", "MODIFIED"}:
                    self._start(pod)

    def _start(self, pod: dict) -> None:
        deleted = pod["metadata"].get("deletionTimestamp")
        if deleted or pod.get("status", {}).get("phase") != "Running":
            task = asyncio.create_task(self._delete(pod) if deleted else self._ready(pod))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ready(self, pod: dict) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._number += 1
        status = {
            "phase": "Running",
            "podIP": f"10.244.{self._number // 250 % 250}.{self._number % 250 + 1}",
            "startTime": now,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("Ready", "ContainersReady")
            ],
            "containerStatuses": [
                {
                    "name": "app",
                    "ready": True,
                    "restartCount": 0,
                    "image": "app",
                    "imageID": "",
                    "state": {"running": {"startedAt": now}},
                }
            ],
        }
        async with self._free:
            with contextlib.suppress(ApiError):  # gone meanwhile, or another look at the same pod
                await self._client.merge_patch(PODS, namespace, name, {"status": status}, subresource="status")

    async def _delete(self, pod: dict) -> None:
        async with self._free:
            with contextlib.suppress(LocalClusterError):
                await self._local.delete(
                    "v1", "Pod", pod["metadata"]["name"], namespace=pod["metadata"]["namespace"], grace_seconds=0
                )


class PaperProxies:
    """Acknowledges every ConfigMap of ours, and notes when each rollout was first told weight 0 again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._free = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.weights: dict[str, int] = {}
        self.at: dict[str, float] = {}
        self.changed = asyncio.Event()

    async def run(self) -> None:
        labels = f"{MANAGED_BY}={OPERATOR}"
        items, version = await self._client.list_all(CONFIG_MAPS, labels=labels)
        for item in items:
            self._take(item)
        while True:
            async for kind, item in self._client.watch(CONFIG_MAPS, resource_version=version, labels=labels):
                version = item["metadata"]["resourceVersion"]
                if kind in {"ADDED", "MODIFIED"}:
                    self._take(item)

    def _take(self, item: dict) -> None:
        text = item.get("data", {}).get("weights.json")
        if not text:
            return
        document = parse(text)
        key = f"{document.namespace}/{document.rollout}"
        if self.weights.get(key) != document.weight:
            self.weights[key], self.at[key] = document.weight, time.monotonic()
            self.changed.set()
        task = asyncio.create_task(self._acknowledge(item, document))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _acknowledge(self, item: dict, document: object) -> None:
        now = time.time()
        pod = f"proxy-{document.rollout}"
        ack = Ack(
            pod,
            item["metadata"]["name"],
            document.rollout,
            document.identity,
            now,
            document.config,
            "njs",
            document.weight,
            "",
            "1.31.3",
            now,
            86_400,
        )
        lease = to_lease(ack, document.namespace, "")
        async with self._free:
            await self._client.apply(
                LEASES, document.namespace, lease["metadata"]["name"], lease, manager="paper-agent"
            )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(parse_qs(urlsplit(self.path).query))

    def do_POST(self) -> None:
        self._answer(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))

    def _answer(self, parameters: dict[str, list[str]]) -> None:
        query, at = parameters["query"][0], parameters.get("time", [""])[0]
        self.server.queries.value += 1
        bad = bool(self.server.bad.value)
        key = (query, bad)
        if key not in self.server.bodies:
            self.server.bodies[key] = _series(query, self.server.arms, bad=bad)
        # A range is stable's past, of which there is none here.
        result = self.server.bodies[key].replace("@", at).replace("#", _risen(query, at)) if at else ""
        kind = "vector" if at else "matrix"
        body = f'{{"status":"success","data":{{"resultType":"{kind}","result":[{result}]}}}}'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the operator is ended while it asks
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _series(query: str, arms: list[tuple[str, str]], *, bad: bool) -> str:
    """Every arm in the namespaces that the query names, with one value by what is asked; a plain app has nothing else."""
    if "http_request" not in query:
        return ""
    found = re.search(r'namespace=~?"([^"]*)"', query)
    wanted = set(found[1].split("|")) if found else set()
    parts = []
    for namespace, arm in arms:
        if namespace not in wanted:
            continue
        if "by (namespace, pod" in query:
            metric = {"namespace": namespace, "pod": f"{arm}-abcde"} | ({"le": "+Inf"} if "le)" in query else {})
            parts.append(json.dumps({"metric": metric, "value": ["@", "#"]}).replace('"@"', "@"))
            continue
        value = "263" if "-canary-" in arm else "5000"  # of the requests, as the weight of 5 % says
        if "histogram_quantile" in query:
            value = "0.2"
        elif "increase" not in query and "/" in query:
            value = "0.5" if bad and "-canary-" in arm else "0.001"
        parts.append(
            json.dumps({"metric": {"namespace": namespace, "cr_arm": f"{arm}-"}, "value": ["@", value]}).replace(
                '"@"', "@"
            )
        )
    return ",".join(parts)


def _risen(query: str, at: str) -> str:
    """Cumulative counters of a pod: ten requests a second, one of a thousand fails."""
    seconds = float(at) % 1e6
    return f"{seconds * (0.01 if 'or 0 *' in query else 10):.0f}"


def _serve(connection: object, queries: object, bad: object) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.queries, server.bad, server.bodies, server.arms = queries, bad, {}, []
    connection.send(server.server_address[1])

    def begin() -> None:
        server.arms = connection.recv()
        server.bodies = {}

    threading.Thread(target=begin, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


class PaperPrometheus:
    """A process that answers every instant query at once."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._queries, self._bad = context.Value("l", 0), context.Value("b", 0)
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self._queries, self._bad), daemon=True)
        self._process.start()
        self.url = f"http://127.0.0.1:{self._connection.recv()}"

    def begin(self, arms: list[tuple[str, str]]) -> None:
        """Answer from now on: (namespace, ReplicaSet) of every arm."""
        self._connection.send(arms)

    def turn_bad(self) -> None:
        """Every canary fails half of its requests from now on."""
        self._bad.value = 1

    @property
    def queries(self) -> int:
        """Queries answered so far."""
        return self._queries.value

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
