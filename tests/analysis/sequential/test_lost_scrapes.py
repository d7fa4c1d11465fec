"""Scrapes that are lost or late: whatever order counts come in, the evidence is that of the counts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary_rollout.analysis.sequential import Comparison, PodCounts, Policy, RawSample, Tick
from canary_rollout.analysis.sequential.eprocess import Flow, RatioProcess
from canary_rollout.analysis.sequential.tracker import CounterTracker
from canary_rollout.analysis.verdict import Outcome

few = st.integers(0, 30)
group = st.tuples(st.integers(1, 5), st.integers(0, 3), few, few)
ticks = st.lists(
    st.tuples(st.lists(group, max_size=3), st.lists(group, max_size=3), st.booleans()), min_size=1, max_size=25
)


@given(ticks)
def test_the_first_starts_evidence_is_the_sum_over_all_ticks_however_they_were_filled(history):
    """Groups of pods that cover different spans fill the same ticks; a checkpoint in between changes nothing."""
    process = RatioProcess(1.25)
    for canary, stable, sealed in history:
        process.take(
            Flow(
                {(span, behind): [requests + bad, bad, 0.0] for span, behind, requests, bad in canary},
                {(span, behind): [10 * requests + bad, bad] for span, behind, requests, bad in stable},
            ),
            1.0,
            process.index + 1,
        )
        if sealed:
            process = RatioProcess.restore(json.loads(json.dumps(process.state())), process)
    assert len(history) <= process.reach or process.index > process.reach
    if process.index <= process.reach:
        parts = [process._worth(cell)[0] for cell in process.ring if cell.e1 or cell.e2]
        expected = [sum(part[number] for part in parts) for number in range(len(process.ratios))]
        assert process.starts[0].logs == pytest.approx(expected, rel=0.01, abs=0.6)  # checkpoints are rounded


@given(st.lists(st.tuples(few, few, few), min_size=1, max_size=6))
def test_evidence_of_one_tick_does_not_depend_on_how_stable_came_in(pods):
    """Stable's pods of a tick in one group, or each in a group of its own that ends in the same tick."""
    together, apart = RatioProcess(1.25), RatioProcess(1.25)
    for process in (together, apart):
        process.take(Flow({(1, 0): [100, 0, 0]}, {(1, 0): [900, 1]}), 1.0, 1)
    requests, bad = (sum(pod[part] for pod in pods) for part in (0, 1))
    together.take(Flow({(1, 0): [100, 4, 0]}, {(1, 0): [900 + requests + bad, 2 + bad]}), 1.0, 2)
    apart.take(Flow({(1, 0): [100, 4, 0]}, {(1, 0): [900, 2], (9, 0): [0, 0]}), 1.0, 2)
    apart._spread(Flow({}, {(1, 0): [requests + bad, bad]}))
    apart._gain([apart.ring[-1]])
    apart._sum()
    assert apart.log_e == pytest.approx(together.log_e)


def tracked(samples, ats):
    """What the canary's pod did at each tick; a pod of stable is scraped all the time."""
    tracker, out = CounterTracker(15.0, began=0.0), []
    samples = sorted(samples, key=lambda sample: sample[2])
    for at in ats:
        tracker.add(RawSample(at - 1, "stable", "s0", "requests", 100 * at))
        while samples and samples[0][2] <= at:
            ts, value, arrival = samples.pop(0)
            tracker.add(RawSample(ts, "canary", "c0", "requests", value, arrival=arrival))
        tick = tracker.tick(at, 500)
        out.append([(pod.requests, pod.span) for pod in tick.canary])
    return out


def test_a_late_scrape_that_comes_just_before_the_next_ones_does_not_shorten_their_span():
    """Scrapes of 10, 25, 40, 55, 70 s; that of 25 arrives at 58 and covers 15 s, the rest with that of 70: 45 s."""
    samples = [(10, 100, 10), (25, 200, 58), (40, 300, 72), (55, 400, 73), (70, 500, 74)]
    assert tracked(samples, [15, 30, 45, 60, 75]) == [[(0.0, 1)], [], [], [(100, 1)], [(300, 3)]]


def test_a_pod_that_is_scraped_half_as_often_covers_two_ticks():
    samples = [(at, 10 * at, at + 0.1) for at in range(5, 100, 30)]
    assert [[span for _, span in tick] for tick in tracked(samples, range(15, 100, 15))] == [[1], [], [2], [], [2], []]


def test_a_scrape_that_always_misses_its_tick_covers_one():
    samples = [(at - 0.01 * (at % 2), 10 * at, at + 0.5) for at in range(15, 300, 15)]
    assert {span for tick in tracked(samples, range(15, 300, 15)) for _, span in tick} == {1}


def test_an_outage_that_both_share_stays_shared_when_the_canarys_scrape_is_late():
    """The canary's scrape of the outage comes a tick late and covers two: half of its requests leave their errors."""
    ticks = [((7500, 8, 1), (22_500, 24))] * 30
    ticks += [(None, (20_475, 4973)), ((7470, 2905, 2), (24_522, 3292)), ((7536, 11, 1), (22_501, 145))]
    ticks += [((7500, 8, 1), (22_500, 24))] * 10
    comparison = Comparison(Policy())
    failed = []
    for number, (ours, theirs) in enumerate(ticks, 1):
        canary = () if ours is None else (PodCounts("c0", *ours[:2], span=ours[2]),)
        stable = tuple(PodCounts(f"s{pod}", theirs[0] / 10, theirs[1] / 10) for pod in range(10))
        verdicts = comparison.step(Tick(15.0 * number, 2500, canary, stable))
        failed += [verdict.message for verdict in verdicts if verdict.outcome is Outcome.FAIL]
    assert failed == []


def test_a_late_scrape_that_comes_with_the_next_one_is_one_increment_over_all():
    tracker = CounterTracker(15.0, began=0.0)
    late = {40: 62.0}
    samples = [
        RawSample(at, "canary", "c0", "requests", 10.0 * at, arrival=late.get(at, at + 0.2)) for at in (10, 25, 40, 70)
    ]
    samples += [RawSample(at, "stable", "s0", "requests", 10.0 * at, arrival=at + 0.2) for at in range(10, 80, 15)]
    laid = []
    waiting = sorted(samples, key=lambda sample: sample.arrival)
    for at in (15, 30, 45, 60, 75):
        while waiting and waiting[0].arrival <= at:
            tracker.add(waiting.pop(0))
        laid += [(at, pod.requests, pod.span, pod.behind) for pod in tracker.tick(at, 500).canary]
    assert laid[-1] == (75, 450.0, 3, 0), laid


def test_a_late_scrape_alone_is_behind_by_the_ticks_it_missed():
    tracker = CounterTracker(15.0, began=0.0)
    for at, arrivals in ((15, (10,)), (30, (25,)), (45, ()), (60, (40,))):
        for scraped in arrivals:
            tracker.add(RawSample(scraped, "canary", "c0", "requests", 10.0 * scraped))
        tracker.add(RawSample(at - 5.0, "stable", "s0", "requests", 100.0 * at))
        laid = [(pod.requests, pod.span, pod.behind) for pod in tracker.tick(at, 500).canary]
    assert laid == [(150.0, 1, 1)]
