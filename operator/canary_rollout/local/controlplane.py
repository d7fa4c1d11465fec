"""etcd, kube-apiserver and kube-controller-manager as three local processes."""

import asyncio
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from . import audit
from .client import KubeClient
from .errors import LocalClusterError
from .kubeconfig import write_kubeconfig, write_private
from .ports import free_port
from .process import ChildProcess, ProcessTable

POLL_SECONDS = 0.05
START_SECONDS = 90.0
ADMIN_USER = "canary-rollout-local-admin"
CONTROLLERS = "*,-nodeipam,-nodelifecycle,-persistentvolume-binder,-attachdetach"


@dataclass(frozen=True)
class StaticUser:
    """A user with a token of its own, besides the administrator."""

    name: str
    groups: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)


class ControlPlane:
    """The three processes of one cluster.

    Args:
        binary: the built control plane.
        directory: for data, certificates and logs.
        table: where the processes are registered.
        service_range: ``--service-cluster-ip-range``.
        users: further static tokens.
        audit_log: write every call to :attr:`audit_log`.
        api_qps: requests per second that kube-controller-manager allows itself (its own default is 20).
    """

    def __init__(
        self,
        binary: Path,
        directory: Path,
        table: ProcessTable,
        *,
        service_range: str = "127.96.0.0/16",
        users: Sequence[StaticUser] = (),
        audit_log: bool = False,
        api_qps: int = 300,
    ) -> None:
        self._binary = binary
        self._table = table
        self._service_range = service_range
        self._users = tuple(users)
        self._api_qps = api_qps
        self.directory = directory
        self.port = free_port()
        self._etcd_port, self._etcd_peer_port = free_port(), free_port()
        self.admin_token = secrets.token_hex(16)
        self.audit_log = directory / "audit.log" if audit_log else None
        self.processes: dict[str, ChildProcess] = {}

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> bytes:
        """PEM of the certificates that the API server answers with (its own authority included)."""
        return self.ca_file.read_bytes()

    @property
    def ca_file(self) -> Path:
        """File of :attr:`ca`."""
        return self.directory / "certs" / "apiserver.crt"

    @property
    def key_file(self) -> Path:
        """Private key that belongs to :attr:`ca_file`."""
        return self.directory / "certs" / "apiserver.key"

    def log(self, name: str) -> Path:
        """Log file of ``etcd``, ``kube-apiserver`` or ``kube-controller-manager``."""
        return self.directory / f"{name}.log"

    async def start(self) -> None:
        """Start all three and return when the API server is ready (about 3 s).

        Raises:
            ProcessFailedError: one ended by itself; the message has its last lines.
            LocalClusterError: not ready in time.
        """
        await asyncio.to_thread(self._prepare)
        self.start_etcd()
        self.start_apiserver()
        await self.wait_ready()
        self.start_controller_manager()

    def client(self, token: str | None = None, *, user_agent: str = "canary-rollout-local") -> KubeClient:
        """Return a client, the administrator's without a token."""
        return KubeClient(self.server, self.ca, token or self.admin_token, user_agent=user_agent)

    def kubeconfig(
        self, path: Path, *, token: str | None = None, user: str = ADMIN_USER, namespace: str = "default"
    ) -> Path:
        """Write a kubeconfig for a token (the administrator's by default) and return its path."""
        return write_kubeconfig(
            path, server=self.server, ca=self.ca, token=token or self.admin_token, user=user, namespace=namespace
        )

    def count_calls(self, user: str | None = None, *, offset: int = 0) -> Mapping[audit.Call, int]:
        """Count the calls in the audit log so far, see :func:`canary_rollout.local.audit.count_calls`."""
        if self.audit_log is None:
            raise LocalClusterError("this cluster keeps no audit log: start it with audit=True")
        return audit.count_calls(self.audit_log, user=user, offset=offset)

    # -- parts; tests stop and start them one by one ----------------------------------------------------------------

    def start_etcd(self) -> None:
        """Start etcd on its data directory."""
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._etcd_peer_port}"
        self._start(
            "etcd",
            "--name=local",
            f"--data-dir={self.directory / 'etcd'}",
            # The data is thrown away with the run: nobody waits for a disk.
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=local={peer}",
            "--log-level=warn",
        )

    def start_apiserver(self) -> None:
        """Start kube-apiserver on the same port, keys and tokens as before."""
        keys = self.directory / "certs"
        flags = [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self.port}",
            f"--cert-dir={keys}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys / 'sa.key'}",
            f"--service-account-signing-key-file={keys / 'sa.key'}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            f"--service-cluster-ip-range={self._service_range}",
            # Its volumes would need a kubelet's mounts; the node gives pods their tokens itself.
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            "--profiling=false",
            "--shutdown-delay-duration=0s",
            "--kubelet-preferred-address-types=InternalIP",
        ]
        if self.audit_log is not None:
            flags += [
                f"--audit-policy-file={self.directory / 'audit-policy.yaml'}",
                f"--audit-log-path={self.audit_log}",
                "--audit-log-format=json",
                # Counts must be complete when a call has been answered.
                "--audit-log-mode=blocking",
            ]
        self._start("kube-apiserver", *flags)

    def start_controller_manager(self) -> None:
        """Start kube-controller-manager."""
        kubeconfig = self.kubeconfig(self.directory / "controller-manager.kubeconfig", user="controller-manager")
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            f"--service-account-private-key-file={self.directory / 'certs' / 'sa.key'}",
            f"--root-ca-file={self.ca_file}",
            f"--controllers={CONTROLLERS}",
            f"--kube-api-qps={self._api_qps}",
            f"--kube-api-burst={self._api_qps * 2}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            f"--cert-dir={self.directory / 'controller-manager'}",
            "--profiling=false",
        )

    async def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Return when ``/readyz`` says ok."""
        deadline = time.monotonic() + seconds
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(ssl=False)) as session:
            while not await self._says_ready(session):
                self._raise_if_ended("etcd", "kube-apiserver")
                if time.monotonic() > deadline:
                    raise LocalClusterError(
                        f"kube-apiserver was not ready after {seconds:g} s; see {self.log('kube-apiserver')}"
                    )
                await asyncio.sleep(POLL_SECONDS)

    async def _says_ready(self, session: aiohttp.ClientSession) -> bool:
        headers = {"Authorization": f"Bearer {self.admin_token}"}
        try:
            async with session.get(f"{self.server}/readyz", headers=headers) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def stop(self, name: str, *, grace_seconds: float = 5.0) -> None:
        """Stop one of the three processes."""
        await self.processes.pop(name).stop(grace_seconds)

    async def restart_apiserver(self, while_down: Callable[[], Awaitable[None]] | None = None) -> None:
        """Stop kube-apiserver, do ``while_down``, start it again and wait until it is ready."""
        await self.stop("kube-apiserver", grace_seconds=1.0)
        if while_down is not None:
            await while_down()
        self.start_apiserver()
        await self.wait_ready()

    def _start(self, name: str, *flags: str) -> None:
        self.processes[name] = self._table.start(
            [str(self._binary), name, *flags], name=name, cwd=self.directory, log=self.log(name)
        )

    def _raise_if_ended(self, *names: str) -> None:
        for name in names:
            process = self.processes[name]
            if process.returncode is not None:
                raise process.failure("ended while the control plane was starting")

    def _prepare(self) -> None:
        keys = self.directory / "certs"
        keys.mkdir(parents=True, exist_ok=True)
        keys.chmod(0o700)
        subprocess.run([self._binary, "make-key", keys / "sa.key"], check=True, capture_output=True, timeout=30)
        rows = [f"{self.admin_token},{ADMIN_USER},{ADMIN_USER},system:masters"]
        rows += [f'{user.token},{user.name},{user.name},"{",".join(user.groups)}"' for user in self._users]
        write_private(self.directory / "tokens.csv", "\n".join(rows) + "\n")
        write_private(self.directory / "audit-policy.yaml", audit.POLICY)
