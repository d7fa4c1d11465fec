"""Which of the canary's bad requests may count already: both versions must be equally old.

Pods are scraped up to an interval apart, so an outage that both versions share shows on one of them first. The canary's bad
requests therefore wait until stable's pods were scraped as late as the canary's, which is the next tick at the latest
(the confirming tick of the analysis method, section 2.1). They need not wait where stable's pods that were scraped later
still show nothing.
"""

from collections.abc import Iterable
from typing import Any, Final

from canary_rollout.analysis.sequential.bounds import log_mixture
from canary_rollout.analysis.sequential.cells import Flow, Totals
from canary_rollout.analysis.sequential.counts import PodCounts, Tick
from canary_rollout.analysis.sequential.numbers import short, shorts

ENOUGH: Final = 0.75
"""Share of stable's usual requests that must have been scraped as late as the canary's bad ones."""

LONGEST_WAIT: Final = 4
"""Ticks after which bad requests count in any case."""

MANY: Final = 64
_PUNCTUAL: Final = (1, 0)
_SMOOTHING: Final = 0.2

Counted = tuple[PodCounts, float, float]
"""A pod, its requests and the bad ones among them."""


class Freshness:
    """How far stable's scrapes have caught up with the canary's bad requests."""

    def __init__(self) -> None:
        self._usual = 0.0
        self._covered: list[list[float]] = []
        self.released = 0
        """Index of the latest tick whose bad requests count now."""
        self.early: frozenset[str] = frozenset()
        """The canary's pods whose bad requests of this tick count at once."""

    def take(self, index: int, tick: Tick) -> None:
        """Take in the tick that is the ``index``-th."""
        requests = sum(pod.requests for pod in tick.stable)
        covered = sum(pod.requests / pod.span for pod in tick.stable)
        needed = ENOUGH * (self._usual or requests)
        for entry in self._covered:
            entry[1] += covered
            if entry[1] >= entry[2] or index - entry[0] >= LONGEST_WAIT:
                self.released = max(self.released, int(entry[0]))
        self._covered = [entry for entry in self._covered if entry[0] > self.released]
        self._covered.append([index, 0.0, needed])
        self.early = frozenset(pod.pod for pod in tick.canary if self._covers(tick, pod.scraped_at, needed))
        if requests > 0:
            self._usual = requests if not self._usual else self._usual + _SMOOTHING * (requests - self._usual)

    @staticmethod
    def _covers(tick: Tick, since: float | None, needed: float) -> bool:
        if since is None or needed <= 0:
            return False
        return sum(pod.requests / pod.span for pod in tick.stable if _later(pod, since)) >= needed

    def flow(self, canary: Iterable[Counted], stable: Iterable[Counted], absent: float = 0.0) -> Flow:
        """Return what arrived, by the number of ticks it covers."""
        ours: dict[tuple[int, int], list[float]] = {}
        theirs: dict[tuple[int, int], list[float]] = {}
        back: dict[tuple[int, int], float] = {}
        for pod, requests, bad in canary:
            key = pod.span, pod.behind
            counts = ours.get(key)
            if counts is None:
                counts = ours[key] = [0.0, 0.0, 0.0]
            counts[0] += requests
            counts[1 if key == _PUNCTUAL and pod.pod in self.early else 2] += bad
            if pod.reckoned:
                back[key] = back.get(key, 0.0) + pod.reckoned
        for pod, requests, bad in stable:
            key = pod.span, pod.behind
            counts = theirs.get(key)
            if counts is None:
                counts = theirs[key] = [0.0, 0.0]
            counts[0] += requests
            counts[1] += bad
        return Flow(ours, theirs, absent, back)

    def state(self) -> list[Any]:
        """Return the state as JSON, rounded; this object goes on with the rounded numbers."""
        self._usual = short(self._usual)
        self._covered = [shorts(entry) for entry in self._covered]
        return [self._usual, self.released, [list(entry) for entry in self._covered]]

    @classmethod
    def restore(cls, raw: Any) -> "Freshness":
        """Return what :meth:`state` wrote."""
        made = cls()
        made._usual, made.released = float(raw[0]), int(raw[1])
        made._covered = [[float(x) for x in entry] for entry in raw[2]]
        return made


def merged(pods: tuple[PodCounts, ...]) -> tuple[PodCounts, ...]:
    """Return many pods (buckets of tenants) as few, where nothing but their sums is needed any more."""
    if len(pods) <= MANY or any(pod.scraped_at is not None or pod.slow for pod in pods):
        return pods
    sums: dict[int, list[float]] = {}
    for pod in pods:
        total = sums.setdefault(pod.span, [0.0, 0.0, 0.0])
        total[0] += pod.requests
        total[1] += pod.errors
        total[2] += pod.reckoned
    return tuple(
        PodCounts("all", requests, errors, span=span, reckoned=reckoned)
        for span, (requests, errors, reckoned) in sums.items()
    )


def not_shared(  # noqa: PLR0917 - the facts of one question
    tick: Tick, waiting: frozenset[str], before: Totals, tolerance: float, phi: float, needed: float
) -> float:
    """Return how many of the canary's waiting errors are no outage that stable shares, though it is not all scraped.

    They are not, if the canary's pods that were scraped first are convincingly worse than stable's pods that were scraped
    after them, with all errors that stable showed one tick before laid to these pods' account as well.

    Args:
        tick: this tick.
        waiting: the canary's pods whose errors wait.
        before: stable's counts one tick before (``n2``, ``e2``).
        tolerance: how many times as bad the canary may be.
        phi: dispersion.
        needed: evidence needed, as a logarithm.
    """
    best = 0.0
    candidates = [pod for pod in tick.canary if pod.pod in waiting and pod.errors and pod.scraped_at is not None]
    for latest in candidates:
        cut = latest.scraped_at or 0.0
        ours = [pod for pod in candidates if pod.scraped_at is not None and pod.scraped_at <= cut]
        theirs = [pod for pod in tick.stable if pod.span == 1 and _later(pod, cut)]
        requests, errors = sum(pod.requests for pod in theirs), sum(pod.errors for pod in theirs)
        if requests <= 0:
            continue
        errors += before.e2 * min(requests / before.n2, 1.0) if before.n2 > 0 else 0.0
        bad = sum(pod.errors for pod in ours)
        if bad <= best:
            continue
        if log_mixture(Totals(sum(pod.requests for pod in ours), bad, requests, errors), tolerance, phi) >= needed:
            best = bad
    return best


def _later(pod: PodCounts, since: float) -> bool:
    return pod.scraped_at is not None and pod.scraped_at >= since
