"""Levels and growth of gauges: found when they matter, quiet when only pods differ among themselves."""

import math
import random

import pytest

from canary_rollout.analysis.gauges import GaugeTest
from canary_rollout.analysis.sequential import Policy, State, TestVerdict, Tick
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.model.measures import Action

START = 1_800_000_000.0
TICK = 15.0


class Pods:
    """Pods whose level differs by 8 % from one to the next and wanders by 3 % (AR(1), 0.97 a tick)."""

    def __init__(self, seed, stable=10, canary=1, factor=1.0, leak=0.0, young=False, level=5e8):
        self.random = random.Random(seed)
        self.level, self.factor, self.leak, self.young = level, factor, leak, young
        self.pods = {
            (arm, f"{arm}-{number}"): [self.random.gauss(0, 0.08), self.random.gauss(0, 0.03)]
            for arm, count in (("stable", stable), ("canary", canary))
            for number in range(count)
        }

    def values(self, age):
        out = {"canary": {}, "stable": {}}
        for (arm, name), state in self.pods.items():
            state[1] = 0.97 * state[1] + self.random.gauss(0, 0.03 * math.sqrt(1 - 0.97**2))
            value = self.level * math.exp(sum(state))
            if arm == "canary":
                value *= self.factor * (1 + self.leak * age / 3600)
                if self.young:
                    value *= 1 - 0.3 * math.exp(-age / 600)
            out[arm][name] = value
        return out


def run(test, pods, seconds=3600, begin=START, change=None):
    """All verdicts of the gauge "memory", one per tick."""
    said = []
    for number in range(int(seconds / TICK)):
        values = pods.values(number * TICK)
        if change:
            values = change(number * TICK, values) or values
        said += test.step(Tick(begin + number * TICK, 500, gauges={"memory": values}))
    return said


def first_fail(said):
    return next((number * TICK for number, verdict in enumerate(said) if verdict.outcome is Outcome.FAIL), None)


