"""``python -m canary_rollout.local.load --target 127.0.0.1:8080``: load in a process of its own.

Standard output: one JSON object per line, ``{"event": "started" | "counts" | "single" | "final" | "error", …}``.
Standard input: one command per line: ``counts``, ``single PATH TENANT``, ``stop``. The end of the input is a ``stop``, so that
the load ends with whoever started it.
"""

import argparse
import asyncio
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from canary_rollout.local.load.config import LoadConfig, LoadConfigError
from canary_rollout.local.load.generator import LoadGenerator

_UNREAD_SECONDS = 5.0
"""How long the end waits for somebody to read."""


def parse_target(text: str) -> tuple[str, int]:
    """``address:port`` as a pair."""
    address, colon, port = text.rpartition(":")
    if not colon or not address or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not address:port")
    return address, int(port)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser("canary-rollout-load", description=__doc__)
    made.add_argument("--target", type=parse_target, action="append", required=True, metavar="ADDRESS:PORT")
    made.add_argument("--rate", type=float, default=400.0, help="requests per second (open loop)")
    made.add_argument("--connections", type=int, default=32, help="keep-alive connections")
    made.add_argument("--tenants", type=int, default=5000)
    made.add_argument("--zipf", type=float, default=0.0, help="exponent of the tenants' popularity; 0: all alike")
    made.add_argument("--cohort-tenants", type=int, default=0, help="tenants that send X-Cohort: internal")
    made.add_argument("--tenant-header", default="X-Tenant-ID")
    made.add_argument("--path", default="/")
    made.add_argument("--host", default="")
    made.add_argument("--timeout", type=float, default=10.0, help="seconds until a request counts as failed")
    made.add_argument("--canary", default="checkout-canary", help="name of the canary's Deployment")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--log", type=Path, help="file for one JSON line per request")
    made.add_argument("--every", type=float, default=1.0, help="seconds between two reports")
    made.add_argument("--duration", type=float, default=0.0, help="stop by itself after this many seconds")
    return made


class Reports:
    """Lines on standard output, written by a thread: requests are due whether or not anybody reads at the moment."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="reports", daemon=True)
        self._thread.start()
        self.broken = False
        """Whether whoever read is gone."""

    def emit(self, event: str, values: dict[str, Any]) -> None:
        """Write one line."""
        self._lines.put(json.dumps({"event": event, **values}))

    @property
    def behind(self) -> bool:
        """Whether a line waits to be read."""
        return not self._lines.empty()

    def close(self) -> None:
        """Return when everything is written, or nobody has read for a while."""
        self._lines.put(None)
        self._thread.join(_UNREAD_SECONDS)

    def _write(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                _write_all(f"{line}\n".encode())
        except BrokenPipeError:
            self.broken = True


def _write_all(data: bytes) -> None:
    """To standard output past its buffer, whose lock a thread that waits for a reader would hold at the end."""
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


async def obey(
    generator: LoadGenerator, reader: asyncio.StreamReader, emit: Callable[[str, dict[str, Any]], None]
) -> None:
    """Carry out commands until one of them is ``stop``, or there are no more."""
    singles: set[asyncio.Task[None]] = set()

    async def single(path: str, tenant: str) -> None:
        try:
            outcome = await generator.single(path, tenant)
        except OSError as error:
            emit("error", {"message": f"no connection for {path}: {error}"})
        else:
            emit("single", outcome.to_dict())

    try:
        while line := (await reader.readline()).decode().split():
            match line:
                case ["stop"]:
                    return
                case ["counts"]:
                    emit("counts", generator.snapshot().to_dict())
                case ["single", path, tenant]:
                    task = asyncio.create_task(single(path, tenant))
                    singles.add(task)
                    task.add_done_callback(singles.discard)
                case _:
                    emit("error", {"message": f"unknown command {line[0]!r}"})
    finally:  # what is reported of them comes before the end, or not at all
        under_way = list(singles)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def run(arguments: argparse.Namespace, reports: Reports) -> None:
    """Make load until told to stop."""
    given = {item.name: getattr(arguments, item.name, None) for item in fields(LoadConfig) if item.name != "targets"}
    config = LoadConfig(
        targets=tuple(arguments.target), **{name: value for name, value in given.items() if value is not None}
    )
    generator = LoadGenerator(config, arguments.log)
    await generator.start()
    reports.emit("started", generator.snapshot().to_dict())
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def report() -> None:
        while True:
            await asyncio.sleep(arguments.every)
            if not reports.behind:
                reports.emit("counts", generator.snapshot().to_dict())

    reporting = asyncio.create_task(report())
    try:
        async with asyncio.timeout(arguments.duration or None):
            await obey(generator, reader, reports.emit)
    except TimeoutError:
        pass  # the duration is over
    finally:
        reporting.cancel()
        reports.emit("final", (await generator.stop()).to_dict())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 2 when the settings make no sense or nobody listens, 1 when nobody reads any more."""
    arguments = parser().parse_args(argv)
    reports = Reports()
    code = 0
    try:
        asyncio.run(run(arguments, reports))
    except (LoadConfigError, OSError, TimeoutError) as error:
        reports.emit("error", {"message": f"{type(error).__name__}: {error}"})
        code = 2
    finally:
        reports.close()
    return 1 if reports.broken else code


if __name__ == "__main__":
    sys.exit(main())
