"""Builds etcd + kube-apiserver + kube-controller-manager (one binary) and Prometheus from their Go modules, once.

The sources are a few lines of ours in ``go/``; ``go.sum`` pins every module by hash. The result lies in the user's
cache directory under a key made of those files and the flags, so another version of them is another build.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_dir, content_key, ensure_directory
from .errors import BuildError
from .process import signal_group
from .progress import Progress, ProgressCallback, silent
from .tools import VERSION_TIMEOUT_SECONDS, Tool, ensure_tool, on_path

SOURCES = Path(__file__).parent / "go"
KUBERNETES_VERSION = "v1.36.3"
ERROR_LINES = 25

LineCallback = Callable[[str], None]


@dataclass(frozen=True)
class GoProgram:
    """One build.

    Attributes:
        name: directory below ``go/`` and prefix of the directory in the cache.
        packages: what is built, one binary each.
        binaries: the files that come out, in the order of ``packages``.
        flags: for ``go build`` and, where they choose files, ``go list``.
        ldflags: for the linker.
    """

    name: str
    packages: tuple[str, ...]
    binaries: tuple[str, ...]
    flags: tuple[str, ...] = ()
    ldflags: str = "-s -w"


@dataclass(frozen=True)
class PrometheusBinary:
    """A Prometheus server program and whether it was built with Kubernetes discovery."""

    path: Path
    discovers_pods: bool


_VERSION = "k8s.io/component-base/version"
CONTROLPLANE = GoProgram(
    name="controlplane",
    packages=(".",),
    binaries=("controlplane",),
    ldflags=(
        f"-s -w -X {_VERSION}.gitVersion={KUBERNETES_VERSION} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=36 "
        f"-X {_VERSION}.gitTreeState=clean"
    ),
)
PROMETHEUS = GoProgram(
    name="prometheus",
    packages=("github.com/prometheus/prometheus/cmd/prometheus", "github.com/prometheus/prometheus/cmd/promtool"),
    binaries=("prometheus", "promtool"),
    flags=("-tags", "remove_all_sd,enable_kubernetes_sd"),
)
# Only the tests of the chart need it.
HELM = GoProgram(name="helm", packages=("helm.sh/helm/v4/cmd/helm",), binaries=("helm",))
# Only the end-to-end tests against a gateway that nobody here wrote need it.
CONTOUR = GoProgram(name="contour", packages=("github.com/projectcontour/contour/cmd/contour",), binaries=("contour",))
# 2.42 is Debian's; older ones lack nothing we use, but nobody tried.
PROMETHEUS_ON_PATH = Tool("prometheus", "", (), ("--version",), (2, 40))


async def ensure_controlplane(progress: ProgressCallback = silent) -> Path:
    """Return the control plane's binary, built if it is not in the cache yet (minutes, once)."""
    return await ensure_program(CONTROLPLANE, progress) / "controlplane"


async def ensure_prometheus(progress: ProgressCallback = silent) -> PrometheusBinary:
    """Return a Prometheus server: the one built before, else one from PATH, else build it."""
    built = program_directory(PROMETHEUS) / "prometheus"
    if not built.is_file():
        found = await on_path(PROMETHEUS_ON_PATH)
        if found is not None:
            discovers = await _knows_kubernetes(found)
            how = (
                "which discovers pods itself"
                if discovers
                else "built without Kubernetes discovery: the node lists its pods for it in a file"
            )
            progress(Progress("find prometheus", f"using {found}, {how}"))
            return PrometheusBinary(found, discovers_pods=discovers)
        await ensure_program(PROMETHEUS, progress)
    return PrometheusBinary(built, discovers_pods=True)


