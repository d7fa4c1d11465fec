"""ClusterIP Services: kube-proxy's part, done by the control plane binary's ``service-proxy``.

It is a TCP proxy in Go that watches Services and EndpointSlices itself, listens on each ClusterIP (all of 127.0.0.0/8
is bindable) and copies with splice(2), so the bytes of the demo's load never enter Python.
"""

from pathlib import Path

from .controlplane import ControlPlane
from .process import ChildProcess, ProcessTable


class ServiceProxy:
    """The proxy process of one cluster.

    Args:
        binary: the built control plane.
        controlplane: the API server to follow.
        directory: for its kubeconfig and log.
        table: where the process is registered.
    """

    def __init__(self, binary: Path, controlplane: ControlPlane, directory: Path, table: ProcessTable) -> None:
        self._binary = binary
        self._controlplane = controlplane
        self._directory = directory
        self._table = table
        self.process: ChildProcess | None = None

    @property
    def log(self) -> Path:
        """Log file."""
        return self._directory / "service-proxy.log"

    def start(self) -> None:
        """Start it; Services answer as soon as they have endpoints."""
        kubeconfig = self._controlplane.kubeconfig(self._directory / "service-proxy.kubeconfig", user="service-proxy")
        self.process = self._table.start(
            [str(self._binary), "service-proxy", f"--kubeconfig={kubeconfig}"], name="service-proxy", log=self.log
        )

    async def stop(self) -> None:
        """Stop it; every connection through it ends."""
        if self.process is not None:
            await self.process.stop(0.5)
            self.process = None
