"""Addresses of the two versions of a rollout: their Services directly inside the cluster, through kubectl outside."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from typing import Final

from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.cli.session import Connection, Target
from canary_rollout.kube.port import SERVICES, NotFoundError

_FORWARDED: Final = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ->")
_WAIT: Final = 15.0
"""Seconds until kubectl must have a way to the Service."""


@contextlib.asynccontextmanager
async def reach(connection: Connection, target: Target, service: str, port: int | None) -> AsyncIterator[str]:
    """The address of a Service, as long as the context lasts.

    Raises:
        CliError: there is no such Service or port, or no way to it.
    """
    number = await _port(connection, service, port)
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        yield f"http://{service}.{connection.namespace}.svc:{number}"
        return
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise CliError(
            f"there is no kubectl on your PATH to forward a port to Service {service}: pass --stable and --canary addresses",
            Exit.USAGE,
        )
    options = [f"--namespace={connection.namespace}"]
    options += [f"--kubeconfig={target.kubeconfig}"] if target.kubeconfig else []
    options += [f"--context={target.context}"] if target.context else []
    process = await asyncio.create_subprocess_exec(
        kubectl,
        *options,
        "port-forward",
        "--address=127.0.0.1",
        f"service/{service}",
        f":{number}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{await _forwarded(process, service)}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 5.0)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _port(connection: Connection, service: str, port: int | None) -> int:
    try:
        found = await connection.api.get(SERVICES, connection.namespace, service)
    except NotFoundError as error:
        raise CliError(f"there is no Service {service} in namespace {connection.namespace}") from error
    numbers = [int(entry["port"]) for entry in found.get("spec", {}).get("ports") or ()]
    if port is not None and port not in numbers:
        raise CliError(
            f"Service {service} has no port {port}; it has {', '.join(map(str, numbers)) or 'none'}", Exit.USAGE
        )
    if port is None and len(numbers) != 1:
        raise CliError(f"Service {service} has the ports {numbers}: say which with --port", Exit.USAGE)
    return port or numbers[0]


async def _forwarded(process: asyncio.subprocess.Process, service: str) -> int:
    """The local port kubectl says it forwards."""
    stdout, stderr = process.stdout, process.stderr
    assert stdout is not None  # noqa: S101 - both are pipes
    assert stderr is not None  # noqa: S101
    try:
        async with asyncio.timeout(_WAIT):
            async for line in stdout:
                if found := _FORWARDED.search(line):
                    return int(found[1])
            words = " ".join((await stderr.read()).decode("utf-8", "replace").split())[:200]
    except TimeoutError:
        words = f"kubectl was not ready within {_WAIT:g} s"
    raise CliError(
        f"no port could be forwarded to Service {service}: {words}; pass --stable and --canary addresses",
        Exit.UNREACHABLE,
    )
