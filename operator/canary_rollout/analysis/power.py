"""What a stage can find out before it begins: how large a regression shows, how soon, and what a clean stage excludes.

Sources: the information bound ``ln(1/alpha) / KL`` and the conditional likelihood ratio of ``docs/analysis.md``; Ville's
inequality for the threshold; a normal approximation of the evidence's random walk for the 90 % figure.
"""

from dataclasses import dataclass
from math import exp, inf, log, sqrt
from typing import Final

NORMAL_90: Final = 1.2816
"""90 % quantile of the normal distribution."""

MIXTURE_COST: Final = log(14.0) + log(4.0)
"""What the error test pays for not knowing how bad the canary is nor since when: the weight of one ratio of fourteen, of the
likelihood ratio against the share bets, and of the test from the start against the restarted ones."""

_STEPS: Final = 60


@dataclass(frozen=True, slots=True)
class Setting:
    """What a stage's comparison works with.

    Attributes:
        requests: both versions together, per second.
        share: the canary's share of them, 0..1.
        stable_rate: share of stable's requests that fail, 0..1.
        alpha: false-alarm probability of the error test for the whole rollout.
        tolerance: the canary may be this many times as bad.
        floor: least difference of the error shares that counts.
        burst: requests that fail together (dispersion of stable's errors over its pods); 1: independent.
        interval: seconds between two evaluations.
        min_errors: canary errors before the test may stop the rollout.
    """

    requests: float
    share: float
    stable_rate: float
    alpha: float = 0.01
    tolerance: float = 1.25
    floor: float = 0.001
    burst: float = 1.0
    interval: float = 10.0
    min_errors: int = 3

    @property
    def canary_requests(self) -> float:
        """The canary's requests per second."""
        return self.requests * self.share


def detection_time(setting: Setting, canary_rate: float, z: float = 0.0) -> float:
    """Seconds until a canary that fails ``canary_rate`` (0..1) of its requests is found; infinite where it never is.

    Args:
        setting: the stage.
        canary_rate: share of the canary's requests that fail, 0..1.
        z: 0 for the median; :data:`NORMAL_90` for the time within which nine of ten are found.
    """
    p0, q, rho = setting.stable_rate, setting.share, setting.tolerance
    if not 0 < q < 1 or setting.requests <= 0 or canary_rate - p0 < setting.floor or canary_rate <= rho * p0:
        return inf
    on_canary, on_stable = q * canary_rate, (1 - q) * p0
    errors = setting.requests * (on_canary + on_stable)
    q0 = rho * q / (rho * q + 1 - q)
    q1 = on_canary / (on_canary + on_stable)
    gain, loss = _evidence(q0, q1)
    drift = errors * (q1 * gain + (1 - q1) * loss) / setting.burst
    # A compound Poisson process: the variance per second is the rate times the mean square of a step.
    spread = sqrt(errors * (q1 * gain * gain + (1 - q1) * loss * loss) / setting.burst)
    threshold = log(1 / setting.alpha) + MIXTURE_COST
    by_evidence = _passage(threshold, drift, spread, z)
    by_count = _passage(float(setting.min_errors) * max(1.0, setting.burst / 3), *_counted(setting, canary_rate), z)
    # Half a tick until the evaluation, and one more tick that confirms it.
    return max(by_evidence, by_count) + 1.5 * setting.interval


def smallest_regression(setting: Setting, within: float, z: float = NORMAL_90) -> float | None:
    """The smallest share of failed requests that is found ``within`` so many seconds; ``None`` where not even 1 is.

    With the default ``z`` nine of ten such canaries are found in that time.
    """
    if detection_time(setting, 1.0, z) > within:
        return None
    low, high = max(setting.tolerance * setting.stable_rate, setting.stable_rate + setting.floor), 1.0
    if detection_time(setting, low * 1.000_001, z) <= within:
        return low
    for _ in range(_STEPS):
        middle = sqrt(low * high)
        if detection_time(setting, middle, z) <= within:
            high = middle
        else:
            low = middle
    return high


def excluded_rate(requests: float, risk: float = 0.01, usual: float = 0.0) -> float:
    """The largest share of failed requests that so many canary requests do not exclude at a risk of error of ``risk``.

    With ``usual`` = 0 none of them fails and it is ``1 - risk^(1/n)``; else as many fail as usual, and it is the rate above
    it at which ``n KL(usual, rate) = ln(1/risk)``.
    """
    if requests < 1:
        return 1.0
    if usual <= 0:
        return 1.0 - exp(log(risk) / requests)
    low, high = usual, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        divergence = _entropy(usual, middle) + _entropy(1 - usual, 1 - middle)
        low, high = (low, middle) if requests * divergence >= log(1 / risk) else (middle, high)
    return high


def information_bound(canary_rate: float, stable_rate: float, alpha: float = 0.01) -> float:
    """Canary requests that any test with false-alarm probability ``alpha`` needs on average: ``ln(1/alpha) / KL``.

    Stable's rate is taken as known exactly; both rates are shares 0..1.
    """
    divergence = _entropy(canary_rate, stable_rate) + _entropy(1 - canary_rate, 1 - stable_rate)
    return log(1 / alpha) / divergence if divergence > 0 else inf


def _evidence(q0: float, q1: float) -> tuple[float, float]:
    """Logarithm of the likelihood ratio that one error on the canary, and one on stable, adds."""
    return log(q1 / q0), log((1 - q1) / (1 - q0)) if q1 < 1 else 0.0


def _counted(setting: Setting, canary_rate: float) -> tuple[float, float]:
    rate = setting.canary_requests * canary_rate
    return rate, sqrt(rate)


def _passage(level: float, drift: float, spread: float, z: float) -> float:
    """When a walk with this drift and spread per (square root of a) second has passed ``level``: with ``z`` = 0 its mean."""
    if drift <= 0:
        return inf
    root = (z * spread + sqrt(z * z * spread * spread + 4 * drift * level)) / (2 * drift)
    return root * root


def _entropy(p: float, of: float) -> float:
    if p <= 0:
        return 0.0
    return inf if of <= 0 else p * log(p / of)
