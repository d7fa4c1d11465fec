"""The parent of nginx in its container: waits for the first good configuration, starts nginx, sees it out.

Nothing but the standard library is imported here, and nothing is decided but two things an absent agent cannot do:

* SIGTERM (what Kubernetes sends) is a hard stop for nginx; here it becomes a pause, in which endpoints are updated, and
  then a graceful one, so that requests under way end.
* In reload mode nginx cannot end a weight by itself when its lease runs out. The agent leaves a configuration that
  serves stable only, and the time from which it counts; when that passes, it is loaded.
"""

import ctypes
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

TICK: Final = 0.5
"""Seconds between two looks at the lease."""
DRAIN: Final = 3.0
"""Seconds nginx goes on accepting after SIGTERM, so that whoever routes to this pod hears of its end first."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_PR_SET_PDEATHSIG: Final = 1


def _in_child() -> None:
    """Unblock signals, and end gracefully should the parent be killed."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class Supervisor:
    """Runs one nginx in ``work`` until it ends."""

    def __init__(self, binary: str, work: Path, drain: float = DRAIN) -> None:
        self._binary = binary
        self._work = work
        self._drain = drain
        self._child: subprocess.Popen[bytes] | None = None
        self._quit_at: float | None = None

    def run(self) -> int:
        """Exit code of nginx; 0 when told to stop before there was anything to run."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while not (self._work / "current/nginx.conf").exists():
            received = signal.sigtimedwait(_SIGNALS, 0.1)
            if received is not None and received.si_signo != signal.SIGCHLD:
                return 0
        for leftover in ("run/nginx.pid", "run/stopping"):
            (self._work / leftover).unlink(missing_ok=True)
        self._fall_back()
        (self._work / "run/supervisor.pid").write_text(f"{os.getpid()}\n", encoding="ascii")
        self._child = subprocess.Popen(  # noqa: S603 - the path comes from this container's own settings
            [self._binary, "-p", f"{self._work}/", "-c", "current/nginx.conf", "-g", "daemon off;"],
            preexec_fn=_in_child,  # noqa: PLW1509 - this process has one thread
        )
        while (code := self._child.poll()) is None:
            received = signal.sigtimedwait(_SIGNALS, TICK)
            if received is not None and received.si_signo in {signal.SIGTERM, signal.SIGINT}:
                self._stop(received.si_signo)
            if self._quit_at is not None and time.monotonic() >= self._quit_at:
                self._quit_at = float("inf")
                self._child.send_signal(signal.SIGQUIT)
            self._fall_back()
        return code if code >= 0 else 128 - code

    def _stop(self, number: int) -> None:
        if self._quit_at is None:
            (self._work / "run/stopping").touch()  # the agent stays for as long as nginx drains
            self._quit_at = time.monotonic() + (self._drain if number == signal.SIGTERM else 0.0)
        elif self._child is not None:
            self._child.send_signal(signal.SIGTERM)  # told twice: now

    def _fall_back(self) -> None:
        """Load the configuration that serves stable only, once the lease is over."""
        try:
            told = json.loads((self._work / "deadman.json").read_text(encoding="utf-8"))
            until, fallback = float(told["until"]), told["fallback"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return
        current = self._work / "current"
        if fallback is None or time.time() <= until or os.readlink(current) == fallback:  # noqa: PTH115
            return
        if not (self._work / fallback / "nginx.conf").exists():
            return
        temporary = self._work / ".current.supervisor"
        try:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(fallback)
            temporary.replace(current)
        except OSError as error:  # a full disk must not end nginx; tried again at the next look
            print(f"cannot fall back to stable: {error}", flush=True)  # noqa: T201
            return
        if self._child is not None:
            self._child.send_signal(signal.SIGHUP)
        print(f"no agent has renewed the lease since {told.get('renewed')}: serving stable only", flush=True)  # noqa: T201
