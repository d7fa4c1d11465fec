"""False rollbacks and time to detect of the sequential comparison, next to the peers' rules on the same scrapes.

`make bench-analysis` (SEEDS="1 2" ROLLOUTS=20 SCENARIOS="healthy broken rollouts" TICK=15 JOBS=2), or
`python bench/analysis.py --seeds 1 2 --rollouts 20 --scenarios healthy broken --json out.json`. Every rollout is drawn from
(seed, number, scenario), so a row can be run again alone. `--emit SCENARIO` prints the samples of one rollout as the lines
that `kubectl canary replay` reads.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis_peers import REFERENCE, RULES
from analysis_run import OURS, Result, run
from analysis_scenarios import GROUPS, SCENARIOS, Scenario, select
from analysis_scrapes import line, simulate

SHORT = {
    OURS: "ours",
    "Flagger 60 s, 5 failed": "Fl 60/5",
    "Flagger 10 s, 5 failed": "Fl 10/5",
    "Argo 60 s, failureLimit 3": "Argo",
    "alert >1 % for 5 m": ">1% 5m",
    "5 m average >1 %": "avg 5m",
    ">2x stable, n>=100": ">2x",
    ">2x stable, n>=100, 5 m": ">2x 5m",
    "z-test 1 %, peeked": "z-test",
    "Kayenta, 60 x 1 m": "Kayenta",
}
COMPARED = (OURS, REFERENCE, "Flagger 10 s, 5 failed", "Argo 60 s, failureLimit 3", ">2x stable, n>=100")
OTHER_TESTS = ("latency-comparison", "gauge-comparison:memory", "history-comparison")


def upper(failures: int, of: int, confidence: float = 0.95) -> float:
    """Clopper-Pearson: the largest probability at which as few failures have a chance of 1 - confidence."""
    if failures >= of:
        return 1.0
    low, high = failures / of if of else 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        logs = [
            math.lgamma(of + 1)
            - math.lgamma(k + 1)
            - math.lgamma(of - k + 1)
            + k * math.log(middle)
            + (of - k) * math.log1p(-middle)
            for k in range(failures + 1)
        ]
        low, high = (middle, high) if sum(map(math.exp, logs)) > 1 - confidence else (low, middle)
    return high


def hours(scenario: Scenario, rollbacks: Iterable[float | None]) -> float:
    """Stage-hours that were looked at before a rollback or the end."""
    return sum(scenario.length if at is None else at for at in rollbacks) / 3600


def quantile(times: Sequence[float | None], part: float) -> float | None:
    """A quantile of which rollouts without a rollback are the upper end; None when it falls on one of them."""
    ordered = sorted(math.inf if at is None else at for at in times)
    value = ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]
    return None if math.isinf(value) else value


def false_alarms(scenario: Scenario, results: list[Result]) -> dict[str, dict[str, float]]:
    """By rule: rollbacks of a healthy canary, per rollout with the 95 % bound, and per stage-hour."""
    out = {}
    for rule in (OURS, *RULES):
        times = [result.rollbacks[rule] for result in results]
        count = sum(at is not None for at in times)
        looked = hours(scenario, times)
        out[rule] = {
            "rollbacks": count,
            "rollouts": len(times),
            "share": count / len(times),
            "upper95": upper(count, len(times)),
            "stageHours": looked,
            "perStageHour": count / looked if looked else math.nan,
        }
    return out


def detection(scenario: Scenario, results: list[Result]) -> dict[str, dict[str, float | None]]:
    """By rule: seconds from the onset to the rollback, share found, and requests that failed until then."""
    out: dict[str, dict[str, float | None]] = {}
    for rule in (OURS, *RULES):
        times = [result.rollbacks[rule] for result in results]
        after = [None if at is None or at <= scenario.onset else at - scenario.onset for at in times]
        out[rule] = {
            "rollouts": len(times),
            "early": sum(at is not None and at <= scenario.onset for at in times),
            "found": sum(at is not None for at in after) / len(after),
            "median": quantile(after, 0.5),
            "p95": quantile(after, 0.95),
            "errors": statistics.fmean(result.errors[rule] for result in results),
        }
    return out


def other_tests(results: list[Result]) -> dict[str, dict[str, float | None]]:
    """The product's other tests: share of rollouts with a fail, and the median time of those with one."""
    out: dict[str, dict[str, float | None]] = {}
    for test in OTHER_TESTS:
        times = [
            min((at for rule, at in result.fails.items() if rule.startswith(test)), default=None) for result in results
        ]
        out[test] = {"found": sum(at is not None for at in times) / len(times), "median": quantile(times, 0.5)}
    held = [result.held for result in results]
    out["held for growth"] = {"found": sum(at is not None for at in held) / len(held), "median": quantile(held, 0.5)}
    return out


