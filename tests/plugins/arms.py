"""Two versions under load, as ticks: what a scrape at every pod on every tick would have counted."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from canary_rollout.analysis.sequential import PodCounts, Tick


@dataclass(frozen=True)
class Arms:
    """A service and a stage of a rollout.

    Attributes:
        rps: requests a second of both versions together.
        share: of them the canary gets, 0..1.
        stable_rate: stable's error share.
        canary_rate: the canary's.
        tick: seconds.
        stable_pods: how many.
        canary_pods: how many.
        burst: errors come in bursts of 10 to 50 on one pod.
    """

    rps: float = 50.0
    share: float = 0.05
    stable_rate: float = 0.001
    canary_rate: float = 0.001
    tick: float = 15.0
    stable_pods: int = 10
    canary_pods: int = 1
    burst: bool = False

    def ticks(self, rng: np.random.Generator, count: int, first: int = 1) -> Iterator[Tick]:
        """The ticks ``first``, ``first + 1``, … of them ``count``."""
        weight = round(self.share * 10_000)
        for number in range(first, first + count):
            at = number * self.tick
            canary = self._pods(rng, "c", self.canary_pods, self.rps * self.share, self.canary_rate)
            stable = self._pods(rng, "s", self.stable_pods, self.rps * (1 - self.share), self.stable_rate)
            yield Tick(at, weight, canary, stable)

    def past(self, rng: np.random.Generator, seconds: float) -> Iterator[Tick]:
        """Stable alone, until time 0."""
        count = int(seconds / self.tick)
        for number in range(-count, 1):
            yield Tick(number * self.tick, 0, (), self._pods(rng, "s", self.stable_pods, self.rps, self.stable_rate))

    def _pods(self, rng: np.random.Generator, name: str, pods: int, rps: float, rate: float) -> tuple[PodCounts, ...]:
        requests = rng.poisson(rps * self.tick / pods, pods)
        if self.burst:
            bursts = rng.poisson(rate * requests / 30)
            errors = np.array([rng.integers(10, 51, count).sum() for count in bursts])
            requests = np.maximum(requests, errors)
        else:
            errors = rng.binomial(requests, rate)
        return tuple(
            PodCounts(f"{name}{pod}", float(n), float(e))
            for pod, (n, e) in enumerate(zip(requests, errors, strict=True))
        )
