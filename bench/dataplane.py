"""What each data plane does with weights, measured: `make bench-dataplane`.

For every one that is installed here, with a real agent process and the tests' API server: the split at 0.5, 5, 25 and
100 %, requests failed by 20 weight changes under load, what a dead canary looks like to clients, and how long a weight
takes from the operator's write to the first request at the new one and to the last at the old one. Prints a table, then
one line of JSON; exit code 1 where a target is missed.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dataplane_planes import Kind, Plane, app, eventually, free_port, kinds, now
from keepalive import Load, fetch_all, versions
from lag import Lag

WEIGHTS = (50, 500, 2500, 10_000)
CHANGES = 20
PAUSE = 1.0
"""Seconds between two changes: raises wait for the second after the last reload, which is no part of what is measured."""


@dataclass
class Result:
    """One line of the table.

    Attributes:
        shares: seen share by weight, per cent.
        off: largest distance from the weight, in standard deviations.
        requests: sent during the weight changes.
        failed: of these.
        late: requests that began after a weight of 0 was confirmed and went to the canary all the same.
        dead: answers of 5xx, per cent, with a canary at 25 % that does not listen.
        dead_off: its distance from 25 %, in standard deviations.
        first: write to the first request at the new weight, milliseconds, of each raise.
        last: write to the last request at the old weight, milliseconds, of each lowering.
        acked: write to confirmed, milliseconds.
        missed: targets that were missed.
        held: the longest time for which this process, which is clients, apps and API server in one, was held up meanwhile,
            milliseconds: that much of any time may be its own.
        busy: load average of the machine meanwhile; above its number of cores, times are upper bounds.
    """

    name: str
    version: str
    missing: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    off: float = 0.0
    requests: int = 0
    failed: int = 0
    late: int = 0
    dead: float = 0.0
    dead_off: float = 0.0
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    acked: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    held: float = 0.0
    busy: float = 0.0


def sigmas(seen: int, count: int, weight: int) -> float:
    """Distance of a count from what the weight expects, in standard deviations."""
    share = weight / 10_000
    deviation = math.sqrt(count * share * (1 - share))
    return abs(seen - count * share) / deviation if deviation else 0.0 if seen == count * share else math.inf


def percentile(values: list[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


async def accuracy(plane: Plane, result: Result, count: int) -> None:
    for number, weight in enumerate(WEIGHTS):
        await plane.write(weight)
        await plane.confirmed()
        tenants = ({"X-Tenant-ID": f"tenant-{number}-{n}"} for n in range(count))
        seen = (await versions("127.0.0.1", plane.port, tenants)).count("canary")
        result.shares[f"{weight / 100:g}%"] = round(100 * seen / count, 3)
        result.off = max(result.off, sigmas(seen, count, weight))
    await plane.write(0)
    await plane.confirmed()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection, as in ``timeit``: over all the answers that are kept, one takes 0.3 to 0.8 s on a busy machine."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def changes(plane: Plane, result: Result, count: int, connections: int) -> None:
    """``count`` weight changes under load, half of them raises."""
    load, lag = Load("127.0.0.1", plane.port, connections=connections, think=0.004), Lag()
    load.start()
    await eventually(lambda: len(load.answers) > 100)
    await asyncio.sleep(PAUSE)
    for _ in range(count // 2):
        seen, began = len(load.answers), now()
        await plane.write(2500)
        await plane.confirmed()
        result.acked.append((now() - began) * 1000)
        await eventually(lambda: any(a.body == b"canary" for a in load.answers[seen:]))  # noqa: B023
        result.first.append(1000 * (min(a.ended for a in load.answers[seen:] if a.body == b"canary") - began))
        await asyncio.sleep(PAUSE)
        seen, began = len(load.answers), now()
        await plane.write(0)
        await plane.confirmed()
        confirmed = now()
        result.acked.append((confirmed - began) * 1000)
        await asyncio.sleep(PAUSE)
        canary = [a for a in load.answers[seen:] if a.body == b"canary"]
        result.last.append(1000 * max([0.0, *(a.started - began for a in canary)]))
        result.late += sum(a.started > confirmed for a in canary)
    await load.stop()
    result.held = 1000 * await lag.longest()
    result.requests, result.failed = len(load.answers) + len(load.failures), len(load.failures)


async def dead(kind: Kind, work: Path, result: Result, count: int) -> None:
    """A canary that does not listen, at 25 %."""
    async with kind.start(work, free_port()) as plane:
        await plane.write(2500)
        await plane.confirmed()
        await asyncio.sleep(0.2)
        tenants = [{"X-Tenant-ID": f"tenant-{n}"} for n in range(count)]
        seen = sum(answer.status >= 500 for answer in await fetch_all("127.0.0.1", plane.port, tenants))
        result.dead, result.dead_off = round(100 * seen / count, 2), sigmas(seen, count, 2500)


def judge(kind: Kind, result: Result) -> None:
    checks = (
        (result.off <= 3, f"split {result.off:.1f} sigma off"),
        (result.dead_off <= 3, f"dead canary seen in {result.dead} % instead of 25 %"),
        (not (kind.spares and result.failed), f"{result.failed} requests failed"),
        (result.late == 0 or not kind.spares, f"{result.late} late requests"),
        (percentile(result.first, 0.99) <= kind.first, f"first p99 above {kind.first:.0f} ms"),
        (percentile(result.last, 0.99) <= kind.last, f"last p99 above {kind.last:.0f} ms"),
    )
    result.missed = [said for fine, said in checks if not fine]


async def measure(kind: Kind, options: argparse.Namespace) -> Result:
    result = Result(kind.name, kind.version, kind.missing)
    if kind.missing:
        return result
    with tempfile.TemporaryDirectory(prefix="canary-bench-") as directory:
        async with app("canary") as canary, kind.start(Path(directory) / "work", canary) as plane:
            await accuracy(plane, result, options.requests)
            with uncollected():
                await changes(plane, result, options.changes, options.connections)
        await dead(kind, Path(directory) / "dead", result, options.requests // 5)
    result.busy = round(os.getloadavg()[0], 1)
    judge(kind, result)
    return result


HEAD = (
    f"{'data plane':22}{'0.5 %':>8}{'5 %':>8}{'25 %':>8}{'100 %':>7}{'sigma':>7}{'requests':>10}{'failed':>8}{'late':>6}"
    f"{'dead canary':>13}{'first p50/p99':>16}{'last p50/p99':>16}{'acked p50/p99':>16}{'held':>6}  ms"
)


def line(result: Result) -> str:
    title = f"{result.name} {result.version}"
    if result.missing:
        return f"{title:22} {result.missing}"
    shares = "".join(f"{share:>8.3f}" for share in list(result.shares.values())[:3]) + f"{result.shares['100%']:>7.0f}"
    times = "".join(
        f"{f'{statistics.median(values):.1f} / {percentile(values, 0.99):.1f}':>16}"
        for values in (result.first, result.last, result.acked)
    )
    counts = f"{result.off:>7.1f}{result.requests:>10}{result.failed:>8}{result.late:>6}{f'{result.dead} % 5xx':>13}"
    cores = len(os.sched_getaffinity(0))
    busy = f" (load average {result.busy} on {cores} cores)" if result.busy > 2 * cores else ""
    return f"{title:22}{shares}{counts}{times}{result.held:>6.0f}  {'; '.join(result.missed) or 'ok'}{busy}"


def as_json(results: list[Result]) -> str:
    said = []
    for result in results:
        one = asdict(result)
        for name in ("first", "last", "acked"):
            values = one.pop(name)
            one[f"{name}_ms"] = {
                "changes": len(values),
                **{f"p{round(100 * at)}": round(percentile(values, at), 2) for at in (0.5, 0.99) if values},
            }
        said.append(one)
    return json.dumps(said)


def save(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


async def run(options: argparse.Namespace) -> int:
    results = []
    print(HEAD)
    for kind in kinds():
        if options.only and not any(word in kind.name for word in options.only):
            continue
        results.append(await measure(kind, options))
        print(line(results[-1]), flush=True)
    text = as_json(results)
    print(text)
    if options.json:
        save(Path(options.json), text)
    return 1 if any(result.missed for result in results) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="tenants asked at each weight")
    parser.add_argument("--changes", type=int, default=CHANGES, help="weight changes under load")
    parser.add_argument("--connections", type=int, default=16, help="kept connections of the load")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="data planes whose name has one of these words")
    parser.add_argument("--json", metavar="FILE", help="write the JSON there too")
    sys.exit(asyncio.run(run(parser.parse_args())))
