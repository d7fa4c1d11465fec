"""The figures of docs/analysis.md, in order of magnitude: few runs, fixed seeds. `make bench-analysis` measures them."""

from statistics import median

import numpy as np
import pytest
from arms import Arms

from canary_rollout.analysis.sequential import Comparison, Policy, Test
from canary_rollout.analysis.verdict import Outcome

pytestmark = [pytest.mark.thorough]

RUNS = 7


def found(service: Arms, seed: int, ticks: int = 240, past: float = 3600.0) -> tuple[float, float]:
    """Seconds until the error test failed (infinite: it did not) and the canary's errors served until then."""
    rng = np.random.default_rng(seed)
    comparison, served = Comparison(Policy(latency=None)), 0.0
    for tick in service.past(rng, past):
        comparison.history(tick)
    for tick in service.ticks(rng, ticks):
        served += sum(pod.errors for pod in tick.canary)
        for verdict in comparison.step(tick):
            if verdict.rule == Test.ERRORS and verdict.outcome is Outcome.FAIL:
                return tick.at, served
    return float("inf"), served


def times(service: Arms, runs: int = RUNS) -> list[float]:
    return [found(service, seed)[0] for seed in range(runs)]


@pytest.mark.parametrize(
    ("rps", "share", "rate", "at_most"),
    [
        (50, 0.005, 1.0, 60),
        (50, 0.005, 0.5, 60),
        (50, 0.05, 0.5, 60),
        (2000, 0.25, 1.0, 30),
        (50, 0.05, 0.05, 90),
        (50, 0.25, 0.05, 90),
        (2000, 0.005, 0.01, 130),
        (2000, 0.25, 0.01, 60),
    ],
)
def test_a_regression_is_found_within(rps, share, rate, at_most):
    service = Arms(rps=rps, share=share, canary_rate=rate, canary_pods=3 if share == 0.25 else 1)
    assert median(times(service)) <= at_most


def test_low_traffic_cannot_see_a_small_regression_and_the_page_says_so():
    service = Arms(rps=50, share=0.005, canary_rate=0.002)
    assert sum(seconds < 3600 for seconds in times(service, 5)) <= 1


@pytest.mark.parametrize(
    "service",
    [
        Arms(rps=50, share=0.05),
        Arms(rps=2000, share=0.25, canary_pods=3),
        Arms(rps=2000, share=0.05, stable_rate=0.02, canary_rate=0.02),
        Arms(rps=2000, share=0.25, canary_rate=0.0012, canary_pods=3),
        Arms(rps=50, share=0.25, burst=True, canary_pods=3),
        Arms(rps=2000, share=0.05, burst=True),
    ],
    ids=["low", "high", "both 2 %", "harmless 1.2x", "bursts, low", "bursts, high"],
)
def test_a_healthy_canary_is_left_alone(service):
    assert [found(service, seed)[0] for seed in range(100, 104)] == [float("inf")] * 4


def test_few_requests_are_harmed_when_all_of_them_fail():
    service = Arms(rps=2000, share=0.25, canary_rate=1.0, canary_pods=3)
    served = [found(service, seed)[1] for seed in range(3)]
    assert 7_000 < median(served) < 16_000  # the 60 s/5-failures rule serves 180,000


def test_without_history_more_errors_are_needed_until_it_is_known_that_they_do_not_come_in_bursts():
    service = Arms(rps=50, share=0.05, canary_rate=0.05)
    known = median(times(service, 5))
    unknown = median(found(service, seed, past=0.0)[0] for seed in range(5))
    assert known < unknown < 1200
