"""How long a weight change takes: from the operator's write to the last answer of the canary, over kept connections.

``python bench/weight_change.py`` runs a real nginx with a real agent process against the tests' API server, under load,
in both modes, and prints medians, p99 and maxima in milliseconds, then one line of JSON.
"""

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/plugins"))

from fake_api import FakeServer
from keepalive import Load
from proxies import (
    World,
    agent_process,
    apps,
    endpoint_slice,
    eventually,
    free_port,
    nginx_process,
    settings_for,
    spec_of,
)

from canary_rollout.kube.port import ENDPOINT_SLICES

TARGETS = {"njs": 100.0}


async def measure(mode: str, changes: int, work: Path, connections: int) -> dict[str, object]:
    """Lower from 25 % to 0 ``changes`` times; times in milliseconds."""
    settings, port = settings_for(work), free_port()
    world = World(spec=spec_of(nginx={"service": "edge", "listen": port, "mode": mode}))
    last: list[float] = []
    acked: list[float] = []
    after = 0
    async with apps(world), FakeServer(world.api) as server, nginx_process(settings), agent_process(server, settings):
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        await world.route(0)
        await eventually(lambda: world.view().confirmed, within=30)
        load = Load("127.0.0.1", port, connections=connections, think=0.002)
        load.start()
        for _ in range(changes):
            await world.route(2500)
            await eventually(lambda: world.view().confirmed)
            seen = len(load.answers)
            await eventually(lambda: sum(a.body == b"canary" for a in load.answers[seen:]) > 20)  # noqa: B023
            began = time.monotonic()
            await world.route(0)
            await eventually(lambda: world.view().confirmed)
            confirmed = time.monotonic()
            await asyncio.sleep(0.1)
            canary = [a for a in load.answers[seen:] if a.body == b"canary"]
            after += sum(a.started > confirmed for a in canary)
            last.append(max(0.0, max(a.ended for a in canary) - began) * 1000)
            acked.append((confirmed - began) * 1000)
        await load.stop()
    return {
        "mode": mode,
        "changes": changes,
        "requests": len(load.answers),
        "failed": len(load.failures),
        "canary_after_ack": after,
        "write_to_last_canary_answer_ms": summary(last),
        "write_to_acknowledged_ms": summary(acked),
    }


def summary(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile (nearest rank) and maximum."""
    ordered = sorted(values)
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return {
        name: round(value, 1)
        for name, value in (("median", statistics.median(ordered)), ("p99", p99), ("max", ordered[-1]))
    }


async def run(options: argparse.Namespace) -> int:
    results = []
    print(
        f"{'mode':8}{'changes':>8}{'requests':>10}{'failed':>8}{'late':>6}   write to last canary answer   write to acknowledged"
    )
    for mode in options.modes:
        with tempfile.TemporaryDirectory(prefix="canary-bench-") as directory:
            changes = options.changes if mode == "njs" else max(1, options.changes // 5)
            result = await measure(mode, changes, Path(directory) / "work", options.connections)
        results.append(result)
        times = "   ".join(
            "median {median:7.1f} p99 {p99:7.1f}".format(**result[key])
            for key in ("write_to_last_canary_answer_ms", "write_to_acknowledged_ms")
        )
        numbers = f"{result['changes']:>8}{result['requests']:>10}{result['failed']:>8}{result['canary_after_ack']:>6}"
        print(f"{mode:8}{numbers}   {times}")
    print(json.dumps(results))
    missed = [r for r in results if r["write_to_last_canary_answer_ms"]["p99"] > TARGETS.get(r["mode"], math.inf)]
    return 1 if missed or any(r["failed"] or r["canary_after_ack"] for r in results) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=50, help="lowerings in njs mode; a fifth of them in reload mode")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--modes", nargs="+", choices=["njs", "reload"], default=["njs", "reload"])
    sys.exit(asyncio.run(run(parser.parse_args())))
