"""``python -m canary_rollout.local.load --target 127.0.0.1:8080``: load in a process of its own.

Standard output: one JSON object per line, ``{"event": "started" | "counts" | "single" | "final" | "error", …}``.
Standard input: one command per line: ``counts``, ``single PATH TENANT``, ``stop``. The end of the input is a ``stop``, so that
the load ends with whoever started it.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from canary_rollout.local.load.config import LoadConfig, LoadConfigError
from canary_rollout.local.load.generator import LoadGenerator


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


def emit(event: str, values: dict[str, Any]) -> None:
    """Write one line of the report."""
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


async def obey(generator: LoadGenerator, reader: asyncio.StreamReader) -> None:
    """Carry out commands until one of them is ``stop``, or there are no more."""
    singles: set[asyncio.Task[None]] = set()

    async def single(path: str, tenant: str) -> None:
        try:
            outcome = await generator.single(path, tenant)
        except OSError as error:
            emit("error", {"message": f"no connection for {path}: {error}"})
        else:
            emit("single", outcome.to_dict())

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


async def run(arguments: argparse.Namespace) -> int:
    """Make load until told to stop."""
    given = {item.name: getattr(arguments, item.name, None) for item in fields(LoadConfig) if item.name != "targets"}
    config = LoadConfig(
        targets=tuple(arguments.target), **{name: value for name, value in given.items() if value is not None}
    )
    generator = LoadGenerator(config, arguments.log)
    await generator.start()
    emit("started", generator.snapshot().to_dict())
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def report() -> None:
        while True:
            await asyncio.sleep(arguments.every)
            emit("counts", generator.snapshot().to_dict())

    reports = asyncio.create_task(report())
    try:
        async with asyncio.timeout(arguments.duration or None):
            await obey(generator, reader)
    except TimeoutError:
        pass  # the duration is over
    finally:
        reports.cancel()
        emit("final", (await generator.stop()).to_dict())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 2 when the settings make no sense or nobody listens."""
    try:
        return asyncio.run(run(parser().parse_args(argv)))
    except (LoadConfigError, OSError, TimeoutError) as error:
        emit("error", {"message": f"{type(error).__name__}: {error}"})
        return 2
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
