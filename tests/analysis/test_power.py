"""What a stage can find out is foretold by a formula; here the comparison itself is asked whether that is true."""

import math
import statistics

import numpy as np
import pytest

from canary_rollout.analysis.power import (
    NORMAL_90,
    Setting,
    detection_time,
    excluded_rate,
    information_bound,
    smallest_regression,
)
from canary_rollout.analysis.sequential import Comparison, PodCounts, Policy, Tick
from canary_rollout.analysis.verdict import Outcome

TICK = 15.0
HISTORY = 7200.0


def tick_of(dice, at, setting, canary_rate, seconds=TICK, pods=10):
    """One tick of Poisson traffic with independent errors."""
    requests = int(dice.poisson(setting.canary_requests * seconds))
    canary = PodCounts("canary", requests, int(dice.binomial(requests, canary_rate)))
    stable = []
    for pod in range(pods):
        requests = int(dice.poisson(setting.requests * (1 - setting.share) * seconds / pods))
        stable.append(PodCounts(f"stable-{pod}", requests, int(dice.binomial(requests, setting.stable_rate))))
    return Tick(at, round(setting.share * 10_000), (canary,), tuple(stable))


def found_after(dice, setting, canary_rate, within):
    """Seconds until the error test fails, infinite when it does not."""
    comparison = Comparison(Policy(interval=TICK))
    at = 0.0
    while at < HISTORY:
        at += 60.0
        comparison.history(tick_of(dice, at, setting, 0.0, 60.0))
    while at < HISTORY + within:
        at += TICK
        verdicts = comparison.step(tick_of(dice, at, setting, canary_rate))
        if any(verdict.rule == "error-comparison" and verdict.outcome is Outcome.FAIL for verdict in verdicts):
            return at - HISTORY
    return math.inf


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("requests", "share", "rate"),
    [(50, 0.005, 0.5), (50, 0.05, 0.05), (50, 0.05, 0.01), (50, 0.25, 0.01), (2000, 0.005, 0.01)],
)
def test_the_comparison_takes_as_long_as_foretold(requests, share, rate):
    dice = np.random.default_rng(20261121)
    setting = Setting(requests, share, 0.001, interval=TICK)
    median, most = detection_time(setting, rate), detection_time(setting, rate, NORMAL_90)
    times = [found_after(dice, setting, rate, 3 * most + 5 * TICK) for _ in range(25)]
    assert 0.6 * median - TICK <= statistics.median(times) <= 1.5 * median + TICK
    assert sum(time <= most + TICK for time in times) >= 19


@pytest.mark.thorough
def test_the_smallest_regression_of_a_stage_is_found_in_it_and_half_of_it_is_mostly_not():
    dice = np.random.default_rng(4)
    setting, hold = Setting(50, 0.05, 0.001, interval=TICK), 900.0
    smallest = smallest_regression(setting, hold)
    found = [found_after(dice, setting, smallest, hold) <= hold for _ in range(20)]
    missed = [found_after(dice, setting, smallest / 2, hold) > hold for _ in range(20)]
    assert sum(found) >= 15
    assert sum(missed) >= 12


@pytest.mark.parametrize(
    ("rate", "requests"), [(0.002, 11_906), (0.005, 1136), (0.01, 327), (0.02, 112), (0.05, 31), (0.5, 2), (1.0, 1)]
)
def test_the_information_bound_is_that_of_the_method(rate, requests):
    assert round(information_bound(rate, 0.001)) == requests


@pytest.mark.parametrize(("requests", "rate"), [(100, 0.045), (458, 0.01), (919, 0.005), (4603, 0.001)])
def test_clean_requests_exclude_what_the_method_says(requests, rate):
    assert excluded_rate(requests) == pytest.approx(rate, rel=0.01)


def test_more_errors_than_stables_own_are_to_be_expected_in_what_is_excluded():
    assert excluded_rate(1000, usual=0.001) > excluded_rate(1000)
    assert 0.001 < excluded_rate(10_000_000, usual=0.001) < 0.0011
    assert excluded_rate(0) == 1.0


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.00125, 0.0015])
def test_what_is_within_the_tolerance_or_below_the_floor_is_never_found(rate):
    assert detection_time(Setting(50, 0.05, 0.001), rate) == math.inf


def test_without_traffic_or_without_stable_nothing_is_found():
    assert smallest_regression(Setting(0.0, 0.05, 0.001), 3600.0) is None
    assert smallest_regression(Setting(50.0, 1.0, 0.001), 3600.0) is None


def test_it_takes_longer_for_the_smaller_the_rarer_the_more_bursty_and_the_surer():
    base = Setting(50, 0.05, 0.001)
    time = detection_time(base, 0.02)
    assert detection_time(base, 0.01) > time
    assert detection_time(Setting(50, 0.005, 0.001), 0.02) > time
    assert detection_time(Setting(50, 0.05, 0.001, burst=20.0), 0.02) > 5 * time
    assert detection_time(base, 0.02, NORMAL_90) > time
    assert detection_time(Setting(50, 0.05, 0.001, alpha=0.0001), 0.02) > time


def test_a_stable_without_errors_still_has_a_smallest_regression():
    assert 0.001 <= smallest_regression(Setting(50, 0.05, 0.0), 3600.0) < 0.01
    assert 0.001 < smallest_regression(Setting(50, 0.005, 0.0), 3600.0) < 0.02