async def _knows_kubernetes(prometheus: Path) -> bool:
    """Ask the promtool beside a Prometheus whether they were built with Kubernetes discovery (Debian's are not)."""
    promtool = prometheus.with_name("promtool")
    if not promtool.is_file():
        return False
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        config.write("scrape_configs: [{job_name: x, kubernetes_sd_configs: [{role: pod}]}]\n")
        config.flush()
        process = await asyncio.create_subprocess_exec(
            str(promtool),
            "check",
            "config",
            config.name,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(VERSION_TIMEOUT_SECONDS):
            return await process.wait() == 0


async def ensure_promtool(progress: ProgressCallback = silent) -> Path:
    """Return promtool, from PATH or from the same build as Prometheus."""
    found = shutil.which("promtool")
    return Path(found) if found else await ensure_program(PROMETHEUS, progress) / "promtool"


async def ensure_helm(progress: ProgressCallback = silent) -> Path:
    """Return Helm, built if it is not in the cache yet (a minute or two, once)."""
    return await ensure_program(HELM, progress) / "helm"


async def ensure_contour(progress: ProgressCallback = silent) -> Path:
    """Return Contour, built if it is not in the cache yet (a minute or two, once)."""
    return await ensure_program(CONTOUR, progress) / "contour"


def program_directory(program: GoProgram) -> Path:
    """Return the directory of a program's binaries in the cache, which need not exist."""
    sources = [file for file in (SOURCES / program.name).iterdir() if file.suffix in {".go", ".mod", ".sum"}]
    key = content_key(sources, *program.packages, *program.flags, program.ldflags)
    return cache_dir() / "bin" / f"{program.name}-{key}"


async def ensure_program(program: GoProgram, progress: ProgressCallback = silent) -> Path:
    """Return the directory that holds the program's binaries; builds them first when they are missing.

    Raises:
        BuildError: the compiler or the module download failed.
        ToolMissingError: there is no Go new enough and none could be installed.
    """
    target = program_directory(program)
    step = f"build {program.name}"

    async def build(directory: Path) -> None:
        go = await ensure_tool("go", progress)
        await _build(program, go, directory, progress)

    def waiting() -> None:
        progress(Progress(step, "another process is building it: waiting"))

    return await ensure_directory(target, build, waiting)


def build_environment() -> dict[str, str]:
    """Return the user's environment (GOPROXY and all) with what the builds rely on."""
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local"}


async def _build(program: GoProgram, go: Path, directory: Path, progress: ProgressCallback) -> None:
    step = f"build {program.name}"
    environment = build_environment()
    # A copy, because the installed package may be read-only and a go.work of the user's must not see it.
    source = directory / "source"
    await asyncio.to_thread(shutil.copytree, SOURCES / program.name, source)
    progress(Progress(step, "downloading modules"))
    listed = await _run([str(go), "list", "-deps", *program.flags, *program.packages], source, environment)
    total = len(listed)
    done = 0

    def compiled(line: str) -> None:
        nonlocal done
        if not line.startswith(("go: ", "#", "\t")):
            done = min(done + 1, total)
            progress(Progress(step, line, done, total))

    command = [str(go), "build", "-v", "-trimpath", "-buildvcs=false", *program.flags, "-ldflags", program.ldflags]
    await _run([*command, "-o", f"{directory}/", *program.packages], source, environment, compiled)
    await asyncio.to_thread(shutil.rmtree, source)
    missing = [name for name in program.binaries if not (directory / name).is_file()]
    if missing:
        raise BuildError(f"go build of {program.name} ended well but left no {', '.join(missing)}")
    progress(Progress(step, "built", total, total))


async def _run(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], on_line: LineCallback | None = None
) -> list[str]:
    """Run one go command and return its lines; its process group dies with a cancellation."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101  # it was started with a pipe
    lines: list[str] = []
    try:
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            lines.append(line)
            if on_line is not None:
                on_line(line)
        code = await process.wait()
    except asyncio.CancelledError:
        signal_group(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if code != 0:
        raise BuildError(f"{' '.join(command)} failed (exit code {code}):\n" + "\n".join(lines[-ERROR_LINES:]))
    return lines