def share_failed(factor, canary, hours=60):
    times = [first_fail(run(GaugeTest(Policy()), Pods(seed, canary=canary, factor=factor))) for seed in range(hours)]
    found = sorted(at for at in times if at is not None)
    return len(found) / hours, found[len(found) // 2] if found else None


@pytest.mark.thorough
@pytest.mark.parametrize("canary", [1, 3])
def test_identical_pods_hardly_ever_fail(canary):
    assert share_failed(1.0, canary)[0] <= 0.04


@pytest.mark.parametrize("canary", [1, 3])
def test_twice_the_memory_is_found_within_eight_minutes(canary):
    share, median = share_failed(2.0, canary, hours=30)
    assert share >= 0.96
    assert median <= 480


def test_half_as_much_again_is_found_in_most_hours():
    assert share_failed(1.5, 1, hours=40)[0] >= 0.8


def test_less_memory_never_fails():
    assert all(verdict.outcome is not Outcome.FAIL for verdict in run(GaugeTest(Policy()), Pods(3, factor=0.3)))


def test_a_fail_says_what_is_compared_and_carries_the_action():
    last = run(GaugeTest(Policy()), Pods(1, factor=3.0), 900)[-1]
    assert isinstance(last, TestVerdict)
    assert (last.rule, last.outcome, last.state, last.action) == (
        "gauge-comparison:memory",
        Outcome.FAIL,
        State.BAD,
        Action.ALERT,
    )
    assert last.canary > 2 * last.stable
    assert last.worse_by == pytest.approx(last.canary / last.stable)
    assert last.message.startswith("memory: 1 canary pod at 1.")
    assert "10 stable pods at " in last.message
    assert "G, " in last.message


def test_a_jump_of_two_minutes_does_not_fail():
    def jump(age, values):
        if 1200 <= age < 1320:
            values["canary"] = {pod: value * 5 for pod, value in values["canary"].items()}

    assert first_fail(run(GaugeTest(Policy()), Pods(2), change=jump)) is None


@pytest.mark.parametrize("stable", [1, 2])
def test_one_or_two_stable_pods_hold_promotion_and_never_fail(stable):
    said = run(GaugeTest(Policy()), Pods(1, stable=stable, factor=3.0), 1200)
    assert {verdict.outcome for verdict in said} <= {Outcome.NONE, Outcome.PASS}
    assert said[-1].state is State.SUSPECT
    assert "too few stable pods" in said[-1].message


def test_without_stable_pods_there_is_nothing_to_compare_with():
    last = run(GaugeTest(Policy()), Pods(1, stable=0, factor=3.0), 900)[-1]
    assert (last.outcome, last.state) == (Outcome.NONE, State.NO_CONTROL)


@pytest.mark.thorough
@pytest.mark.parametrize("level", [5e8, 0.6])
def test_endless_growth_holds_promotion(level):
    def suspected(seed):
        said = run(GaugeTest(Policy()), Pods(seed, leak=0.5, level=level), 5400)
        return any("a canary pod grows by " in verdict.message for verdict in said)

    assert sum(suspected(seed) for seed in range(10)) >= 8


def test_growth_alone_is_a_suspicion_and_no_fail():
    calm = Policy(tolerance=3.0)
    said = run(GaugeTest(calm, {"memory": 8e8}), Pods(1, leak=0.4), 5400)
    growing = [verdict for verdict in said if "grows by" in verdict.message]
    assert growing
    assert {(verdict.outcome, verdict.state) for verdict in growing} == {(Outcome.NONE, State.SUSPECT)}


def test_a_leak_that_stable_has_too_is_not_the_canarys():
    def both(age, values):
        return {arm: {pod: value * (1 + age / 3600) for pod, value in pods.items()} for arm, pods in values.items()}

    said = run(GaugeTest(Policy()), Pods(4), 7200, change=both)
    assert not any("grows by" in verdict.message for verdict in said)


@pytest.mark.thorough
@pytest.mark.parametrize("young", [False, True])
def test_healthy_pods_are_hardly_ever_taken_for_leaking(young):
    def suspected(seed):
        said = run(GaugeTest(Policy()), Pods(seed, canary=3, young=young), 5400)
        return any("grows by" in verdict.message for verdict in said)

    assert sum(suspected(seed) for seed in range(30)) <= 3


def test_a_limit_that_is_given_is_named():
    said = run(GaugeTest(Policy(), {"memory": 8e8}), Pods(5, leak=0.4), 7200)
    assert any("passes its limit of 800M" in verdict.message for verdict in said)


def test_the_warm_up_of_a_pod_does_not_count():
    def young(age, values):
        if age < 110:
            values["canary"] = {pod: value * 50 for pod, value in values["canary"].items()}

    calm = run(GaugeTest(Policy(warm_up=120)), Pods(6), 1800, change=young)
    assert first_fail(calm) is None
    assert calm[0].state is State.NOT_ENOUGH


def test_values_that_make_no_sense_are_left_out():
    def mad(_age, values):
        values["canary"] |= {"nan": math.nan, "inf": math.inf, "negative": -1.0, "zero": 0.0}

    said = run(GaugeTest(Policy()), Pods(7, factor=2.0), 900, change=mad)
    assert said[-1].message.startswith("memory: 1 canary pod ")


def test_an_incomplete_tick_changes_nothing():
    test, pods = GaugeTest(Policy()), Pods(8)
    run(test, pods, 900)
    broken = {"memory": {"canary": {"canary-0": 1e12}, "stable": {"stable-0": 1.0}}}
    for number in range(20):
        said = test.step(Tick(START + 900 + number * TICK, 500, gauges=broken, complete=False))
        assert all(verdict.outcome is not Outcome.FAIL for verdict in said)


def test_switched_off_it_says_nothing():
    assert run(GaugeTest(Policy(gauges=None)), Pods(1, factor=3.0), 600) == []


def test_a_gauge_that_is_gone_is_forgotten():
    test = GaugeTest(Policy())
    run(test, Pods(1), 600)
    for number in range(40):
        said = test.step(Tick(START + 600 + number * TICK, 500))
    assert said == ()


def test_state_is_what_the_last_minutes_make_of_it():
    """After a restart the windows are fed again from `lookback` before: the verdicts must be the same from there on."""
    long, pods = GaugeTest(Policy()), Pods(9, canary=3, factor=1.2, leak=0.4)
    ticks = [
        Tick(START + number * TICK, 500, gauges={"memory": pods.values(number * TICK)})
        for number in range(int(3 * 3600 / TICK))
    ]
    said = [long.step(tick) for tick in ticks]
    begin = int(1.7 * 3600 / TICK)
    again = GaugeTest(Policy())
    for number in range(begin - int(again.lookback / TICK), len(ticks)):
        verdicts = again.step(ticks[number])
        if number >= begin:
            assert verdicts == said[number], number


def test_hundreds_of_pods_cost_no_more_than_the_first_ones():
    test, pods = GaugeTest(Policy()), Pods(1, stable=400)
    assert "32 stable pods" in run(test, pods, 900)[-1].message
