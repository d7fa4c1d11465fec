"""Bounds that people read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary_rollout.analysis.sequential import wording
from canary_rollout.analysis.sequential.bounds import upper_error_rate, worse_by
from canary_rollout.analysis.sequential.cells import Totals


@pytest.mark.parametrize(("requests", "excluded"), [(100, 0.045), (458, 0.01), (919, 0.005), (4603, 0.001)])
def test_without_errors_the_bound_is_about_4_6_over_the_requests(requests, excluded):
    assert upper_error_rate(requests, 0, 0.01) == pytest.approx(excluded, rel=0.01)


@given(st.integers(1, 100_000), st.integers(0, 1000))
def test_the_bound_lies_above_the_rate_seen_and_falls_with_every_good_request(requests, errors):
    errors = min(errors, requests)
    bound = upper_error_rate(requests, errors, 0.01)
    assert errors / requests <= bound <= 1
    assert upper_error_rate(requests * 2, errors, 0.01) <= bound + 1e-9
    assert upper_error_rate(requests, errors, 0.1) <= bound + 1e-9


def test_a_true_rate_is_hardly_ever_excluded_however_often_one_looks():
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        requests = errors = 0
        for _ in range(20):
            requests += 500
            errors += rng.binomial(500, 0.01)
            if errors and upper_error_rate(requests, errors, 0.01) < 0.01:
                wrong += 1
                break
    assert wrong <= 7  # 1 % of 200, and its scatter


def test_nothing_is_excluded_before_the_first_request_or_when_all_fail():
    assert upper_error_rate(0, 0, 0.01) == 1.0
    assert upper_error_rate(5, 5, 0.01) == 1.0


def test_at_least_so_many_times_worse_is_below_the_ratio_seen_and_above_the_tolerance():
    ratio = worse_by(Totals(240, 12, 47_800, 9), 1.25, 1.0, 4.6)
    assert 1.25 < ratio < (12 / 240) / (9 / 47_800)
    assert worse_by(Totals(240, 12, 47_800, 9), 1.25, 30.0, 4.6) == 1.25


def test_a_ratio_that_is_true_is_hardly_ever_excluded():
    rng = np.random.default_rng(5)
    wrong = sum(
        worse_by(Totals(500, rng.binomial(500, 0.05), 9500, rng.binomial(9500, 0.01)), 1.25, 1.0, 4.6) > 5
        for _ in range(500)
    )
    assert wrong <= 10


@pytest.mark.parametrize(
    ("share", "said"), [(0, "0 %"), (0.0123, "1.2 %"), (0.01, "1 %"), (0.00001, "0.001 %"), (0.5, "50 %"), (1, "100 %")]
)
def test_shares_are_said_with_two_digits(share, said):
    assert wording.percent(share) == said


@pytest.mark.parametrize(("ratio", "said"), [(9.47, "9.4x"), (1.259, "1.25x"), (137.9, "130x"), (12345.0, "12,000x")])
def test_at_least_is_rounded_down(ratio, said):
    assert wording.times(ratio) == said


@pytest.mark.parametrize(("share", "said"), [(0.0101, "1.1 %"), (0.01, "1 %"), (0.045, "4.5 %"), (0.999, "100 %")])
def test_at_most_is_rounded_up(share, said):
    assert wording.at_most(share) == said
