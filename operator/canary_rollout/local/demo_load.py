"""The load generator in a process of its own, so that drawing the screen takes no time from it."""

import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from canary_rollout.local.errors import LocalClusterError
from canary_rollout.local.load import Snapshot

START_SECONDS = 15.0
STOP_SECONDS = 12.0
_LINE_LIMIT = 1 << 22


class LoadProcess:
    """Load until :meth:`stop`; it also ends by itself when this process does.

    Args:
        target: address and port.
        options: further command line options of ``python -m canary_rollout.local.load``.
        every: seconds between two reports.
    """

    def __init__(self, target: tuple[str, int], options: Sequence[str] = (), *, every: float = 0.25) -> None:
        self._arguments = ["--target", f"{target[0]}:{target[1]}", "--every", str(every), *options]
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._reported = asyncio.Condition()
        # Enough for rates over a few seconds.
        self.history: deque[Snapshot] = deque(maxlen=max(2, round(3 / every)))
        self.singles: list[dict[str, Any]] = []
        self.trouble = ""

    @property
    def latest(self) -> Snapshot | None:
        """The counts as last reported."""
        return self.history[-1] if self.history else None

    async def start(self) -> None:
        """Start and return when the first request may leave.

        Raises:
            LocalClusterError: nobody listens at the target.
        """
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "canary_rollout.local.load", *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is for us, we end the load
            limit=_LINE_LIMIT,
        )
        self._reading = asyncio.create_task(self._read(self._process), name="load reports")
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.wait_for_report()
        except TimeoutError:
            await self.stop()
            raise LocalClusterError(f"the load generator said nothing for {START_SECONDS:g} s") from None
        if self.latest is None:
            await self.stop()
            raise LocalClusterError(f"no load: {self.trouble or 'the load generator ended by itself'}")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101  # it was started with a pipe
        async for line in process.stdout:
            event = json.loads(line)
            name = event.pop("event")
            if name in {"started", "counts", "final"}:
                self.history.append(Snapshot.from_dict(event))
            elif name == "single":
                self.singles.append(event)
            else:
                self.trouble = str(event.get("message", ""))
            async with self._reported:
                self._reported.notify_all()
        await process.wait()
        async with self._reported:
            self._reported.notify_all()

    async def wait_for_report(self) -> None:
        """Return after the next report."""
        async with self._reported:
            await self._reported.wait()

    async def counts(self) -> Snapshot:
        """Counts that include everything up to now.

        Raises:
            LocalClusterError: the load has ended.
        """
        asked = time.monotonic()
        await self._command("counts")
        async with self._reported:
            # Not the next report: that may have been on its way when we asked. Its clock is this machine's, as ours.
            await self._reported.wait_for(lambda: self._ended or self._reported_since(asked))
        if self.latest is None or not self._reported_since(asked):
            raise LocalClusterError(f"the load generator has ended ({self.trouble or 'by itself'})")
        return self.latest

    def _reported_since(self, moment: float) -> bool:
        return self.latest is not None and self.latest.monotonic >= moment

    @property
    def _ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    async def single(self, path: str, tenant: str) -> None:
        """Send one request of its own; its outcome appears in :attr:`singles`."""
        await self._command(f"single {path} {tenant}")

    async def _command(self, text: str) -> None:
        process = self._process
        if process is None or process.stdin is None or process.returncode is not None:
            raise LocalClusterError(f"the load generator is not running ({self.trouble or 'it was stopped'})")
        process.stdin.write(f"{text}\n".encode())
        await process.stdin.drain()

    async def stop(self) -> Snapshot | None:
        """Let what is under way finish, end the process, and return the final counts."""
        process = self._process
        if process is None:
            return self.latest
        if process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            if self._reading is not None:
                await asyncio.wait({self._reading}, timeout=1.0)
                self._reading.cancel()
            self._process = None
        return self.latest
