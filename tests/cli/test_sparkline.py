"""Sparklines and trends of ``health``, without a Prometheus."""

import math

import pytest

from canary_rollout.cli.health import Series, anomalies, sparkline


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█"),
        ([8, 1], "█▁"),
        ([5.0, 5.01, 4.99], "▄▄▄"),
        ([1, None, 2], "▁ █"),
        ([None, None], "  "),
        ([], ""),
        ([0, 0, 0], "▄▄▄"),
        ([1, math.nan, 2], "▁ █"),
    ],
)
def test_a_sparkline_shows_the_shape_and_leaves_gaps(values, line):
    assert sparkline(values) == line


def test_a_long_series_is_put_together_into_at_most_twenty_blocks():
    assert len(sparkline([float(number) for number in range(61)])) <= 20


def series(values, measure="latency-p99", version="canary"):
    return Series(measure, version, tuple(values))


def test_a_trend_is_the_last_third_against_the_first():
    assert series([1.0] * 10 + [9.0] * 10 + [2.0] * 10).trend == 2.0
    assert series([0.0] * 30).trend is None
    assert series([None] * 28 + [1.0, 2.0]).trend is None


def test_a_value_far_from_its_past_is_an_anomaly_and_noise_is_not():
    noise = [1.0 + 0.02 * math.sin(number) for number in range(60)]
    assert anomalies([series([*noise, 1.03])]) == []
    assert "latency-p99 of canary is 3000ms" in anomalies([series([*noise, 3.0])])[0]
    # One wild value of the past does not hide the next.
    assert len(anomalies([series([*noise[:-1], 50.0, 3.0])])) == 1


def test_a_value_that_is_gone_is_an_anomaly():
    assert anomalies([series([*[1.0] * 20, None])]) == ["latency-p99 of canary was there and is gone"]


def test_a_canary_far_from_stable_is_an_anomaly_unless_the_difference_is_tiny():
    stable = series([0.2] * 20, version="stable")
    assert "stable's is 200ms" in anomalies([stable, series([0.4] * 20)])[0]
    assert anomalies([series([0.001] * 20, version="stable"), series([0.005] * 20)]) == []
