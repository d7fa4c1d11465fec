"""Bounds that people read: how much worse at least, and how bad at most.

Sources: Clopper & Pearson (1934) for no errors at all; Robbins (1970) for the mixture bound; both turned around a test that
stays valid however often it is looked at.
"""

from collections.abc import Callable
from math import exp, inf, log, log1p, sqrt
from typing import Final

from canary_rollout.analysis.sequential.cells import Totals
from canary_rollout.analysis.sequential.eprocess import RATIOS

_BETTER: Final = (0.93, 0.85, 0.75, 0.6, 0.45, 0.3, 0.15, 0.04)
"""Shares of the tested error rate that the mixture of the upper bound believes in."""

_LOG_BETTER: Final = tuple(log(better) for better in _BETTER)
_STEPS: Final = 60
_CERTAIN: Final = 1.0 - 1e-9


def log_mean_exp(logs: list[float]) -> float:
    """Return the logarithm of the mean of exponentials."""
    most: float = max(logs)
    total: float = sum([exp(x - most) for x in logs])
    return most + log(total / len(logs))


def log_mixture(counts: Totals, tolerance: float, phi: float) -> float:
    """Return ln of the conditional likelihood-ratio mixture against "at most ``tolerance`` times as bad"."""
    if counts.n2 <= 0 or counts.n1 <= 0:
        return 0.0
    odds = tolerance * counts.n1 / counts.n2
    base, e1, both = log1p(odds), counts.e1 / phi, (counts.e1 + counts.e2) / phi
    return log_mean_exp([e1 * log(ratio) - both * (log1p(ratio * odds) - base) for ratio in RATIOS])


def worse_by(counts: Totals, tolerance: float, phi: float, needed: float) -> float:
    """Return the largest ratio of error shares that the counts exclude: "at least so many times worse".

    Args:
        counts: both versions' counts.
        tolerance: excluded already, by the test that failed; the answer is never below it.
        phi: dispersion.
        needed: evidence needed to exclude a ratio, as a logarithm.
    """
    return _last(lambda ratio: log_mixture(counts, ratio, phi) >= needed, tolerance, 1e6)


def upper_error_rate(requests: float, errors: float, alpha: float) -> float:
    """Return the largest error share that is not excluded yet, 0..1; holds at every moment with probability 1 - alpha.

    Without errors that is ``1 - alpha ** (1 / requests)``, about 4.6 / requests at 1 %.

    Args:
        requests: the canary's requests.
        errors: those that failed.
        alpha: probability of being wrong, ever.
    """
    if requests <= 0:
        return 1.0
    if errors <= 0:
        return float(1.0 - alpha ** (1.0 / requests))
    rate = min(errors / requests, 1.0)
    if rate >= 1.0:
        return 1.0
    needed = log(1.0 / alpha)

    def evidence(share: float) -> float:
        good, base = requests - errors, log1p(-share)
        return (
            log_mean_exp(
                [
                    errors * known + good * (log1p(-better * share) - base)
                    for better, known in zip(_BETTER, _LOG_BETTER, strict=True)
                ]
            )
            - needed
        )

    guess = rate + sqrt(2.0 * rate * (needed + 1.0) / requests) + (needed + 1.0) / requests
    low = (rate, -needed)
    for share in (0.8 * guess, 1.3 * guess, _CERTAIN):
        if share <= rate or share > _CERTAIN:
            continue
        high = (share, evidence(share))
        if high[1] >= 0:
            return _root(evidence, low, high)
        low = high
    return 1.0


def _root(function: Callable[[float], float], low: tuple[float, float], high: tuple[float, float]) -> float:
    """Return where a rising function is zero, to one in a thousand and not below (the Illinois rule)."""
    (left, at_left), (right, at_right) = low, high
    for _ in range(_STEPS):
        if right - left <= 1e-3 * right:
            break
        middle = (left * at_right - right * at_left) / (at_right - at_left)
        middle = min(max(middle, left + 0.01 * (right - left)), right - 0.01 * (right - left))
        value = function(middle)
        if value < 0:
            left, at_left, at_right = middle, value, at_right / 2
        else:
            right, at_right, at_left = middle, value, at_left / 2
    return right


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the largest number in a range up to which a condition holds (``low`` if it never does)."""
    if not holds(low):
        return low
    left, right = log(low), log(high)
    for _ in range(_STEPS):
        middle = (left + right) / 2
        left, right = (middle, right) if holds(exp(middle)) else (left, middle)
    return exp(left) if left > -inf else low
