"""How clustered bad requests are on stable: the factor by which evidence is divided.

Errors that come in bursts say less than as many independent ones. The dispersion of their split over stable's pods
measures the burst size; shocks that hit all pods alike cancel out. The canary's pods are left out, so that a bad canary
cannot raise its own bar. Formula: analysis method, section 2.1 (a quasi-likelihood dispersion, McCullagh & Nelder 1989).
"""

from collections.abc import Iterable, Sequence
from math import exp, log
from typing import Any, Final

from canary_rollout.analysis.sequential.counts import PodCounts
from canary_rollout.analysis.sequential.numbers import short

PRIOR: Final = 10.0
"""Dispersion believed before anything is known."""

PRIOR_ERRORS: Final = 10.0
"""Errors that this belief weighs as much as."""

MARGIN: Final = 1.2
"""The estimate is the usual burst's size and the guarantee asks for the largest one's (bursts of 10 to 50 give 34), so large
estimates are raised by a fifth less one, and those up to 5 are left as they are."""

MOST_OF_ONE: Final = 200.0
"""Largest dispersion taken from a single pod: over time an outage looks like one burst of thousands, and behind a bar that
high nothing would ever be found. Outages that both versions share are no evidence anyway."""

_MOST_ERRORS: Final = 200_000.0
_CALM: Final = 0.9
_LARGEST: Final = 3.0
LASTING: Final = 0.25
"""Correlation of a pod's errors from tick to tick above which bursts last. Bursts within a second have 0.0, ten to fifty
requests of a pod in a row 0.05 to 0.2, bursts of 5 to 60 seconds 0.4."""


class Dispersion:
    """Running estimate over blocks of ticks. All counts are of stable's pods.

    A block weighs as much as its errors, but no more than its burst or than usual (the geometric mean): an outage that all
    pods share has thousands, says nothing about bursts, and would drown what the other blocks say.
    """

    def __init__(self) -> None:
        self._num = self._den = 0.0
        self._squares = self._errors = self._requests = self._blocks = 0.0
        self._logs = self._filled = 0.0
        self._usual = 0.0
        self._ticks = 0.0
        self._pairs = self._own = 0.0
        self._last: dict[str, float] = {}
        self._share = 0.0
        self._open: dict[str, list[float]] = {}
        self._index = 0
        self.phi = PRIOR
        """The estimate: 1 for independent errors, about the burst size for bursts."""

    def add(self, pods: Iterable[tuple[PodCounts, float, float]]) -> bool:
        """Take in one tick: pod, requests, bad requests. Returns whether it was a calm one, after which a block may end.

        Scrapes of the pods are up to an interval apart, and some are lost, so a block that ends amid a shared outage, or
        without the scrape of a pod, would see it on some pods only.
        """
        self._index += 1
        total = 0.0
        for pod, requests, errors in pods:
            total += errors
            counts = self._open.get(pod.pod)
            if counts is None:
                self._open[pod.pod] = [requests, errors, self._index + pod.span]
            else:
                counts[0] += requests
                counts[1] += errors
                counts[2] = self._index + pod.span
        calm = total <= 3.0 + 2.0 * self._usual / max(self._ticks, 1e-9)
        calm = calm and all(counts[2] > self._index for counts in self._open.values())
        self._usual = _CALM * self._usual + total
        self._ticks = _CALM * self._ticks + 1.0
        return calm

    @property
    def lasting(self) -> bool:
        """Whether bursts last for more than a tick: a pod that had more than its part has so in the next one, too."""
        return self._pairs > LASTING * self._own

    def follow(self, pods: Sequence[PodCounts]) -> None:
        """Note how far each pod is from its part of the tick's errors, and what that was a tick ago; before :meth:`add`.

        An outage that all pods share shows on some of them a tick later: such ticks are left out, and so are distances of
        more than a few bursts. Pods without errors, now and a tick ago, say nothing.
        """
        last, before = self._last, self._share
        self._last, self._share = {}, 0.0
        errors, requests = [pod.errors for pod in pods], sum([pod.requests for pod in pods])
        if requests <= 0 or len(pods) < 2 or sum(errors) - max(errors) > self._many():
            return
        self._share = share = sum(errors) / requests
        for pod in pods:
            away = pod.errors - share * pod.requests
            if (pod.errors or pod.pod in last) and pod.span == 1 and abs(away) <= _LARGEST * self.phi:
                self._own += away * away
                self._pairs += away * last.get(pod.pod, -before * pod.requests)
                if pod.errors:
                    self._last[pod.pod] = away

    def _many(self) -> float:
        """Errors of all pods but one that are no coincidence of bursts any more."""
        return 3.0 + 3.0 * self._usual / max(self._ticks, 1e-9) + 2.0 * self.phi

    def close(self) -> None:
        """End the block."""
        self._last, self._share = {}, 0.0
        counts = [pair for pair in self._open.values() if pair[0] > 0]
        self._open = {}
        requests = sum(pair[0] for pair in counts)
        errors = sum(pair[1] for pair in counts)
        if requests <= 0:
            return
        self._blocks += 1
        self._requests += requests
        self._errors += errors
        self._squares += errors * errors / requests
        if len(counts) > 1 and errors > 0:
            rate = errors / requests
            squares = sum(bad * bad / count for count, bad, _ in counts) / rate - errors
            burst = max(squares, 0.0) / (len(counts) - 1)
            self._logs += log(errors)
            self._filled += 1
            weight = min(
                errors, max(burst, exp(self._logs / self._filled))
            )  # an outage weighs no more than a usual block
            self._num += weight * burst
            self._den += weight
        if self._den > _MOST_ERRORS:
            self._num, self._den = self._num / 2, self._den / 2
            self._pairs, self._own = self._pairs / 2, self._own / 2
        self.phi = self._estimate()

    def _estimate(self) -> float:
        num, den = self._num, self._den
        if den == 0 and self._errors > 0 and self._blocks > 1:  # one pod only: how errors vary over time, which is more
            share = self._errors / self._requests
            den = self._errors
            over_time = max(self._squares / share - self._errors, 0.0) / (self._blocks - 1)
            num = den * min(over_time, MOST_OF_ONE)
        estimate = (num + PRIOR * PRIOR_ERRORS) / (den + PRIOR_ERRORS)
        return round(max(1.0, estimate, MARGIN * estimate - 1.0), 3)

    def state(self) -> list[float]:
        """Return the state between two blocks as numbers."""
        numbers = (self._num, self._den, self._squares, self._errors, self._requests, self._blocks)
        more = (self._usual, self._ticks, self._logs, self._filled, self._pairs, self._own)
        rounded = [short(float(f"{number:.7g}"), 4) for number in (*numbers, *more)]
        self._num, self._den, self._squares, self._errors, self._requests, self._blocks = rounded[:6]
        self._usual, self._ticks, self._logs, self._filled, self._pairs, self._own = rounded[6:]
        return rounded

    @classmethod
    def restore(cls, raw: Any) -> "Dispersion":
        """Return the estimate that :meth:`state` wrote."""
        made = cls()
        numbers = [float(number) for number in raw]
        made._num, made._den, made._squares, made._errors, made._requests, made._blocks = numbers[:6]
        made._usual, made._ticks, made._logs, made._filled = numbers[6:10]
        made._pairs, made._own = numbers[10:] or (0.0, 0.0)
        made.phi = made._estimate()
        return made
