"""The whole local cluster as one asynchronous context manager."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .addresses import claim_addresses, listen_address
from .build import PrometheusBinary, ensure_controlplane, ensure_prometheus
from .client import KubeClient
from .controlplane import ControlPlane, StaticUser
from .errors import LocalClusterError, ProcessFailedError
from .images import ImageSpec
from .logserver import LogServer
from .node import Node
from .process import ProcessTable
from .progress import Progress, ProgressCallback, silent
from .prometheus import Prometheus, by_api, by_file, pod_scrape_config, prepare_access
from .services import ServiceProxy
from .tools import ensure_tool

KUBECTL_SECONDS = 120.0
STOP_SECONDS = 1.0

log = logging.getLogger(__name__)


class LocalCluster:
    """A Kubernetes on this machine.

    ``async with LocalCluster(images={"web": ["{python}", "-m", "http.server"]}) as cluster: ...``; everything it
    started is gone afterwards, however this process ends. Several may run side by side.

    Args:
        run_dir: for all data and logs; a temporary directory that is removed at the end when not given.
        images: image name -> command (see :mod:`canary_rollout.local.images`); may be changed later.
        audit: keep an audit log, for :meth:`ControlPlane.count_calls`.
        scrape_interval: Prometheus' scrape interval in seconds.
        progress: told what is going on while it starts.
        users: further static tokens.
        time_scale: factor on the node's restart back-off.
        api_qps: kube-controller-manager's own limit, requests per second.
        with_prometheus: start a Prometheus.
    """

    def __init__(  # noqa: PLR0913  # everything has a default
        self,
        run_dir: Path | None = None,
        images: Mapping[str, ImageSpec] | None = None,
        *,
        audit: bool = False,
        scrape_interval: float = 1.0,
        progress: ProgressCallback = silent,
        users: Sequence[StaticUser] = (),
        time_scale: float = 1.0,
        api_qps: int = 300,
        with_prometheus: bool = True,
    ) -> None:
        self._wanted_run_dir = run_dir
        self._audit = audit
        self._scrape_interval = scrape_interval
        self._progress = progress
        self._users = tuple(users)
        self._time_scale = time_scale
        self._api_qps = api_qps
        self._with_prometheus = with_prometheus
        self.images: dict[str, ImageSpec] = dict(images or {})
        # Set by __aenter__:
        self.run_dir: Path
        self.table: ProcessTable
        self.controlplane: ControlPlane
        self.admin: KubeClient
        self.node: Node
        self.services: ServiceProxy
        self.prometheus: Prometheus | None = None
        self.kubeconfig: Path
        self._node_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        controlplane_binary = await ensure_controlplane(self._progress)
        prometheus_binary = await ensure_prometheus(self._progress) if self._with_prometheus else None
        self._claim = claim_addresses()
        if self._wanted_run_dir is None:
            self.run_dir = Path(tempfile.mkdtemp(prefix="canary-rollout-"))
        else:
            self.run_dir = self._wanted_run_dir.resolve()
            self.run_dir.mkdir(parents=True, exist_ok=True)
        self.table = ProcessTable(
            self.run_dir, remove_run_dir=self._wanted_run_dir is None, inherit=[self._claim.claim.fileno()]
        )
        try:
            await self._start(controlplane_binary, prometheus_binary)
        except BaseException:  # raised again
            # Failed, cancelled or interrupted half-way: nobody calls __aexit__ then, and no process may stay.
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self, controlplane_binary: Path, prometheus_binary: PrometheusBinary | None) -> None:
        self._say("starting etcd and kube-apiserver")
        self.controlplane = ControlPlane(
            controlplane_binary,
            self.run_dir / "controlplane",
            self.table,
            service_range=self._claim.service_range,
            users=self._users,
            audit_log=self._audit,
            api_qps=self._api_qps,
        )
        await self.controlplane.start()
        self.kubeconfig = self.controlplane.kubeconfig(self.run_dir / "kubeconfig")
        self.admin = self.controlplane.client(user_agent="canary-rollout-local-admin")
        self._say("starting the node, the service proxy" + (" and Prometheus" if prometheus_binary else ""))
        self.services = ServiceProxy(controlplane_binary, self.controlplane, self.run_dir / "services", self.table)
        self.services.start()
        self._node_client = self.controlplane.client(user_agent="canary-rollout-local-node")
        self.node = Node(
            self._node_client,
            self.table,
            self.run_dir / "node",
            self.images,
            self._claim,
            time_scale=self._time_scale,
        )
        self._log_server = LogServer(
            self.node, self._claim.claim, self.controlplane.ca_file, self.controlplane.key_file
        )
        await self._log_server.start()
        self._node_task = asyncio.create_task(self.node.run(), name="local node")
        self._node_task.add_done_callback(_report_node_end)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wait_for_node())
            if prometheus_binary is not None:
                group.create_task(self._start_prometheus(prometheus_binary))
        self._say("the cluster is up")

    async def _wait_for_node(self) -> None:
        ready = asyncio.create_task(self.node.ready.wait())
        assert self._node_task is not None  # noqa: S101  # set just before
        await asyncio.wait({ready, self._node_task}, return_when=asyncio.FIRST_COMPLETED)
        if self._node_task.done():
            ready.cancel()
            self._node_task.result()

    async def _start_prometheus(self, binary: PrometheusBinary) -> None:
        directory = self.run_dir / "prometheus"
        if binary.discovers_pods:
            token = await prepare_access(self.admin)
            discovery = by_api(self.controlplane.kubeconfig(directory / "kubeconfig", token=token, user="prometheus"))
        else:
            self.node.write_targets_to(directory / "pods.json")
            discovery = by_file(directory / "pods.json")
        self.prometheus = Prometheus(
            binary.path,
            directory,
            self.table,
            scrape_interval=self._scrape_interval,
            scrape_configs=[pod_scrape_config(discovery, self._scrape_interval)],
        )
        await self.prometheus.start()

    async def _stop(self) -> None:
        # The node first, so that it does not restart what ends now.
        if self._node_task is not None:
            self._node_task.cancel()
            await asyncio.gather(self._node_task, return_exceptions=True)
        log_server: LogServer | None = getattr(self, "_log_server", None)
        if log_server is not None:
            await log_server.stop()
        for name in ("admin", "_node_client"):
            client: KubeClient | None = getattr(self, name, None)
            if client is not None:
                await client.close()
        # Nothing of it is kept, so nothing needs long to write it down.
        await self.table.close(STOP_SECONDS)
        self._claim.claim.close()

    def _say(self, message: str) -> None:
        self._progress(Progress("start cluster", message))

    # -- for users --------------------------------------------------------------------------------------------------

    @property
    def prometheus_url(self) -> str:
        """Base URL of Prometheus."""
        if self.prometheus is None:
            raise LocalClusterError("this cluster has no Prometheus: start it with with_prometheus=True")
        return self.prometheus.url

    def listen_address(self, pod_ip: str) -> str:
        """Map a pod's address as the API shows it to where its processes listen."""
        return listen_address(pod_ip)

    def client(self, token: str, *, user_agent: str = "canary-rollout-local") -> KubeClient:
        """Return a client for a token; close it, or use it as a context manager."""
        return self.controlplane.client(token, user_agent=user_agent)

    async def kubeconfig_for(self, namespace: str, service_account: str) -> Path:
        """Write a kubeconfig with a real token of a ServiceAccount and return its path."""
        token = await self.admin.service_account_token(namespace, service_account)
        return self.controlplane.kubeconfig(
            self.run_dir / "kubeconfigs" / f"{namespace}-{service_account}",
            token=token,
            user=f"system:serviceaccount:{namespace}:{service_account}",
            namespace=namespace,
        )

    async def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002  # subprocess calls it so
        """Run kubectl as the administrator and return what it printed on both outputs.

        Raises:
            LocalClusterError: it ended with an error (unless ``check`` is False) or took more than two minutes.
        """
        kubectl = await ensure_tool("kubectl", self._progress)
        process = await asyncio.create_subprocess_exec(
            str(kubectl),
            *arguments,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            stdin=asyncio.subprocess.DEVNULL if input is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(KUBECTL_SECONDS):
                output, _ = await process.communicate(None if input is None else input.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode(errors="replace")
        if check and process.returncode != 0:
            raise LocalClusterError(f"kubectl {' '.join(arguments)} failed (exit code {process.returncode}):\n{text}")
        return text

    def pod_log(self, namespace: str, pod: str, container: str) -> str:
        """Return everything a container has printed, over all its runs."""
        return "".join(path.read_text(errors="replace") for path in self.node.logs(namespace, pod, container))

    async def restart_apiserver(self) -> None:
        """Stop kube-apiserver and start it again, as an upgrade would."""
        await self.controlplane.restart_apiserver()

    async def restart_prometheus(self) -> None:
        """Stop Prometheus and start it again on its data."""
        if self.prometheus is None:
            raise LocalClusterError("this cluster has no Prometheus: start it with with_prometheus=True")
        await self.prometheus.stop()
        await self.prometheus.start()

    def check(self) -> None:
        """Raise if a part of the cluster has ended by itself.

        Raises:
            ProcessFailedError: one of the processes; the message has its last lines.
        """
        parts = [*self.controlplane.processes.values(), self.services.process]
        for process in [*parts, self.prometheus.process if self.prometheus else None]:
            if process is not None and process.returncode is not None:
                raise process.failure("ended by itself")
        if self._node_task is not None and self._node_task.done():
            raise ProcessFailedError("the local node's task has ended")


def _report_node_end(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("the local node failed", exc_info=task.exception())
