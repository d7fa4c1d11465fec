"""``python -m canary_rollout.local fetch|up``: get everything ready; keep a cluster up until Ctrl-C."""

import asyncio
import shlex
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from canary_rollout.errors import CanaryRolloutError

from .build import PROMETHEUS, ensure_controlplane, ensure_program, ensure_prometheus
from .cluster import LocalCluster
from .progress import Progress, ProgressCallback
from .tools import ensure_tool


class TerminalProgress:
    """Prints progress: a bar that is rewritten in place on a terminal, a line now and then elsewhere."""

    WIDTH = 30
    LINE_EVERY_SECONDS = 10.0

    def __init__(self) -> None:
        self._open_line = False
        self._last_line = 0.0

    def __call__(self, progress: Progress) -> None:
        """Show one report."""
        if not progress.total:
            self.finish_line()
            print(f"{progress.step}: {progress.message}", flush=True)
            return
        share = progress.done / progress.total
        if sys.stdout.isatty():
            full = round(share * self.WIDTH)
            bar = "#" * full + "." * (self.WIDTH - full)
            print(f"\r{progress.step} [{bar}] {progress.done}/{progress.total} packages ", end="", flush=True)
            self._open_line = True
        elif time.monotonic() - self._last_line > self.LINE_EVERY_SECONDS or progress.done == progress.total:
            self._last_line = time.monotonic()
            print(f"{progress.step}: {progress.done}/{progress.total} packages ({share:.0%})", flush=True)

    def finish_line(self) -> None:
        """End a bar's line."""
        if self._open_line:
            print(flush=True)
            self._open_line = False


@click.group()
def main() -> None:
    """A Kubernetes on this machine, without containers and without root."""


@main.command()
@click.option("--with-envoy", is_flag=True, help="Get Envoy too.")
@click.option("--build-prometheus", is_flag=True, help="Build Prometheus even when there is one on PATH.")
def fetch(*, with_envoy: bool, build_prometheus: bool) -> None:
    """Download and build everything that a cluster needs; print how long each took."""
    progress = TerminalProgress()

    async def run() -> None:
        await _timed("control plane", ensure_controlplane, progress)
        await _timed("prometheus", _built_prometheus if build_prometheus else _any_prometheus, progress)
        for name in ("nginx", "kubectl", *(["envoy"] if with_envoy else [])):

            async def get(callback: ProgressCallback, name: str = name) -> Path:
                return await ensure_tool(name, callback)

            await _timed(name, get, progress)

    _run(run)


async def _any_prometheus(progress: ProgressCallback) -> Path:
    return (await ensure_prometheus(progress)).path


async def _built_prometheus(progress: ProgressCallback) -> Path:
    return await ensure_program(PROMETHEUS, progress) / "prometheus"


async def _timed(what: str, get: Callable[[ProgressCallback], Awaitable[Path]], progress: TerminalProgress) -> None:
    began = time.monotonic()
    path = await get(progress)
    progress.finish_line()
    print(f"{what}: {path} ({time.monotonic() - began:.1f} s)", flush=True)


@main.command()
@click.option("--run-dir", type=click.Path(path_type=Path), help="Keep data and logs here [default: a temporary one]")
@click.option("--audit", is_flag=True, help="Keep an audit log of every API call.")
@click.option("--image", "images", multiple=True, metavar="NAME=COMMAND", help="Command that an image stands for.")
def up(*, run_dir: Path | None, audit: bool, images: tuple[str, ...]) -> None:
    """Start a cluster and keep it up until Ctrl-C."""
    progress = TerminalProgress()
    registry = dict(_parse_image(image) for image in images)

    async def run() -> None:
        began = time.monotonic()
        async with LocalCluster(run_dir, registry, audit=audit, progress=progress) as cluster:
            print(f"up after {time.monotonic() - began:.1f} s; logs and data: {cluster.run_dir}")
            print(f"Prometheus: {cluster.prometheus_url}")
            print("in another terminal:")
            print(f"  export KUBECONFIG={cluster.kubeconfig}", flush=True)
            while True:
                await asyncio.sleep(1)
                cluster.check()

    _run(run)


def _parse_image(text: str) -> tuple[str, list[str]]:
    name, equals, command = text.partition("=")
    if not equals or not command:
        raise click.BadParameter(f"{text!r}: write NAME=COMMAND, as in web='python -m http.server'")
    return name, shlex.split(command)


def _run(work: Callable[[], Awaitable[None]]) -> None:
    """Run until it ends or a signal asks it to; an ordinary end either way."""

    async def with_signals() -> None:
        task = asyncio.ensure_future(work())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            print("stopped", flush=True)

    try:
        asyncio.run(with_signals())
    except CanaryRolloutError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
