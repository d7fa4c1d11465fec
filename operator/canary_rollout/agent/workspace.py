"""The directory shared by agent and nginx: configurations side by side, one symlink that says which one counts.

``current -> conf/<n>`` is replaced by a rename, so nginx (and a restarted agent) sees one whole configuration or the
other. The same directory holds what a cold start needs while the API server is away.
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

CURRENT: Final = "current"
STATE: Final = "state.json"
LAST_GOOD: Final = "last-good.json"
DEADMAN: Final = "deadman.json"
ACCESS_LOG: Final = "log/access.log"
PID_FILE: Final = "run/nginx.pid"
_KEPT: Final = 4


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def write_atomic(path: Path, text: str) -> None:
    """Replace a file's content in one step, readable by the owner alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    _write(temporary, text)
    temporary.replace(path)


def point(root: Path, target: str) -> None:
    """Make ``current`` point to ``target`` (relative to ``root``) in one step."""
    temporary = root / f".{CURRENT}.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(root / CURRENT)


class Workspace:
    """One work directory. Everything in it is small; reads and writes are done in place."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Create what is missing; leftovers of an earlier run stay."""
        for name in ("conf", "log", "run", "tmp"):
            (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def token(self) -> str:
        """The secret that the control address asks for; made once per directory."""
        path = self.root / "token"
        try:
            return path.read_text(encoding="ascii")
        except FileNotFoundError:
            write_atomic(path, secrets.token_hex(24))
            return path.read_text(encoding="ascii")

    @property
    def access_log(self) -> Path:
        """Where nginx logs, one line per request."""
        return self.root / ACCESS_LOG

    @property
    def pid_file(self) -> Path:
        """Where nginx writes its master's process id."""
        return self.root / PID_FILE

    def target(self) -> str | None:
        """What ``current`` points to, relative to the root; ``None`` before the first load."""
        try:
            return str((self.root / CURRENT).readlink())
        except FileNotFoundError:
            return None

    def stage(self, files: Mapping[str, str], state: str) -> str:
        """Write a configuration beside the current one; its directory relative to the root."""
        numbers = [int(path.name) for path in (self.root / "conf").iterdir() if path.name.isdigit()]
        name = f"conf/{max(numbers, default=0) + 1}"
        directory = self.root / name
        directory.mkdir(mode=0o700)
        try:
            for file, text in {**files, STATE: state}.items():
                _write(directory / file, text)  # nobody looks there yet
        except OSError:  # raised again
            self.discard(name)
            raise
        return name

    def point(self, target: str) -> None:
        """Make a configuration the current one."""
        point(self.root, target)

    def discard(self, target: str) -> None:
        """Remove a configuration that was refused."""
        shutil.rmtree(self.root / target, ignore_errors=True)

    def prune(self) -> None:
        """Remove all but the newest few configurations and the current one."""
        numbers = sorted(int(path.name) for path in (self.root / "conf").iterdir() if path.name.isdigit())
        for number in numbers[:-_KEPT]:
            if f"conf/{number}" != self.target():
                self.discard(f"conf/{number}")

    def write_state(self, state: str) -> None:
        """Replace what nginx would start with after a restart."""
        if self.target() is not None:
            write_atomic(self.root / CURRENT / STATE, state)

    def save_last_good(self, data: Mapping[str, str]) -> None:
        """Keep the ConfigMap's content for a start without the API server."""
        write_atomic(self.root / LAST_GOOD, json.dumps(data))

    def save_lowered(self, data: Mapping[str, str]) -> None:
        """The same before a lowering: an agent that ends in between must not begin with the higher weight again.

        Never raises OSError, since a lowering waits for nothing: what cannot be replaced is removed.
        """
        try:
            self.save_last_good(data)
        except OSError:
            (self.root / LAST_GOOD).unlink(missing_ok=True)

    def last_good(self) -> dict[str, str] | None:
        """What :meth:`save_last_good` kept; ``None`` when there is nothing readable."""
        try:
            data = json.loads((self.root / LAST_GOOD).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return {f"{key}": f"{value}" for key, value in data.items()} if isinstance(data, dict) else None

    def write_deadman(self, renewed: float, until: float, fallback: str | None) -> None:
        """Tell nginx's parent process how long the current configuration may serve without us.

        Args:
            renewed: POSIX seconds of the last renewal the API server accepted.
            until: POSIX seconds from which ``fallback`` counts.
            fallback: a configuration that serves stable only; ``None``: none is needed.
        """
        write_atomic(self.root / DEADMAN, json.dumps({"renewed": renewed, "until": until, "fallback": fallback}))

    def renewed(self) -> float:
        """POSIX seconds of the last renewal an earlier run noted; 0 when there is none."""
        try:
            return float(json.loads((self.root / DEADMAN).read_text(encoding="utf-8"))["renewed"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0.0
