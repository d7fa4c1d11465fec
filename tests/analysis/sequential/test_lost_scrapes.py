"""Scrapes that are lost or late: whatever order counts come in, the evidence is that of the counts."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary_rollout.analysis.sequential import Comparison, PodCounts, Policy, RawSample, Tick
from canary_rollout.analysis.sequential.cells import Flow
from canary_rollout.analysis.sequential.eprocess import RatioProcess
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
    """The canary's scrape of the outage is in the query after the next: it covers one tick, and that was the one before."""
    ticks = [((7500, 8), (22_500, 24))] * 30
    ticks += [((0, 0), (20_475, 4973)), ((7470, 2905), (24_522, 3292)), ((7536, 11), (22_501, 145))]
    ticks += [((7500, 8), (22_500, 24))] * 10
    tracker, comparison = CounterTracker(15.0, began=0.0, scrape_times=False), Comparison(Policy())
    counters, failed = {}, []
    for number, (ours, theirs) in enumerate(ticks):
        arms = [("canary", "c0", *ours), *(("stable", f"s{pod}", theirs[0] / 10, theirs[1] / 10) for pod in range(10))]
        for arm, pod, requests, errors in arms:
            for series, rise in (("requests", requests), ("errors", errors)):
                counters[pod, series] = counters.get((pod, series), 0.0) + rise
                value = counters[pod, series]
                tracker.add(RawSample(15.0 * number, arm, pod, series, value, created=-3600.0 if pod != "c0" else 0.0))
        tick = tracker.tick(15.0 * number, 2500)
        if number == 31:
            assert [(pod.span, pod.behind) for pod in tick.canary] == [(1, 1)]
        verdicts = comparison.step(tick)
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


RATE, USUAL, IN_OUTAGE = 200.0, 0.001, 0.5
"""Requests a second of one pod, and the share of them that fails: usually, and while both versions share an outage."""


def served(at, outage):
    """A pod's counters: (requests, errors) since 0, with an outage between two times."""
    begin, end = outage
    down = min(max(at - begin, 0.0), end - begin)
    return RATE * at, RATE * (USUAL * (at - down) + IN_OUTAGE * down)


def shared_outage(phases, delays, outage, ticks=30, seen=lambda tick: tick):
    """The greatest evidence there ever was against a canary that is exactly as good as stable.

    Args:
        phases: by pod (the first is the canary's), when in an interval it is scraped, 0..15 s.
        delays: (pod, number of the scrape) -> seconds until it arrives; ``None``: lost.
        outage: begin and end, seconds.
        ticks: how many.
        seen: what is made of a tick before the comparison gets it.
    """
    samples = []
    for pod, phase in enumerate(phases):
        for number in range(ticks):
            at, late = 15.0 * number + phase, delays.get((pod, number), 0.1)
            if late is not None:
                arm, name = ("canary", "c0") if pod == 0 else ("stable", f"s{pod}")
                for series, value in zip(("requests", "errors"), served(at, outage), strict=True):
                    samples.append(RawSample(at, arm, name, series, value, created=-3600.0, arrival=at + late))
    samples.sort(key=lambda sample: sample.arrival)
    tracker, comparison = CounterTracker(15.0, began=0.0), Comparison(Policy())
    for number in range(-80, 0):  # twenty minutes of independent errors: what the canary does wrong counts in full
        past = tuple(PodCounts(f"s{pod}", 3000, 3) for pod in range(1, len(phases)))
        comparison.history(Tick(15.0 * number, 0, (), past))
    most = 0.0
    for number in range(1, ticks + 1):
        while samples and samples[0].arrival <= 15.0 * number:
            tracker.add(samples.pop(0))
        comparison.step(seen(tracker.tick(15.0 * number, 2000)))
        most = max(most, comparison._errors.log_e)
    return most


def test_a_shared_outage_is_not_the_canarys_for_as_long_as_its_next_scrape_is_late():
    """The canary is scraped last and shows all of the outage; what stable's pods show of it comes a tick later.

    The canary's next scrape is late, so in that tick it had no request of which stable's errors could have been a part.
    """
    phases, outage = (14.5, 1.0, 3.0, 5.0, 7.0), (120.0, 134.0)
    late = {(0, 9): 40.0, (0, 10): None}
    assert shared_outage(phases, late, outage) < 1.0
    unseen = shared_outage(phases, late, outage, seen=lambda tick: replace(tick, absent=0.0))
    assert unseen > 20.0  # what it was worth before


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.1, 14.9), min_size=4, max_size=8),
    st.floats(60.0, 330.0),
    st.floats(5.0, 15.0),
    st.dictionaries(
        st.tuples(st.integers(0, 7), st.integers(0, 29)), st.one_of(st.none(), st.floats(1.0, 45.0)), max_size=60
    ),
)
def test_an_outage_that_both_share_is_no_evidence_however_scrapes_are_lost_or_late(phases, begin, seconds, delays):
    assert shared_outage(phases, delays, (begin, begin + seconds)) < 4.6


def test_a_canary_pod_whose_scrape_is_late_is_taken_to_serve_what_it_did_until_it_arrives():
    tracker = CounterTracker(15.0, began=0.0)
    for at in (10.0, 25.0):
        tracker.add(RawSample(at, "canary", "c0", "requests", 10 * at))
        tracker.add(RawSample(at, "stable", "s0", "requests", 100 * at))
        assert tracker.tick(at + 5.0, 500).absent == 0
    absent = []
    for at in (40.0, 55.0, 70.0, 85.0, 100.0):
        tracker.add(RawSample(at, "stable", "s0", "requests", 100 * at))
        absent.append(tracker.tick(at + 5.0, 500).absent)
    assert absent == [150.0, 150.0, 150.0, 150.0, 0.0]  # then it is gone
    tracker.add(RawSample(115.0, "canary", "c0", "requests", 1150.0))
    back = tracker.tick(120.0, 500)
    assert [(pod.requests, pod.span, pod.reckoned) for pod in back.canary] == [(900.0, 6, 150.0)]
    assert back.absent == 0


def test_requests_that_were_absent_are_counted_once_when_they_arrive():
    """Evidence with a scrape that came late is in the end what it is when it came in time."""
    late, punctual = RatioProcess(1.25), RatioProcess(1.25)
    stable = {(1, 0): [900, 3]}
    for process in (late, punctual):
        process.take(Flow({(1, 0): [100, 2, 0]}, stable), 1.0, 1)
    late.take(Flow({}, stable, absent=120.0), 1.0, 2)
    late.take(Flow({(2, 0): [200, 0, 0]}, stable, back={(2, 0): 120.0}), 1.0, 3)
    for _ in range(2):
        punctual.take(Flow({(1, 0): [100, 0, 0]}, stable), 1.0, punctual.index + 1)
    assert late.log_e == pytest.approx(punctual.log_e)
    assert [cell.absent for cell in late.ring] == [0.0] * 3
