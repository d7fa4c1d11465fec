"""The latency test: at each bucket edge both versions have, is the canary's share of slower requests too large?

The evidence of the edges is averaged, which is valid however they depend on each other, so nothing is divided by their
number (analysis method, section 2.2). Quantiles are never computed: between bucket edges they are guesses.
"""

from collections.abc import Iterable
from math import exp, log
from typing import Any, Final

from canary_rollout.analysis.sequential.arrivals import Freshness
from canary_rollout.analysis.sequential.cells import Totals
from canary_rollout.analysis.sequential.counts import PodCounts, Tick
from canary_rollout.analysis.sequential.dispersion import Dispersion
from canary_rollout.analysis.sequential.eprocess import RatioProcess
from canary_rollout.analysis.sequential.numbers import short, shorts

MOST_EDGES: Final = 5
SMALLEST_TAIL: Final = 0.001
LARGEST_TAIL: Final = 0.5
_RATIOS: Final = (1.5, 2.0, 3.0, 4.5, 8.0, 16.0, 50.0, 300.0)
_STARTS: Final = 4
_REACH: Final = 6
_ENOUGH: Final = 500.0
_MOST_CANDIDATES: Final = 24
_LARGEST: Final = 300.0


class LatencyTest:
    """Evidence over a few bucket edges; silent until both versions have buckets in common.

    Args:
        tolerance: the canary's share of slow requests may be this many times stable's.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self.processes: dict[float, RatioProcess] = {}
        """By bucket edge (seconds); empty until the edges are chosen."""
        self._candidates: dict[float, list[float]] = {}
        self._spread: dict[float, Dispersion] = {}
        self.stage_requests = 0.0
        """Timed canary requests since the weight changed."""

    def watch(self, tick: Tick) -> bool:
        """Learn from stable: how large the tails are and how clustered. Returns whether it was a calm tick."""
        calm = True
        if not self.processes:
            for pod in tick.stable:
                for edge, slow in pod.slow.items():
                    counts = self._candidates.get(edge)
                    if counts is None and len(self._candidates) < _MOST_CANDIDATES:
                        counts = self._candidates[edge] = [0.0, 0.0]
                        self._spread[edge] = Dispersion()
                    if counts is not None:
                        counts[0] += _timed(pod)
                        counts[1] += slow
        for edge, spread in self._spread.items():
            timed = _counted(tick.stable, edge)
            calm = spread.add(timed) and calm
        return calm

    def close(self) -> None:
        """End a block."""
        for spread in self._spread.values():
            spread.close()

    def choose(self, tick: Tick, index: int) -> None:
        """Choose the edges once, as soon as the canary's buckets are known and stable's tails are.

        Args:
            tick: this tick.
            index: number of ticks before it.
        """
        edges = [set(pod.slow) for pod in tick.canary if pod.slow]
        if self.processes or not edges:
            return
        common = set.intersection(*edges)
        fit = sorted(
            edge
            for edge, (requests, slow) in self._candidates.items()
            if edge in common and requests >= _ENOUGH and SMALLEST_TAIL <= slow / requests <= LARGEST_TAIL
        )
        if not fit:
            return
        if len(fit) > MOST_EDGES:
            fit = [fit[round(place * (len(fit) - 1) / (MOST_EDGES - 1))] for place in range(MOST_EDGES)]
        self.processes = {edge: RatioProcess(self._tolerance, _RATIOS, _STARTS, (), _REACH, index) for edge in fit}
        self._spread = {edge: self._spread[edge] for edge in fit}
        self._candidates = {}

    def take(self, tick: Tick, freshness: Freshness) -> None:
        """Take in one tick."""
        self.stage_requests += sum(_timed(pod) for pod in tick.canary if pod.slow)
        for edge, process in self.processes.items():
            flow = freshness.flow(_counted(tick.canary, edge), _counted(tick.stable, edge), tick.absent)
            process.take(flow, self._spread[edge].phi, freshness.released)

    def restart(self, missed: int = 1) -> None:
        """Begin anew from here, beside what was begun before; ``missed`` restarts were due by now."""
        for process in self.processes.values():
            process.restart(process.latest + missed)

    @property
    def log_e(self) -> float:
        """Evidence of all edges together, as a logarithm."""
        if not self.processes:
            return 0.0
        return log(sum(exp(min(process.log_e, _LARGEST)) for process in self.processes.values()) / len(self.processes))

    def worst(self) -> tuple[float, Totals, float, float]:
        """Return the edge that speaks loudest, its counts, its dispersion and the weight they carry in the evidence."""
        edge, process = max(self.processes.items(), key=lambda item: item[1].log_e)
        start = process.strongest()
        return edge, process.since(start), self._spread[edge].phi, start.weight / len(self.processes)

    def state(self) -> dict[str, Any]:
        """Return the state between two blocks as JSON."""
        self._candidates = {edge: shorts(counts) for edge, counts in self._candidates.items()}
        self.stage_requests = short(self.stage_requests)
        return {
            "n": self.stage_requests,
            "p": [[edge, process.state()] for edge, process in self.processes.items()],
            "c": [[edge, *counts] for edge, counts in self._candidates.items()],
            "d": [[edge, spread.state()] for edge, spread in self._spread.items()],
        }

    @classmethod
    def restore(cls, raw: Any, tolerance: float) -> "LatencyTest":
        """Return what :meth:`state` wrote."""
        made = cls(tolerance)
        made.stage_requests = float(raw["n"])
        made.processes = {
            float(edge): RatioProcess.restore(state, RatioProcess(tolerance, _RATIOS, _STARTS, (), _REACH))
            for edge, state in raw["p"]
        }
        made._candidates = {float(edge): [float(n), float(slow)] for edge, n, slow in raw["c"]}
        made._spread = {float(edge): Dispersion.restore(state) for edge, state in raw["d"]}
        return made


def _timed(pod: PodCounts) -> float:
    return pod.requests if pod.timed is None else pod.timed


def _counted(pods: Iterable[PodCounts], edge: float) -> list[tuple[PodCounts, float, float]]:
    return [(pod, pod.requests if pod.timed is None else pod.timed, pod.slow[edge]) for pod in pods if edge in pod.slow]
