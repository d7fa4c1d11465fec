"""The comparison as this process has it: the grid, the weights, tenants, and what a checkpoint holds."""

import asyncio
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_specs import make_spec

from canary_rollout.analysis.readings import CounterReadings, CounterSample
from canary_rollout.analysis.sequential import Policy
from canary_rollout.controller import comparing
from canary_rollout.controller.running import begin, restored
from canary_rollout.model.status import RolloutState, StageClock

EPOCH = 1_800_000_000.0


def reading(at, tenants=False, **counted):
    samples = tuple(
        CounterSample(arm, pod, series, value)
        for (arm, pod), values in counted["pods"].items()
        for series, value in zip(("requests", "errors"), values, strict=True)
    )
    return CounterReadings(at, samples, tenants=tenants)


@given(
    st.floats(EPOCH, EPOCH + 1e7), st.sampled_from([1.0, 2.0, 10.0, 15.0, 60.0]), st.text("abc", min_size=1, max_size=5)
)
def test_ticks_lie_on_a_grid_that_the_namespace_and_the_interval_decide(now, interval, namespace):
    spec = make_spec(interval=f"{interval:g}s")
    key = (namespace, "any")
    latest = comparing.latest_tick(key, spec, now)
    assert latest <= now - spec.metrics.comparison_lag
    assert now - spec.metrics.comparison_lag - latest < interval + 1e-3
    again = comparing.latest_tick(key, spec, now + 5 * interval)
    assert math.isclose((again - latest) / interval, round((again - latest) / interval), abs_tol=1e-6)


def test_the_first_missing_tick_is_at_most_a_day_back():
    policy = Policy(interval=10.0)
    running = begin(policy, 10.0, EPOCH)
    assert comparing.on_grid(running, EPOCH) == EPOCH
    running.through = EPOCH
    assert comparing.on_grid(running, EPOCH + 50) == EPOCH + 10
    assert comparing.on_grid(running, EPOCH + 1_000_000) == EPOCH + 1_000_000 - 86_400 + 10


def test_the_weight_of_a_tick_is_the_one_in_force_then():
    running = begin(Policy(), 15.0, EPOCH)
    assert running.weight_at(EPOCH) == 0
    for since, weight in ((0, 50), (100, 500), (200, 2500)):
        clock = StageClock(since=EPOCH + since)
        for _ in range(2):
            running.weigh(RolloutState(confirmed=weight, clock=clock), EPOCH + since + 3)
    found = [running.weight_at(EPOCH + at) for at in (-10, 0, 99, 100, 150, 200, 1000)]
    assert found == [50, 50, 50, 500, 500, 2500, 2500]


def test_a_checkpoint_is_json_without_a_null_that_a_merge_patch_would_take_for_a_removal():
    running = begin(Policy(), 15.0, EPOCH)
    running.weigh(RolloutState(confirmed=50), EPOCH)
    written = running.checkpoint().written()

    def nulls(value):
        return value is None or (isinstance(value, dict) and any(map(nulls, value.values())))

    assert not nulls(written)
    again = restored(Policy(), 15.0, json.loads(json.dumps(written)))
    assert (again.began, again.weights) == (running.began, running.weights)


async def test_requests_counted_by_tenants_count_once_and_pods_are_left_for_latency():
    running = begin(Policy(interval=10.0, warm_up=0.0), 10.0, EPOCH)
    running.weights = [(0.0, 500)]
    seen = []
    step = running.comparison.step
    running.comparison.step = lambda tick: seen.append(tick) or step(tick)
    ticks = []
    for number in range(3):
        pods = {
            ("stable", "proxy-1"): (1000 * number, 10 * number),
            ("canary", "proxy-1"): (50 * number, 5 * number),
            ("stable", "bucket:70"): (1000 * number, 10 * number),
            ("canary", "bucket:7"): (50 * number, 5 * number),
        }
        ticks.append(reading(EPOCH + 10 * number, tenants=True, pods=pods))
    await running.feed(ticks, sticky=True)
    last = seen[-1]
    assert sum(pod.requests for pod in last.canary) == 50
    assert sum(pod.errors for pod in last.stable) == 10
    assert {pod.pod: pod.requests for pod in last.canary} == {"proxy-1": 0, "bucket:7": 50}


async def test_a_tenant_who_always_fails_does_not_roll_a_sticky_stage_back():
    """Ten tenants on the canary, one of them fails every request, as it did on stable; nobody counted it there."""
    running = begin(Policy(interval=10.0), 10.0, EPOCH)
    running.weights = [(0.0, 50)]
    ticks = []
    for number in range(60):
        pods = {("stable", f"bucket:{bucket}"): (20 * number, 0) for bucket in range(10, 200)}
        pods |= {
            ("canary", f"bucket:{bucket}"): (20 * number, 20 * number if bucket == 3 else 0) for bucket in range(5)
        }
        ticks.append(reading(EPOCH + 10 * number, tenants=True, pods=pods))
    await running.feed(ticks, sticky=True)
    errors = next(test for test in running.tests if test.rule == "error-comparison")
    assert (errors.outcome, errors.action) == ("fail", "Pause")
    assert "paused instead of rolled back" in errors.message


@pytest.mark.parametrize(
    "raw",
    [{"began": 1}, {"began": "x", "weights": [], "evidence": "{}"}, {"began": 1, "weights": [], "evidence": "[]"}],
)
def test_a_checkpoint_of_somebody_else_is_refused(raw):
    from canary_rollout.analysis.errors import EvidenceError

    with pytest.raises(EvidenceError):
        restored(Policy(), 15.0, raw)


class Cut(Exception):  # noqa: N818 - nothing went wrong
    """Somebody cancels."""


class CutAfter:
    """Turns that end in the middle."""

    def __init__(self, ticks):
        self.left = ticks

    async def pause(self):
        self.left -= 1
        if self.left < 0:
            raise Cut


@given(st.lists(st.integers(0, 39), max_size=3))
def test_a_past_that_was_cut_in_the_middle_is_learned_once(cuts):
    """Twice would count every tenant twice and divide all evidence by a dispersion that is not there."""

    def learned(cuts):
        running = begin(Policy(interval=10.0), 10.0, EPOCH)
        past = []
        for number in range(40):
            pods = {("stable", f"bucket:{bucket}"): (600 * number, bucket * number) for bucket in range(6)}
            past.append(reading(EPOCH - 60 * (40 - number), tenants=True, pods=pods))
        for cut in cuts:
            with pytest.raises(Cut):
                asyncio.run(running.learn(past, sticky=True, turns=CutAfter(cut)))
            assert running.tries
            assert running.comparison._spread.state() == fresh
        asyncio.run(running.learn(past, sticky=True))
        return running.comparison._spread.state(), running.comparison._tenants.state(), running.past.export()

    fresh = begin(Policy(interval=10.0), 10.0, EPOCH).comparison._spread.state()
    assert learned(cuts) == learned([])
