"""The process that makes sure nothing is left: run as a script, with nothing but the standard library.

It reads lines from its standard input: ``+PID`` a process group was started, ``-PID`` it is gone. At the end of
the input, which comes when the owner closes it or dies in whatever way (kill -9 included), it kills every group
that is still registered and every process whose environment carries the run's marker, removes the run directory,
and ends. It runs in a session of its own so that a terminal's Ctrl-C or a kill of the owner's group misses it.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

MARKER_VARIABLE = "CANARY_ROLLOUT_LOCAL_RUN"
SWEEP_PAUSE_SECONDS = 0.05
SWEEP_LIMIT = 200


def marked_processes(marker: str, *, proc: Path = Path("/proc")) -> list[int]:
    """Return the ids of all living processes that were started with ``MARKER_VARIABLE=marker``."""
    wanted = f"{MARKER_VARIABLE}={marker}".encode()
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # gone meanwhile, or somebody else's
            continue
        if wanted in environment.split(b"\0"):
            found.append(int(entry.name))
    return found


def kill_everything(groups: set[int], marker: str) -> None:
    """Kill the groups and the marked processes until none is left; bounded."""
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    for _ in range(SWEEP_LIMIT):
        left = [pid for pid in marked_processes(marker) if pid != os.getpid()]
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(SWEEP_PAUSE_SECONDS)  # a process of its own, without a loop that this could hold up


def main(marker: str, run_dir: str) -> None:
    """Keep the list of groups until the owner is gone; then clean up."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        action, pid = line[0], int(line[1:])
        if action == "+":
            groups.add(pid)
        else:
            groups.discard(pid)
    kill_everything(groups, marker)
    if run_dir:
        shutil.rmtree(run_dir, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
