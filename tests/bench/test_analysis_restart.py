"""Benchmark traffic with everything wrong at once: a restarted comparison says what the old one would have said."""

import json
import random
from dataclasses import replace

import pytest
from analysis_scenarios import HOUR, SCENARIOS
from analysis_scrapes import Weight, simulate

from canary_rollout.analysis.gauges import GaugeTest
from canary_rollout.analysis.history import HistoryTest
from canary_rollout.analysis.sequential import Comparison, Policy
from canary_rollout.analysis.sequential.tracker import CounterTracker

pytestmark = [pytest.mark.thorough]

TICK = 15.0
STAGES = ((50, 900.0), (500, 900.0), (2500, 1500.0), (10_000, 900.0))


def ticks_of(scenario, seed):
    """History's ticks and the rollout's."""
    tracker, due, weight = CounterTracker(TICK), -scenario.history + TICK, 0
    before, after = [], []
    for event in simulate(scenario, seed).events():
        now = event.ts if isinstance(event, Weight) else event.arrival
        while due < now:
            (after if weight else before).append(tracker.tick(due, weight))
            due += TICK
        if not isinstance(event, Weight):
            tracker.add(event)
            continue
        if not weight:
            tracker.begin(event.ts)
            due = event.ts + TICK
        weight = event.weight
    return before, after


def comparison(raw=None, usual=None):
    policy = Policy(max_error_rate=0.05)
    past = HistoryTest(policy, usual)
    windows = (GaugeTest(policy), past)
    return (Comparison(policy, windows) if raw is None else Comparison.restore(policy, raw, windows)), past


@pytest.mark.parametrize("name", ["restarts-2000", "sticky-50", "outages-2000", "late-samples-50", "broken-2000-5-1"])
def test_the_same_samples_give_the_same_verdicts_after_a_restart(name):
    scenario = replace(SCENARIOS[name], stages=STAGES, latency="same", memory=1.1, history=1.5 * HOUR)
    before, ticks = ticks_of(scenario, 5)
    first, past = comparison()
    for tick in before:
        first.history(tick)
    cuts = random.Random(name).sample(range(3, len(ticks) - 2), 6)
    saved, said = {}, []
    for number, tick in enumerate(ticks):
        said.append((first.step(tick), first.gate()))
        if number in cuts:
            saved[number] = json.loads(json.dumps([first.checkpoint(), first.replay_from, past.export()]))
    for cut, (raw, replay_from, usual) in saved.items():
        again, _ = comparison(raw, usual)
        for number, tick in enumerate(ticks):
            if tick.at > replay_from:
                verdicts = again.step(tick)
                assert number <= cut or (verdicts, again.gate()) == said[number], (cut, number)


def test_a_fail_holds_promotion_before_the_first_tick_after_a_restart():
    scenario = replace(SCENARIOS["broken-2000-5-100"], stages=((500, 600.0),), history=600.0)
    before, ticks = ticks_of(scenario, 1)
    first, _ = comparison()
    for tick in before:
        first.history(tick)
    for tick in ticks:
        first.step(tick)
    assert not first.gate().promote
    again, _ = comparison(json.loads(json.dumps(first.checkpoint())))
    assert again.gate() == first.gate()
