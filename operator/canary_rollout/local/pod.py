"""One pod on the node, from its binding to its deletion."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from .addresses import listen_address
from .container import DEFAULT_GRACE_SECONDS, ContainerRunner
from .errors import ApiError, VolumeNotReadyError
from .kubeconfig import write_kubeconfig, write_private
from .podenv import EnvironmentBuilder, volume_variable
from .podstatus import PodFacts, build_status, timestamp, waiting
from .volumes import PodVolumes

if TYPE_CHECKING:
    from .node import Node

Manifest = dict[str, Any]

API_RETRY_SECONDS = 0.5
FLUSH_SECONDS = 5.0
VOLUME_RETRY_SECONDS = 0.3
SERVICE_ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class PodRunner:
    """Runs one pod. :meth:`run` is its task; the node's watch calls :meth:`update` and :meth:`removed`.

    Args:
        node: the node.
        pod: the pod as first seen.
    """

    def __init__(self, node: "Node", pod: Manifest) -> None:
        self.node = node
        self.manifest = pod
        self.spec: Manifest = pod["spec"]
        metadata = pod["metadata"]
        self.namespace, self.name, self.uid = str(metadata["namespace"]), str(metadata["name"]), str(metadata["uid"])
        self.ip = node.addresses.take()
        self.directory = node.directory / "pods" / self.uid
        self.volumes = PodVolumes(
            self.directory / "volumes",
            pod,
            pod_ip=self.ip,
            host_ip=node.ip,
            source=node.config,
            token=self._token,
            ca=node.ca,
        )
        self.init = [ContainerRunner(self, spec, init=True) for spec in self.spec.get("initContainers") or []]
        self.main = [ContainerRunner(self, spec) for spec in self.spec["containers"]]
        self.facts = PodFacts(
            pod_ip=self.ip,
            host_ip=node.ip,
            started_at=timestamp(),
            init=[container.status for container in self.init],
            main=[container.status for container in self.main],
        )
        self._deletion = asyncio.Event()
        self._removed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._version = self._published_version = 0
        self._published = asyncio.Condition()
        self._conditions: list[Manifest] = (pod.get("status") or {}).get("conditions") or []
        self._last_status: Manifest = {}
        if metadata.get("deletionTimestamp"):
            self._deletion.set()

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def listen_address(self) -> str:
        """Address that the pod's processes listen on."""
        return listen_address(self.ip)

    @property
    def containers(self) -> list[ContainerRunner]:
        """All containers, init containers first."""
        return [*self.init, *self.main]

    # -- what containers ask ----------------------------------------------------------------------------------------

    def log_path(self, container: str, restart: int) -> Path:
        """File of the output of one run of a container."""
        return self.node.log_directory(self.namespace, self.name, self.uid) / container / f"{restart}.log"

    def container_directory(self, container: str) -> Path:
        """Working directory of a container that names none."""
        return self.directory / "containers" / container

    def mounts(self, container: Manifest) -> dict[str, str]:
        """Return mountPath -> path on this machine for one container."""
        mounts = {SERVICE_ACCOUNT_MOUNT: str(self.directory / "serviceaccount")}
        for mount in container.get("volumeMounts") or []:
            path = self.volumes.path(mount["name"])
            mounts[mount["mountPath"]] = str(path / mount["subPath"] if mount.get("subPath") else path)
        return mounts

    def base_environment(self, cwd: Path) -> dict[str, str]:
        """Return what every container of this pod has in its environment."""
        environment = self.node.base_environment | {
            "HOME": str(cwd),
            "TMPDIR": str(cwd),
            "HOSTNAME": self.name,
            "BIND_ADDRESS": self.listen_address,
            "POD_IP": self.ip,
        }
        environment |= {volume_variable(name): str(self.volumes.path(name)) for name in self.volumes.names}
        if self.uses_service_account:
            environment["KUBECONFIG"] = str(self.directory / "serviceaccount" / "kubeconfig")
        return environment

    def environment_builder(self) -> EnvironmentBuilder:
        """Return the builder for this pod's containers."""
        return EnvironmentBuilder(self.manifest, self.ip, self.node.ip, self.node.config)

    @property
    def uses_service_account(self) -> bool:
        """Whether it names a ServiceAccount and wants its token."""
        return bool(self.spec.get("serviceAccountName")) and self.spec.get("automountServiceAccountToken") is not False

    # -- the watch --------------------------------------------------------------------------------------------------

    def update(self, pod: Manifest) -> None:
        """Take the pod as it is now."""
        self.manifest = pod
        self.volumes.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._deletion.set()
        if self.spec.get("readinessGates"):
            self.publish()

    def removed(self) -> None:
        """The object is gone (deleted by force): end everything now."""
        self._removed.set()
        self._deletion.set()
        for container in self.containers:
            container.kill()

    # -- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the pod until its object is deleted."""
        publisher = asyncio.create_task(self._publish_changes(), name=f"status of {self.key}")
        work = asyncio.create_task(self._work(), name=f"containers of {self.key}")
        deletion = asyncio.create_task(self._deletion.wait())
        try:
            await asyncio.wait({work, deletion}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            await deletion
            await self._end(work)
        finally:
            for task in (publisher, work, deletion):
                task.cancel()
            await asyncio.gather(publisher, work, deletion, return_exceptions=True)
            self.node.addresses.give_back(self.ip)
            await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    async def _work(self) -> None:
        if self._deletion.is_set():
            return
        await self._bind()
        self.publish()
        await self._mount()
        self.facts.sandbox = True
        async with asyncio.TaskGroup() as group:
            for container in self.init:
                if not await self._run_init(container, group):
                    return
            self.facts.initialized = True
            mains = [group.create_task(container.run(), name=f"{self.key} {container.name}") for container in self.main]
            await asyncio.gather(*mains)
            await self._stop_sidecars(DEFAULT_GRACE_SECONDS)
        self.publish()

    async def _run_init(self, container: ContainerRunner, group: asyncio.TaskGroup) -> bool:
        if container.status.sidecar:
            group.create_task(container.run(), name=f"{self.key} {container.name}")
            await container.started.wait()
            return True
        await container.run()
        # A completed init container counts as ready.
        container.status.ready = container.status.exit_code == 0
        if container.status.ready:
            return True
        if not self._deletion.is_set():
            self.facts.failed_init = True
            self.publish()
        return False

    async def _bind(self) -> None:
        if self.spec.get("nodeName"):
            return
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": self.name, "uid": self.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.node.name},
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}/binding"
        while True:
            try:
                await self.node.client.request("POST", path, body=binding)
            except ApiError as error:
                if error.status in {404, 409}:  # gone meanwhile, or bound already
                    return
                if error.status not in {429, 500, 503, 504}:
                    raise
                await asyncio.sleep(API_RETRY_SECONDS)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(API_RETRY_SECONDS)
            else:
                return

    async def _mount(self) -> None:
        while True:
            try:
                if self.uses_service_account:
                    await self._write_service_account()
                await self.volumes.sync()
            except VolumeNotReadyError as error:
                message = f"MountVolume.SetUp failed: {error}"
            else:
                return
            if self.main[0].status.state["waiting"].get("message") != message:
                self.node.warn(self.manifest, "FailedMount", message)
                for container in self.containers:
                    container.status.state = waiting("ContainerCreating", message)
                self.publish()
            await asyncio.sleep(VOLUME_RETRY_SECONDS)

    async def refresh_volumes(self) -> None:
        """Show a changed ConfigMap or Secret in the running containers."""
        if not self.facts.sandbox:
            return
        try:
            await self.volumes.sync()
        except VolumeNotReadyError as error:  # deleted: what was mounted stays, as with a kubelet
            self.node.warn(self.manifest, "FailedMount", str(error))

    async def _token(self) -> str:
        account = str(self.spec.get("serviceAccountName") or "default")
        try:
            return await self.node.service_account_token(self.namespace, account)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            raise VolumeNotReadyError(f'no token for service account "{account}": {error}') from error

    async def _write_service_account(self) -> None:
        directory = self.directory / "serviceaccount"
        token = await self._token()
        write_private(directory / "token", token)
        write_private(directory / "ca.crt", self.node.ca.decode())
        write_private(directory / "namespace", self.namespace)
        write_kubeconfig(
            directory / "kubeconfig",
            server=self.node.client.server,
            ca=self.node.ca,
            token=token,
            user=str(self.spec["serviceAccountName"]),
            namespace=self.namespace,
        )

    async def _end(self, work: "asyncio.Task[None]") -> None:
        if not self._removed.is_set():
            grace = self.manifest["metadata"].get("deletionGracePeriodSeconds")
            await self._stop_all(float(DEFAULT_GRACE_SECONDS if grace is None else grace))
        running = [container for container in self.containers if container.process is not None]
        if running:  # killed just now; their tasks see it
            await asyncio.wait({work}, timeout=FLUSH_SECONDS)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        if not self._removed.is_set():
            await self.flush()
            await self._delete_object()

    async def _stop_all(self, grace_seconds: float) -> None:
        deadline = time.monotonic() + grace_seconds
        plain = [container for container in self.containers if not container.status.sidecar]
        # A forced deletion kills the processes meanwhile, so this ends then too.
        await asyncio.gather(*(container.stop(grace_seconds) for container in plain))
        await self._stop_sidecars(max(deadline - time.monotonic(), 1.0))

    async def _stop_sidecars(self, grace_seconds: float) -> None:
        for container in reversed([container for container in self.init if container.status.sidecar]):
            await container.stop(grace_seconds)

    async def _delete_object(self) -> None:
        while not self._removed.is_set():
            try:
                await self.node.client.delete(
                    "v1", "Pod", self.name, namespace=self.namespace, grace_seconds=0, uid=self.uid
                )
            except (ApiError, aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(API_RETRY_SECONDS)
            else:
                return

    # -- status -----------------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Have the status written as it is now; several calls in a row make one write."""
        self._version += 1
        self._dirty.set()

    async def flush(self) -> None:
        """Have the status written and wait until it is (bounded: containers go on when the API server is away)."""
        self.publish()
        wanted = self._version
        try:
            async with asyncio.timeout(FLUSH_SECONDS), self._published:
                await self._published.wait_for(lambda: self._published_version >= wanted)
        except TimeoutError:
            return

    async def _publish_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            version = self._version
            status = self._status()
            if status != self._last_status:
                try:
                    await self.node.client.patch(
                        "v1",
                        "Pod",
                        self.name,
                        {"metadata": {"uid": self.uid}, "status": status},
                        namespace=self.namespace,
                        patch_type="strategic",
                        subresource="status",
                    )
                except ApiError as error:
                    if error.status == 404 or (error.status == 409 and "uid" in str(error).lower()):
                        self._last_status = status  # gone; the watch will say so
                    elif error.status not in {409, 429, 500, 503, 504}:
                        raise
                except (aiohttp.ClientError, TimeoutError):
                    pass
                else:
                    self._last_status = status
                if self._last_status != status:
                    await asyncio.sleep(API_RETRY_SECONDS)
                    self._dirty.set()
                    continue
            async with self._published:
                self._published_version = version
                self._published.notify_all()

    def _status(self) -> Manifest:
        gates = [gate["conditionType"] for gate in self.spec.get("readinessGates") or []]
        written = {
            condition["type"]: str(condition["status"])
            for condition in (self.manifest.get("status") or {}).get("conditions") or []
        }
        status = build_status(
            self.facts,
            gates={gate: written.get(gate, "False") for gate in gates},
            previous=self._conditions,
            now=timestamp(),
        )
        self._conditions = status["conditions"]
        # A copy: the containers' states change while it is being sent.
        return status
