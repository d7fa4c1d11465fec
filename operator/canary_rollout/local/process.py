"""Child processes in groups of their own, watched without a thread each, and certain to end.

Every child gets its own session (so that its whole family can be signalled), is registered with the watchdog
process, and its end is seen through a pidfd on the event loop.
"""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from . import watchdog
from .errors import LocalClusterError, ProcessFailedError

WATCHDOG_STOP_SECONDS = 15.0
LOG_TAIL_LINES = 12


class ChildProcess:
    """One running child and its process group. Made by :meth:`ProcessTable.start`."""

    def __init__(self, table: "ProcessTable", popen: "subprocess.Popen[bytes]", name: str, log: Path | None) -> None:
        self._table = table
        self._popen = popen
        self.name = name
        self.log = log
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(popen.pid)
        self._loop.add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # What the leader left behind in its group dies with it, as it would with a container. Before the wait(): the
        # unreaped leader keeps the group's number from being given to somebody else.
        signal_group(self._popen.pid, signal.SIGKILL)
        code = self._popen.wait()
        self._table.forget(self)
        if not self._done.done():
            self._done.set_result(code)

    @property
    def pid(self) -> int:
        """Process id, which is the process group's id too."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit code (minus the signal number when killed by one), or None while it runs."""
        return self._done.result() if self._done.done() else None

    async def wait(self) -> int:
        """Return the exit code once the process has ended."""
        return await asyncio.shield(self._done)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the leader only, as a container runtime does."""
        if not self._done.done():
            self._popen.send_signal(number)

    def send_group(self, number: signal.Signals) -> None:
        """Send a signal to the whole group."""
        if not self._done.done():
            signal_group(self._popen.pid, number)

    async def stop(self, grace_seconds: float = 5.0) -> int:
        """SIGTERM, then SIGKILL to the group after ``grace_seconds``; returns the exit code."""
        self.send(signal.SIGTERM)
        # A stopped process does not see the SIGTERM before it is continued.
        self.send_group(signal.SIGCONT)
        try:
            async with asyncio.timeout(grace_seconds):
                return await self.wait()
        except TimeoutError:
            self.send_group(signal.SIGKILL)
            return await self.wait()

    def failure(self, what: str) -> ProcessFailedError:
        """Describe an unexpected end for a person, with the last lines of the log."""
        return ProcessFailedError(
            f"{self.name} {what} (exit code {self.returncode}); log {self.log}:\n{tail(self.log) if self.log else ''}"
        )


class ProcessTable:
    """All children of one run, and the watchdog that outlives us.

    Args:
        run_dir: removed by the watchdog at the very end, when ``remove_run_dir`` is set.
        remove_run_dir: whether the run directory is ours to remove.
        inherit: descriptors that the watchdog keeps open until everything is cleaned up (address claims).
    """

    def __init__(self, run_dir: Path, *, remove_run_dir: bool, inherit: Sequence[int] = ()) -> None:
        self.marker = uuid.uuid4().hex
        self._children: set[ChildProcess] = set()
        self._watchdog = subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-E",
                str(Path(watchdog.__file__)),
                self.marker,
                str(run_dir) if remove_run_dir else "",
            ],
            stdin=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            pass_fds=inherit,
        )

    @property
    def children(self) -> frozenset[ChildProcess]:
        """The children that are running now."""
        return frozenset(self._children)

    def start(
        self,
        argv: Sequence[str],
        *,
        name: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
    ) -> ChildProcess:
        """Start ``argv`` with both outputs appended to ``log`` (dropped without one).

        Raises:
            OSError: as ``exec`` gave it (``FileNotFoundError``, ``PermissionError`` …).
            LocalClusterError: the watchdog is gone, so that nothing may be started any more.
        """
        if self._watchdog.poll() is not None:
            raise LocalClusterError("the watchdog of this local cluster has ended: start a new cluster")
        environment = dict(os.environ if env is None else env)
        environment[watchdog.MARKER_VARIABLE] = self.marker
        output: IO[bytes] | int = subprocess.DEVNULL
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        try:
            popen = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        finally:
            if not isinstance(output, int):
                output.close()
        self._tell(f"+{popen.pid}\n")
        child = ChildProcess(self, popen, name or Path(argv[0]).name, log)
        self._children.add(child)
        return child

    def forget(self, child: ChildProcess) -> None:
        """Take an ended child off the list."""
        self._children.discard(child)
        self._tell(f"-{child.pid}\n")

    def _tell(self, line: str) -> None:
        assert self._watchdog.stdin is not None  # noqa: S101  # it was started with a pipe
        try:
            self._watchdog.stdin.write(line.encode())
            self._watchdog.stdin.flush()
        except (BrokenPipeError, ValueError):
            return  # it is cleaning up already, or has; start() refuses

    async def close(self, grace_seconds: float = 5.0) -> None:
        """Stop what still runs, then let the watchdog sweep, remove the run directory and end."""
        await asyncio.gather(*(child.stop(grace_seconds) for child in list(self._children)))
        assert self._watchdog.stdin is not None  # noqa: S101
        self._watchdog.stdin.close()
        await asyncio.to_thread(self._watchdog.wait, WATCHDOG_STOP_SECONDS)


def signal_group(group: int, number: signal.Signals) -> None:
    """Signal a process group; it is no error when it is gone."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a log file, or an empty string when there is none."""
    try:
        content = log.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(content.splitlines()[-lines:])
