"""How fast a broken canary at 25 % is taken back, through real nginx and a real Prometheus, over keep-alive connections.

Each run releases a version, waits until it serves 25 % and its rule has passed over a whole window, makes it fail 30 % of
its requests, and measures, with instruments of its own (Prometheus polled every 50 ms, the load generator's log), from

* the first failed answer,
* Prometheus first answering a breaching value (rule with ``for: 0s``, ``minRequests: 10``, window 10 s, evaluated every 1 s),
* the operator's write of weight 0

to the last answer of the canary. One local cluster for all runs and both modes.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from canary_rollout.errors import CanaryRolloutError
from canary_rollout.local.demo_cast import LocalCast, local_cast
from canary_rollout.local.demo_measure import ROLLOUT_KIND, BreachPoller, RollbackTimes, RolloutLog, rollback_times
from canary_rollout.local.demo_objects import CANARY, NAMESPACE, ROLLOUT, Choices
from canary_rollout.local.demo_screen import PlainScreen
from canary_rollout.local.demo_story import Rule, canary_breach, settle
from canary_rollout.local.errors import LocalClusterError
from canary_rollout.model.conditions import Phase

WEIGHT = 2500
STAGES = (
    {"name": "beta", "weight": "25%", "hold": "1h"},
    {"name": "ga", "weight": "100%", "hold": "1h"},
)
WINDOW_SECONDS = 10.0
ERROR_RATE = 0.3
STEP_SECONDS = 60.0
AFTER_SECONDS = 2.0
TARGETS = {"njs": {"max": 1.5, "median": 0.9}, "reload": {"max": 2.5}}
WRITE_TARGET_SECONDS = {"njs": 0.1}


async def set_up(cast: LocalCast, mode: str) -> None:
    """Have nginx take weights in ``mode`` from the next write on."""
    spec = {"workload": {"drain": "1s"}, "traffic": {"nginx": {"mode": mode}}}
    await cast.cluster.admin.patch(*ROLLOUT_KIND, ROLLOUT, {"spec": spec}, namespace=NAMESPACE)


async def demand(cast: LocalCast, holds: Any, what: str) -> None:
    """Wait for something that has to come."""
    if not await cast.rollout.wait(holds, STEP_SECONDS):
        status = json.dumps(cast.rollout.status)[:1500]
        raise LocalClusterError(f"waited {STEP_SECONDS:g} s in vain for {what}; status: {status}")


async def serve_at_25(cast: LocalCast, tag: str, mode: str) -> None:
    """Release ``tag`` and return when it has served 25 % for a whole window without a finding."""
    before = cast.rollout.revision
    await cast.release(tag)

    def judged_good(log: RolloutLog) -> bool:
        verdicts = {one["rule"]: one["verdict"] for one in log.status.get("verdicts") or []}
        serving = log.revision != before and log.moments[-1].weight == WEIGHT
        by_mode = str(log.status.get("router", "")).endswith(f"({mode})")
        return serving and by_mode and verdicts.get("error-rate") == "pass"

    await demand(cast, judged_good, f"{tag} to serve 25 % by {mode} and pass its rule")
    began = next(write for write in reversed(cast.route.writes) if write.weight == WEIGHT)
    await asyncio.sleep(max(0.0, began.seen_at + WINDOW_SECONDS + 1.5 - time.time()))


async def break_canary(cast: LocalCast) -> None:
    """From now on every canary pod fails some of its requests."""
    pods = await cast.cluster.admin.list("v1", "Pod", namespace=NAMESPACE, label_selector="track=canary")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        for pod in pods:
            if pod["metadata"].get("deletionTimestamp"):
                continue
            address = cast.cluster.listen_address(pod["status"]["podIP"])
            async with session.post(f"http://{address}:8080/control?error_rate={ERROR_RATE}") as response:
                response.raise_for_status()


async def one_run(cast: LocalCast, tag: str, mode: str) -> RollbackTimes:
    """One broken canary from its fault to its last answer."""
    # Before the release: its pods are all there are that do not exist yet.
    query = await canary_breach(cast, Rule())
    await serve_at_25(cast, tag, mode)
    poller = BreachPoller(cast.prometheus_url, query)
    polling = asyncio.create_task(poller.run())
    began = time.time()
    try:
        await break_canary(cast)
        await demand(cast, lambda log: log.phase == Phase.ROLLED_BACK, f"{tag} to be rolled back")
        await asyncio.sleep(AFTER_SECONDS)
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
    counts = await cast.load.counts()
    cast.check()
    answered = counts.versions.get(f"canary/{tag}")
    return rollback_times(poller.breach, cast.route.lowered_to_zero(began), answered, counts.clock_offset)


async def bench(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All runs of all modes."""
    screen = PlainScreen(console)
    load = ["--rate", str(arguments.rate), "--tenants", "4000", "--canary", CANARY]
    found: dict[str, Any] = {"machine": platform.platform(), "rate": arguments.rate, "modes": {}}
    async with local_cast(Choices(stages=STAGES, mode=arguments.modes[0]), load, screen.progress) as cast:
        if not await settle(cast):
            raise LocalClusterError(f"the operator did not take the CanaryRollout up: {cast.rollout.status}")
        for mode in arguments.modes:
            await set_up(cast, mode)
            runs = []
            for number in range(arguments.runs):
                times = await one_run(cast, f"{mode}{number + 1}", mode)
                runs.append(times)
                screen.say(f"{mode} {number + 1}/{arguments.runs}: {describe(times)}")
            found["modes"][mode] = evaluate(mode, runs)
        final = await cast.load.counts()
    found["load"] = {
        name: getattr(final, name)
        for name in (
            "sent",
            "app_errors",
            "transport_errors",
            "no_app",
            "not_sent",
            "transport_kinds",
            "no_app_statuses",
        )
    }
    return found


