"""How long ``kubectl-canary --help`` takes, as a user's shell sees it: start of the process to its end.

``python bench/cli_start.py [--runs 40]``. Wall time is noisy on a busy machine, so the median and the fastest tenth are
printed; the CPU time is what the program itself costs. A bare ``python -c pass`` is measured in turn for comparison.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

BUDGET = 0.2
PROGRAM = Path(sys.executable).with_name("kubectl-canary")


def measure(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""})
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def summary(figures: list[tuple[float, float]]) -> dict[str, float]:
    """Milliseconds: median and lowest decile of wall time, median of CPU time, slowest run."""
    wall, cpu = ([figure[place] * 1000 for figure in figures] for place in (0, 1))
    return {
        "wall_p10_ms": round(statistics.quantiles(wall, n=10)[0], 1),
        "wall_median_ms": round(statistics.median(wall), 1),
        "wall_max_ms": round(max(wall), 1),
        "cpu_median_ms": round(statistics.median(cpu), 1),
    }


def main() -> int:
    """Measure in turn, print a table and a line of JSON; 1 when the median is over budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    runs = max(2, parser.parse_args().runs)
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "kubectl-canary --help": [str(PROGRAM), "--help"],
        "kubectl-canary start --help": [str(PROGRAM), "start", "--help"],
    }
    for command in commands.values():
        measure(command)  # writes the byte code, warms the page cache
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            figures[name].append(measure(command))
    table = {name: summary(taken) for name, taken in figures.items()}
    print(
        f"{'command':30}{'wall p10':>10}{'median':>10}{'max':>10}{'cpu':>10}   ms, {runs} runs, load {os.getloadavg()[0]:.1f}"
    )
    for name, row in table.items():
        print(f"{name:30}" + "".join(f"{value:>10}" for value in row.values()))
    print(json.dumps(table))
    return int(table["kubectl-canary --help"]["wall_median_ms"] > BUDGET * 1000)


if __name__ == "__main__":
    sys.exit(main())
