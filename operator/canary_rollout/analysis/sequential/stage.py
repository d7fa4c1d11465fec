"""What is counted per stage: for sentences, for the promotion gate and for what is missing; no evidence."""

from typing import Any, Final

from canary_rollout.analysis.sequential.cells import Totals
from canary_rollout.analysis.sequential.counts import Tick
from canary_rollout.analysis.sequential.numbers import shorts
from canary_rollout.model.units import FULL

_NEVER: Final = -1e12
HALF: Final = 150.0
"""Seconds; "the last minutes" are one to two of these."""


class StageCounts:
    """Running counts of the present stage (the time since the weight changed), of the last minutes and of all."""

    def __init__(self) -> None:
        self.weight: int | None = None
        self.requests = 0.0
        self.errors = 0.0
        self.began = _NEVER
        """Time of the stage's first tick."""
        self._stage = [0.0] * 4
        self._halves = [[0.0] * 4, [0.0] * 4]
        self._half_began = _NEVER
        self.expected = 0.0
        """Requests the canary should have had since its last one, by stable's traffic and the weight."""
        self.canary_at = _NEVER
        """When the canary last had a request (or the stage began), POSIX seconds."""
        self.complete_at = _NEVER
        """Time of the latest tick whose source answered."""

    def take(self, tick: Tick) -> bool:
        """Take in a tick; returns whether a stage begins with it."""
        begins = tick.weight != self.weight
        if begins:
            self.weight, self._stage, self.expected, self.canary_at = tick.weight, [0.0] * 4, 0.0, tick.at
            self.began = tick.at
        if tick.complete or self.complete_at == _NEVER:
            self.complete_at = tick.at
        counted = totals_of(tick)
        n1, e1, n2, e2 = counted.n1, counted.e1, counted.n2, counted.e2
        self.requests += n1
        self.errors += e1
        if tick.at - self._half_began >= HALF:
            self._halves = [self._halves[1], [0.0] * 4]
            self._half_began = tick.at
        for counts in (self._stage, self._halves[1]):
            for place, count in enumerate((n1, e1, n2, e2)):
                counts[place] += count
        if n1 > 0:
            self.expected, self.canary_at = 0.0, tick.at
        elif not begins and 0 < tick.weight < FULL:
            self.expected += n2 * tick.weight / (FULL - tick.weight)
        return begins

    @property
    def stage(self) -> Totals:
        """Counts since the weight changed."""
        return Totals(*self._stage)

    @property
    def recent(self) -> Totals:
        """Counts of the last 2.5 to 5 minutes."""
        return Totals(*(old + new for old, new in zip(*self._halves, strict=True)))

    def state(self) -> list[Any]:
        """Return the state as JSON, rounded; this object goes on with the rounded numbers."""
        self._stage, *self._halves = (shorts(counts) for counts in (self._stage, *self._halves))
        self.requests, self.errors, self.expected = shorts((self.requests, self.errors, self.expected))
        times = [self.began, self._half_began, self.canary_at, self.complete_at]
        halves = [list(half) for half in self._halves]
        return [self.weight, self.requests, self.errors, list(self._stage), halves, self.expected, times]

    @classmethod
    def restore(cls, raw: Any) -> "StageCounts":
        """Return what :meth:`state` wrote."""
        made = cls()
        weight, made.requests, made.errors, stage, halves, made.expected, times = raw
        made.weight = None if weight is None else int(weight)
        made._stage = [float(x) for x in stage]
        made._halves = [[float(x) for x in half] for half in halves]
        made.began, made._half_began, made.canary_at, made.complete_at = (float(x) for x in times)
        return made


def totals_of(tick: Tick) -> Totals:
    """Return a tick's counts over all pods."""
    return Totals(
        sum(pod.requests for pod in tick.canary),
        sum(pod.errors for pod in tick.canary),
        sum(pod.requests for pod in tick.stable),
        sum(pod.errors for pod in tick.stable),
    )