def cost(results: list[Result]) -> dict[str, float]:
    """CPU of one evaluation, counts to verdict, all tests together: mean over all, worst mean of a rollout, worst single one."""
    ticks = sum(result.ticks for result in results) or 1
    long = [result for result in results if result.ticks >= 100]
    return {
        "evaluations": ticks,
        "meanMs": 1e3 * sum(result.cpu for result in results) / ticks,
        "worstRolloutMs": 1e3 * max((result.cpu / result.ticks for result in long), default=0.0),
        "worstMs": 1e3 * max((result.slowest for result in results), default=0.0),
    }


def summary(scenarios: list[Scenario], results: dict[str, list[Result]]) -> dict[str, object]:
    """Everything the tables are printed from, as JSON."""
    broken = [scenario for scenario in scenarios if scenario.broken_rate is not None]
    healthy = [scenario for scenario in scenarios if not scenario.broken]
    out: dict[str, object] = {
        "healthy": {scenario.name: false_alarms(scenario, results[scenario.name]) for scenario in healthy},
        "broken": {scenario.name: detection(scenario, results[scenario.name]) for scenario in broken},
        "otherTests": {scenario.name: other_tests(results[scenario.name]) for scenario in scenarios},
        "cost": cost([result for group in results.values() for result in group]),
    }
    ratios: dict[str, object] = {}
    for group in GROUPS:
        found = [out["broken"][scenario.name] for scenario in broken if scenario.group == group]
        if found:
            ratios[group] = ratio(found)
    if broken:
        ratios["all broken"] = ratio(list(out["broken"].values()))
    return out | {"errorsServed": ratios}