def describe(times: RollbackTimes) -> str:
    """One run in one line."""
    return (
        f"Prometheus told -> last answer {text(times.breach_to_last_request)}, -> write {text(times.breach_to_write)}; "
        f"write -> last answer {text(times.write_to_last_request)}; {times.failed_answers} failed answers"
    )


def text(seconds: float | None) -> str:
    return "not seen" if seconds is None else f"{seconds * 1000:.0f} ms"


def quantile(values: Sequence[float], q: float) -> float:
    """The value that a share ``q`` of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(q * 1000) * len(ordered) // 1000) - 1))]


def evaluate(mode: str, runs: Sequence[RollbackTimes]) -> dict[str, Any]:
    """Median, p99 and maximum of a mode's runs, beside what was asked for."""
    measured: dict[str, dict[str, float]] = {}
    for name in ("breach_to_last_request", "breach_to_write", "write_to_last_request", "first_failure_to_write"):
        values = [value for run in runs if (value := getattr(run, name)) is not None]
        if values:
            measured[name] = {
                "median": round(statistics.median(values), 4),
                "p99": quantile(values, 0.99),
                "max": max(values),
            }
    unseen = sum(run.breach_to_last_request is None for run in runs)
    missed = [f"{unseen} of {len(runs)} runs could not be measured"] if unseen else []
    for figure, limit in TARGETS[mode].items():
        value = measured.get("breach_to_last_request", {}).get(figure, float("inf"))
        if value > limit:
            missed.append(f"Prometheus told -> last answer: {figure} {value:.2f} s > {limit} s")
    limit = WRITE_TARGET_SECONDS.get(mode, float("inf"))
    value = measured.get("write_to_last_request", {}).get("p99", float("inf"))
    if value > limit:
        missed.append(f"write -> last answer: p99 {value:.3f} s > {limit} s")
    return {"runs": [asdict(run) for run in runs], "measured": measured, "targets": TARGETS[mode], "missed": missed}


def table(found: dict[str, Any]) -> Table:
    """What was measured, for a person."""
    made = Table(title="Rollback of a broken canary at 25 %", title_justify="left")
    for title in ("mode", "from", "to", "median", "p99", "max", "asked for"):
        made.add_column(title, justify="right" if title in {"median", "p99", "max"} else "left")
    rows = (
        ("breach_to_last_request", "Prometheus told", "last answer of the canary"),
        ("breach_to_write", "Prometheus told", "weight 0 written"),
        ("write_to_last_request", "weight 0 written", "last answer of the canary"),
        ("first_failure_to_write", "first failed answer", "weight 0 written"),
    )
    for mode, results in found["modes"].items():
        for name, begin, end in rows:
            values = results["measured"].get(name, {})
            asked = ", ".join(f"{figure} {limit} s" for figure, limit in TARGETS[mode].items())
            if name == "write_to_last_request" and mode in WRITE_TARGET_SECONDS:
                asked = f"p99 {WRITE_TARGET_SECONDS[mode]} s"
            elif name != "breach_to_last_request":
                asked = ""
            cells = [text(values.get(figure)) for figure in ("median", "p99", "max")]
            made.add_row(mode, begin, end, *cells, asked)
        made.add_section()
    return made


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("bench/rollback.py", description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--modes", nargs="+", choices=["njs", "reload"], default=["njs", "reload"])
    parser.add_argument("--rate", type=float, default=400.0, help="requests per second")
    parser.add_argument("--json", type=Path, default=Path("bench/results/rollback.json"), help="where the numbers go")
    parser.add_argument("--check", action="store_true", help="exit code 1 when something asked for was missed")
    arguments = parser.parse_args(argv)
    console = Console(width=120)
    found: dict[str, Any] = {}

    async def run() -> None:
        nonlocal found
        try:
            found = await bench(arguments, console)
        except* CanaryRolloutError as group:
            for error in group.exceptions:
                console.print(f"✗ {error}", style="red", markup=False)

    asyncio.run(run())
    if not found:
        return 1
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    console.print(table(found))
    console.print(f"load: {found['load']}", markup=False, soft_wrap=True)
    missed = [f"{mode}: {one}" for mode, results in found["modes"].items() for one in results["missed"]]
    for one in missed:
        console.print(f"✗ {one}", style="red", markup=False)
    return 1 if missed and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
