"""The node ``local``: takes every pod of the cluster and runs its containers as processes of this machine."""

import asyncio
import json
import logging
import os
from collections.abc import Coroutine
from pathlib import Path

import aiohttp

from .addresses import CLAIM_PORT, AddressPlan, PodAddresses
from .client import KubeClient, Manifest
from .errors import ApiError
from .images import ImageRegistry
from .informer import Change, follow
from .pod import PodRunner
from .podstatus import timestamp
from .process import ProcessTable
from .prometheus import target_groups

NODE_NAME = "local"
MEMORY_CHECK_SECONDS = 0.25
EVENT_QUEUE_SIZE = 500
TARGETS_PAUSE_SECONDS = 0.2
TOKEN_SECONDS = 30 * 86_400
PASSED_ON_VARIABLES = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")

log = logging.getLogger(__name__)


class ConfigCache:
    """ConfigMaps and Secrets as the watch last showed them."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Manifest] = {}

    def configmap(self, namespace: str, name: str) -> Manifest | None:
        """Return a ConfigMap, or None when there is none."""
        return self._objects.get(("configmap", namespace, name))

    def secret(self, namespace: str, name: str) -> Manifest | None:
        """Return a Secret, or None when there is none."""
        return self._objects.get(("secret", namespace, name))

    def store(self, what: str, change: Change, item: Manifest) -> None:
        """Take over one change."""
        key = (what, item["metadata"]["namespace"], item["metadata"]["name"])
        if change == "DELETED":
            self._objects.pop(key, None)
        else:
            self._objects[key] = item


class Node:
    """Scheduler and kubelet in one.

    Args:
        client: administrator's client.
        table: where the processes are registered.
        directory: for pods' volumes and logs.
        images: image name -> command; may be changed while the node runs.
        plan: the addresses.
        time_scale: factor on the back-off of restarts and image pulls (1.0 as a kubelet).
    """

    def __init__(
        self,
        client: KubeClient,
        table: ProcessTable,
        directory: Path,
        images: ImageRegistry,
        plan: AddressPlan,
        *,
        time_scale: float = 1.0,
    ) -> None:
        self.client = client
        self.table = table
        self.directory = directory
        self.images = images
        self.time_scale = time_scale
        self.name = NODE_NAME
        self.ip = plan.node_address
        self.ca = client.ca
        self.addresses = PodAddresses(plan.pod_prefix)
        self.config = ConfigCache()
        self.pods: dict[str, PodRunner] = {}
        self.base_environment = {name: os.environ[name] for name in PASSED_ON_VARIABLES if name in os.environ}
        self.targets_file: Path | None = None
        self._targets_changed = asyncio.Event()
        self.ready = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._events: asyncio.Queue[Manifest] = asyncio.Queue(EVENT_QUEUE_SIZE)
        self._tokens: dict[tuple[str, str, str], asyncio.Task[str]] = {}
        self._http: aiohttp.ClientSession | None = None

    @property
    def http(self) -> aiohttp.ClientSession:
        """HTTP client for probes and hooks: a new connection each time, as a kubelet."""
        if self._http is None:
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
            self._http = aiohttp.ClientSession(connector=connector, headers={"User-Agent": "kube-probe/1.36"})
        return self._http

    async def run(self) -> None:
        """Be the node until cancelled; :attr:`ready` is set when it takes pods."""
        try:
            async with asyncio.TaskGroup() as group:
                lists = [asyncio.Event() for _ in range(3)]
                group.create_task(follow(self.client, "v1", "ConfigMap", self._configmap_changed, lists[0]))
                group.create_task(follow(self.client, "v1", "Secret", self._secret_changed, lists[1]))
                await self._register()
                for listed in lists[:2]:
                    await listed.wait()
                group.create_task(follow(self.client, "v1", "Pod", self._pod_changed, lists[2]))
                group.create_task(self._watch_memory())
                group.create_task(self._write_events())
                group.create_task(self._write_targets())
                await lists[2].wait()
                self.ready.set()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._http is not None:
                await self._http.close()

    # -- watches ----------------------------------------------------------------------------------------------------

    def _pod_changed(self, change: Change, pod: Manifest) -> None:
        self._targets_changed.set()
        uid = pod["metadata"]["uid"]
        runner = self.pods.get(uid)
        if change == "DELETED":
            if runner is not None:
                runner.removed()
        elif runner is not None:
            runner.update(pod)
        elif not pod["spec"].get("schedulingGates") and self._is_ours(pod):
            runner = self.pods[uid] = PodRunner(self, pod)
            self._spawn(self._run_pod(runner), name=f"pod {runner.key}")

    def _is_ours(self, pod: Manifest) -> bool:
        finished = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
        return pod["spec"].get("nodeName", self.name) == self.name and not finished

    async def _run_pod(self, runner: PodRunner) -> None:
        try:
            await runner.run()
        finally:
            self.pods.pop(runner.uid, None)

    def _configmap_changed(self, change: Change, item: Manifest) -> None:
        self._config_changed("configmap", change, item)

    def _secret_changed(self, change: Change, item: Manifest) -> None:
        self._config_changed("secret", change, item)

    def _config_changed(self, what: str, change: Change, item: Manifest) -> None:
        self.config.store(what, change, item)
        metadata = item["metadata"]
        for runner in self.pods.values():
            if runner.namespace == metadata["namespace"] and runner.volumes.refers_to(what, metadata["name"]):
                self._spawn(runner.refresh_volumes(), name=f"volumes of {runner.key}")

    def _spawn(self, work: Coroutine[None, None, None], *, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the node's task %s failed", task, exc_info=task.exception())

    # -- what pods ask ----------------------------------------------------------------------------------------------

    def log_directory(self, namespace: str, name: str, uid: str) -> Path:
        """Directory of a pod's logs; it outlives the pod."""
        return self.directory / "logs" / f"{namespace}_{name}_{uid}"

    def logs(self, namespace: str, pod: str, container: str) -> list[Path]:
        """Return the log files of a container, one per run, oldest first; also of a pod that is gone."""
        found = (self.directory / "logs").glob(f"{namespace}_{pod}_*/{container}/*.log")
        return sorted(found, key=lambda file: (file.stat().st_mtime, int(file.stem)))

    def writes_to(self, file: Path, namespace: str, pod: str, container: str) -> bool:
        """Whether a container is running whose output goes into this log file."""
        return any(
            one.process is not None and one.process.log == file
            for runner in self.pods.values()
            if (runner.namespace, runner.name) == (namespace, pod)
            for one in runner.containers
            if one.name == container
        )

    async def service_account_token(self, namespace: str, name: str) -> str:
        """Return a token that outlives the cluster's run; one per ServiceAccount, and another one for its successor."""
        account = await self.client.get("v1", "ServiceAccount", name, namespace=namespace)
        key = (namespace, name, str(account["metadata"]["uid"]))
        known = self._tokens.get(key)
        failed = known is not None and known.done() and (known.cancelled() or known.exception() is not None)
        if known is None or failed:
            known = asyncio.create_task(self.client.service_account_token(namespace, name, seconds=TOKEN_SECONDS))
            self._tokens[key] = known
        return await asyncio.shield(known)

    def warn(self, pod: Manifest, reason: str, message: str) -> None:
        """Record a Warning event on a pod; dropped when very many are waiting."""
        metadata, now = pod["metadata"], timestamp()
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name'][:200]}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "type": "Warning",
            "reason": reason,
            "message": message[:1000],
            "source": {"component": "local-node", "host": self.name},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("event dropped: %s %s", reason, message)

    async def _write_events(self) -> None:
        while True:
            event = await self._events.get()
            try:
                await self.client.create(event)
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.info("event not written: %s", error)  # its namespace may be going

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(MEMORY_CHECK_SECONDS)
            for runner in list(self.pods.values()):
                for container in runner.containers:
                    if container.memory_limit is not None and container.memory_in_use() > container.memory_limit:
                        container.kill_for_memory()

    async def _write_targets(self) -> None:
        """Keep :attr:`targets_file`, if there is one, showing the pods to a Prometheus without Kubernetes discovery."""
        while True:
            await self._targets_changed.wait()
            self._targets_changed.clear()
            if self.targets_file is not None:
                groups = target_groups(runner.manifest for runner in self.pods.values())
                unfinished = self.targets_file.with_suffix(".tmp")
                unfinished.write_text(json.dumps(groups))
                unfinished.replace(self.targets_file)
            await asyncio.sleep(TARGETS_PAUSE_SECONDS)

    def write_targets_to(self, path: Path) -> None:
        """Have the pods listed in a file_sd file from now on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[]")
        self.targets_file = path
        self._targets_changed.set()

    async def _register(self) -> None:
        await self.client.apply(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": self.name,
                    "labels": {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux"},
                },
            }
        )
        # An admission plugin marks every new node as not ready, for a controller to unmark that does not run here.
        await self.client.patch("v1", "Node", self.name, {"spec": {"taints": None}})
        now = timestamp()
        capacity = {"cpu": str(os.cpu_count() or 1), "memory": _total_memory(), "pods": "1000"}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "LocalNodeReady",
            "message": "pods run as local processes",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [ready],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": CLAIM_PORT}},
            "addresses": [{"type": "InternalIP", "address": self.ip}, {"type": "Hostname", "address": self.name}],
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": os.uname().release,
                "osImage": "this machine", "containerRuntimeVersion": "local://processes",
                "kubeletVersion": "v1.36.3", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": os.uname().machine,
            },
        }  # fmt: skip
        await self.client.patch(
            "v1", "Node", self.name, {"status": status}, subresource="status", patch_type="strategic"
        )


def _total_memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki"