def ratio(rows: list[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Errors served by the product over those of Flagger 60 s/5: of the sums, and the mean of the scenarios' ratios."""
    pairs = [(row[OURS]["errors"], row[REFERENCE]["errors"]) for row in rows]
    return {
        "scenarios": len(pairs),
        "ours": sum(ours for ours, _ in pairs),
        "reference": sum(theirs for _, theirs in pairs),
        "ofSums": sum(ours for ours, _ in pairs) / max(sum(theirs for _, theirs in pairs), 1e-9),
        "meanOfRatios": statistics.fmean(ours / max(theirs, 1e-9) for ours, theirs in pairs),
    }


def show(out: dict[str, object]) -> None:
    """Print the tables."""
    if out["healthy"]:
        print("\nHealthy: rollouts rolled back, % (ours: number, % [95 % upper bound], % of stage-hours)")
        others = [SHORT[rule] for rule in RULES]
        print(
            f"{'scenario':<32}{'ours':>10}{'%':>7}{'[95 %]':>9}{'/h':>7} | " + "".join(f"{name:>9}" for name in others)
        )
        for name, rules in out["healthy"].items():
            ours = rules[OURS]
            row = f"{name:<32}{ours['rollbacks']:>5}/{ours['rollouts']:<4}{100 * ours['share']:>7.2f}{100 * ours['upper95']:>9.2f}"
            row += f"{100 * ours['perStageHour']:>7.2f} | "
            print(row + "".join(f"{100 * rules[rule]['share']:>9.1f}" for rule in RULES))
    if out["broken"]:
        print(
            "\nBroken: seconds from onset to rollback, median / p95 (% found when not all), and errors served on average"
        )
        print(
            f"{'scenario':<32}"
            + "".join(f"{SHORT[rule]:>24}" for rule in COMPARED)
            + f"{'errors':>9}{'Flagger':>9}{'ratio':>7}"
        )
        for name, rules in out["broken"].items():
            ours, theirs = rules[OURS]["errors"], rules[REFERENCE]["errors"]
            row = f"{name:<32}" + "".join(f"{spoken(rules[rule]):>24}" for rule in COMPARED)
            print(row + f"{ours:>9.0f}{theirs:>9.0f}{ours / max(theirs, 1e-9):>7.3f}")
        for group, figures in out["errorsServed"].items():
            print(
                f"errors served, {group} ({figures['scenarios']} scenarios): {figures['ours']:.0f} against {figures['reference']:.0f} of "
                f"{REFERENCE}: {figures['ofSums']:.3f}x in all, {figures['meanOfRatios']:.3f}x as the mean of the ratios"
            )
    print("\nOther tests: % of rollouts with a fail, median s")
    print(f"{'scenario':<32}" + "".join(f"{test:>26}" for test in (*OTHER_TESTS, "held for growth")))
    for name, tests in out["otherTests"].items():
        if any(figures["found"] for figures in tests.values()) or SCENARIOS[name].group in {"latency", "memory"}:
            cells = (f"{100 * figures['found']:.0f} % {seconds(figures['median'])}" for figures in tests.values())
            print(f"{name:<32}" + "".join(f"{cell:>26}" for cell in cells))
    figures = out["cost"]
    print(
        f"\nCPU of one evaluation, counts to verdict, all tests: {figures['meanMs']:.3f} ms on average of {figures['evaluations']}, "
        f"{figures['worstRolloutMs']:.3f} ms in the worst rollout, {figures['worstMs']:.1f} ms the worst single one"
    )


def spoken(figures: dict[str, float | None]) -> str:
    """`30 / 45 (98%)`."""
    found = "" if figures["found"] == 1 else f" ({100 * (figures['found'] or 0):.0f}%)"
    early = f" !{figures['early']}" if figures["early"] else ""
    return f"{seconds(figures['median'])} / {seconds(figures['p95'])}{found}{early}"


def seconds(value: float | None) -> str:
    """Whole seconds, or a dash."""
    return "-" if value is None else f"{value:.0f}"


def job(task: tuple[str, int, int, float]) -> Result:
    name, seed, number, tick = task
    return run(SCENARIOS[name], seed, number, tick)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="whole numbers; each gives its own rollouts")
    parser.add_argument("--rollouts", type=int, default=20, help="rollouts per scenario and seed")
    parser.add_argument(
        "--scenarios",
        nargs="+",
        default=["healthy", "broken", "rollouts"],
        help=f"names, beginnings (batch-), groups: {', '.join(GROUPS)}, all",
    )
    parser.add_argument("--tick", type=float, default=15.0, help="seconds between two evaluations")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--json", metavar="FILE", help="write all figures there as well (- for the terminal, instead of the tables)"
    )
    parser.add_argument("--each", metavar="FILE", help="write every rollout's result there, one JSON object a line")
    parser.add_argument(
        "--emit", metavar="SCENARIO", help="print one rollout's samples (first seed) as replay lines, and end"
    )
    asked = parser.parse_args()
    if asked.emit:
        for event in simulate(select([asked.emit])[0], asked.seeds[0]).events():
            print(json.dumps(line(event)))
        return
    scenarios = select(asked.scenarios)
    tasks = [
        (scenario.name, seed, number, asked.tick)
        for scenario in scenarios
        for seed in asked.seeds
        for number in range(asked.rollouts)
    ]
    results: dict[str, list[Result]] = {scenario.name: [] for scenario in scenarios}
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        each = stack.enter_context(Path(asked.each).open("w", encoding="utf-8", buffering=1)) if asked.each else None
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(asked.jobs))
        for done, result in enumerate(pool.imap_unordered(job, tasks, chunksize=4), 1):
            results[result.scenario].append(result)
            if each:
                each.write(json.dumps(dataclasses.asdict(result)) + "\n")
            if sys.stderr.isatty() and done % 20 == 0:
                print(f"\r{done} of {len(tasks)} rollouts", end="", file=sys.stderr)
    out = summary(scenarios, results)
    if asked.json != "-":
        took = time.monotonic() - begin
        print(
            f"{len(tasks)} rollouts in {took:.0f} s, seeds {' '.join(map(str, asked.seeds))}, ticks of {asked.tick:g} s"
        )
        show(out)
    if asked.json:
        text = json.dumps(out, indent=2)
        if asked.json == "-":
            print(text)
        else:
            Path(asked.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
