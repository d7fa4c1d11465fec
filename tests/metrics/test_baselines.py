"""Stable's past: asked when it is needed, remembered as long as it is true."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_requests import make_request, make_spec

from canary_rollout.analysis.readings import BEFORE, SAME_HOUR, MeasureKey, ReadingKind
from canary_rollout.metrics.baselines import DAY, DAYS, FEWEST, usual
from canary_rollout.metrics.errors import OutageError
from canary_rollout.metrics.sampler import PrometheusSampler

NOW = 1_800_000_000.0
STABLE, CANARY = "checkout-6b7f9c-", "checkout-canary-7d8e-"


class Past:
    """A Prometheus that says 0.05 now and 0.01 and a little on every day before."""

    def __init__(self) -> None:
        self.instants, self.ranges = [], []
        self.down = self.empty = False

    def query(self, text, at, timeout):
        self.instants.append((text, at))
        if self.empty:
            return []
        return [
            {"metric": {"namespace": "shop", "cr_arm": arm}, "value": [at, "0.05" if at == NOW else "0.02"]}
            for arm in (STABLE, CANARY)
        ]

    def query_range(self, text, start, end, step, timeout):
        self.ranges.append((text, start, end, step))
        if self.down:
            raise OutageError("no connection")
        day = round((NOW - (start + end) / 2) / DAY)
        values = [[start + step * number, f"{0.01 + 0.001 * (day % 3)}"] for number in range(13)]
        return [{"metric": {"namespace": "shop"}, "values": [*values, [end, "NaN"]]}]

    def close(self):
        pass


async def asked(past, baseline, times=(NOW,), **changes):
    clock = [NOW]
    sampler = PrometheusSampler(connect=lambda _: past, now=lambda: clock[0])
    request = make_request(make_spec(rules=[]))
    key = MeasureKey("error-rate", 300.0, baseline=baseline)
    request = replace(request, measures=frozenset({key}), **changes)
    try:
        found = []
        for clock[0] in times:
            found.append((await sampler.sample(request)).readings[key])
        return found
    finally:
        await sampler.close()


async def test_the_usual_value_of_this_hour_is_the_median_of_a_week_of_whatever_revision_stable_had():
    past = Past()
    ((stable, canary),) = await asked(past, SAME_HOUR)
    assert canary.value == 0.05
    assert stable.value == pytest.approx(0.011)
    assert stable.spread == pytest.approx(1.4826 * 0.001)
    assert len(past.ranges) == DAYS
    text, start, end, step = past.ranges[0]
    assert 'pod=~"checkout-[a-z0-9]{1,10}-[a-z0-9]{5}"' in text
    assert (end - start, step) == (3600.0, 300.0)
    assert (start + end) / 2 == NOW - DAY


async def test_it_is_asked_for_once_an_hour():
    past = Past()
    await asked(past, SAME_HOUR, times=[NOW, NOW + 10, NOW + 20, NOW + 1800])
    hours = len({time // 3600 for time in (NOW, NOW + 10, NOW + 20, NOW + 1800)})
    assert len(past.ranges) == DAYS * hours


async def test_an_app_without_the_series_is_not_asked_for_its_past():
    past = Past()
    past.empty = True
    ((stable, canary),) = await asked(past, SAME_HOUR)
    assert (stable.kind, canary.kind) == (ReadingKind.EMPTY, ReadingKind.EMPTY)
    assert past.ranges == []


async def test_a_prometheus_that_is_away_is_no_baseline_and_no_zero():
    past = Past()
    past.down = True
    ((stable, canary),) = await asked(past, SAME_HOUR)
    assert stable.kind is ReadingKind.UNAVAILABLE
    assert canary.value == 0.05


async def test_what_was_before_the_rollout_is_one_evaluation_at_its_beginning():
    past = Past()
    first, second = await asked(past, BEFORE, times=[NOW, NOW + 10], began=NOW - 600)
    assert (first.stable.value, second.stable.value) == (0.02, 0.02)
    assert [at for _, at in past.instants].count(NOW - 600) == 1


async def test_before_any_rollout_there_is_no_time_before_it():
    ((stable, _),) = await asked(Past(), BEFORE)
    assert stable.kind is ReadingKind.ABSENT


@given(st.lists(st.floats(-1e6, 1e6), max_size=60))
def test_a_usual_value_lies_among_the_values_and_needs_an_hour_of_them(values):
    reading = usual(values)
    if len(values) < FEWEST:
        assert reading.kind is ReadingKind.EMPTY
    else:
        assert min(values) <= reading.value <= max(values)
        assert 0 <= reading.spread <= 1.4826 * (max(values) - min(values))
