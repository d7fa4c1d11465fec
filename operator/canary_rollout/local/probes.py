"""The kubelet's probes against local processes: httpGet, tcpSocket, exec."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from .addresses import listen_address
from .errors import ContainerConfigError

Manifest = dict[str, Any]
ExecCommand = Callable[[Sequence[str], float], Awaitable[int]]
"""Runs a command in a container for at most so many seconds and returns its exit code; TimeoutError when it took longer."""


@dataclass(frozen=True)
class ProbeTiming:
    """A probe's numbers, in seconds and counts, with Kubernetes' defaults."""

    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int

    @classmethod
    def of(cls, probe: Manifest) -> "ProbeTiming":
        """Read them from a probe of a manifest."""
        return cls(
            initial_delay=float(probe.get("initialDelaySeconds") or 0),
            period=float(probe.get("periodSeconds") or 10),
            timeout=float(probe.get("timeoutSeconds") or 1),
            success_threshold=int(probe.get("successThreshold") or 1),
            failure_threshold=int(probe.get("failureThreshold") or 3),
        )


@dataclass
class Thresholds:
    """Counts results in a row; says when the state changes. Pure.

    Attributes:
        timing: the thresholds.
        state: last state reported, None before the first.
    """

    timing: ProbeTiming
    state: bool | None = None
    _last: bool | None = None
    _in_a_row: int = 0

    def count(self, *, success: bool) -> bool | None:
        """Take one result; returns the new state when it is reached now, else None."""
        self._in_a_row = self._in_a_row + 1 if success == self._last else 1
        self._last = success
        needed = self.timing.success_threshold if success else self.timing.failure_threshold
        if self._in_a_row < needed or self.state == success:
            return None
        self.state = success
        return success


class Prober:
    """Asks one container, one probe at a time.

    Args:
        session: HTTP client shared by the node.
        container: the container's spec, for port names.
        address: where the pod's processes listen.
        run: runs a command as the container would.
    """

    def __init__(self, session: aiohttp.ClientSession, container: Manifest, address: str, run: ExecCommand) -> None:
        self._session = session
        self._container = container
        self._address = address
        self._run = run

    async def ask(self, probe: Manifest) -> tuple[bool, str]:
        """Probe once; returns success and, when it failed, why."""
        seconds = ProbeTiming.of(probe).timeout
        try:
            async with asyncio.timeout(seconds):
                if "httpGet" in probe:
                    return await self._http(probe["httpGet"])
                if "tcpSocket" in probe:
                    return await self._tcp(probe["tcpSocket"])
                code = await self._run(probe["exec"]["command"], seconds)
                return code == 0, f"command {probe['exec']['command']} ended with exit code {code}"
        except TimeoutError:
            return False, f"no answer within {seconds:g} s"
        except (aiohttp.ClientError, OSError, ContainerConfigError) as error:
            return False, str(error) or type(error).__name__

    async def _http(self, action: Manifest) -> tuple[bool, str]:
        host = listen_address(action.get("host") or self._address)
        scheme = str(action.get("scheme") or "HTTP").lower()
        path = str(action.get("path") or "/")
        url = f"{scheme}://{host}:{self.port(action['port'])}{path if path.startswith('/') else '/' + path}"
        headers = {header["name"]: header["value"] for header in action.get("httpHeaders") or []}
        async with self._session.get(url, headers=headers, allow_redirects=False, ssl=False) as response:
            return 200 <= response.status < 400, f"HTTP probe failed with statuscode: {response.status}"

    async def _tcp(self, action: Manifest) -> tuple[bool, str]:
        host = listen_address(action.get("host") or self._address)
        _, writer = await asyncio.open_connection(host, self.port(action["port"]))
        writer.close()
        return True, ""

    def port(self, port: int | str) -> int:
        """Return a port's number, looked up by name among the container's ports.

        Raises:
            ContainerConfigError: no port of the container has that name.
        """
        if isinstance(port, int) or port.isdigit():
            return int(port)
        for declared in self._container.get("ports") or []:
            if declared.get("name") == port:
                return int(declared["containerPort"])
        raise ContainerConfigError(f"probe of container {self._container['name']}: no port is named {port!r}")


def check_probe(container: Manifest, name: str) -> Manifest | None:
    """Return a container's probe, or None when it has none.

    Raises:
        ContainerConfigError: a handler that the local node does not have (``grpc``).
    """
    probe: Manifest | None = container.get(name)
    if probe and not {"httpGet", "tcpSocket", "exec"} & probe.keys():
        raise ContainerConfigError(f"{name} of {container['name']}: the local node knows httpGet, tcpSocket and exec")
    return probe or None
