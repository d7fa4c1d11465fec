"""What a comparison remembers, and the work of one evaluation, do not grow with the rollout."""

import json
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest

from canary_rollout.analysis.gauges import GaugeTest
from canary_rollout.analysis.history import HistoryTest
from canary_rollout.analysis.sequential import Comparison, PodCounts, Policy, Tick

pytestmark = [pytest.mark.thorough]

TICK = 60.0
"""Seconds; 72 hours are 4,320 of them."""

HOUR = 60
"""Ticks of an hour."""

TAILS = {0.1: 0.3, 0.25: 0.05, 0.5: 0.01}
STARTS, RING, LATENCY_STARTS, LATENCY_RING = 8, 12, 4, 6


def pod(rng, name, requests, at):
    errors = float(rng.binomial(requests, 0.002))
    slow = {edge: float(rng.binomial(requests, tail)) for edge, tail in TAILS.items()}
    return PodCounts(name, float(requests), errors, slow, scraped_at=at - 5.0)


def service(rng, first, count):
    """Ticks of ten pods of stable and three of the canary at 25 %, with three bucket edges and two gauges."""
    for number in range(first, first + count):
        at = TICK * number
        canary = tuple(pod(rng, f"c{place}", 2000, at) for place in range(3)) if number > 0 else ()
        stable = tuple(pod(rng, f"s{place}", 2000, at) for place in range(10))
        arms = {
            arm: {each.pod: float(rng.normal(5e8, 2e7)) for each in pods}
            for arm, pods in (("canary", canary), ("stable", stable))
        }
        lost = number > 0 and number % 7 == 0
        gauges = {"memory": arms, "cpu": arms}
        yield Tick(at, 2500, canary[1:] if lost else canary, stable, gauges, absent=2000.0 if lost else 0.0)


def lived(hours):
    """A comparison with all tests after each of some hours (rising), and the hour of ticks that follows."""
    rng, policy = np.random.default_rng(11), Policy(interval=TICK, max_error_rate=0.2)
    comparison = Comparison(policy, (GaugeTest(policy), HistoryTest(policy)))
    for tick in service(rng, -2 * HOUR, 2 * HOUR):
        comparison.history(tick)
    day = list(service(rng, 1, HOUR))  # an hour that comes again and again
    done = 0
    for hour in hours:
        for again in range(done, hour):
            for tick in day:
                verdicts = comparison.step(replace(tick, at=tick.at + again * 3600.0))
        done = hour
        assert [verdict.rule for verdict in verdicts if verdict.outcome == "fail"] == []
        yield comparison, [replace(tick, at=tick.at + done * 3600.0) for tick in day]


def test_what_a_comparison_remembers_does_not_grow():
    pickled, written = [], []
    for comparison, _ in lived((2, 4, 12)):
        errors, edges = comparison._errors, comparison._latency.processes
        assert len(edges) == len(TAILS)
        assert len(errors.starts) == len(comparison._limit.starts) == STARTS
        assert len(errors.ring) == RING
        assert len(errors.waiting) <= RING
        assert len(comparison._freshness._covered) <= 5
        for process in edges.values():
            assert (len(process.starts), len(process.ring)) == (LATENCY_STARTS, LATENCY_RING)
        assert len(comparison._spread._open) <= 10
        pickled.append(len(pickle.dumps(comparison)))
        written.append(len(json.dumps(comparison.checkpoint(), separators=(",", ":"))))
    assert max(pickled) <= pickled[0] + 2000, pickled
    assert max(written) <= written[0] + 600, written
    assert max(written) < 8192


def opcodes(work):
    """How many instructions of Python a piece of work takes: no clock, the same on every machine."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_an_evaluation_after_three_days_is_no_more_work_than_one_after_three_hours():
    """All tests together, an hour of ticks each; at a tick a minute each ends a block and has all that is done once a minute."""
    spent = []
    for comparison, following in lived((3, 71)):
        copy = pickle.loads(pickle.dumps(comparison))
        spent.append(opcodes(lambda: [copy.step(tick) for tick in following]) / len(following))  # noqa: B023
    assert spent[1] <= 1.05 * spent[0], spent
    assert spent[1] <= 120_000, spent  # 95,000 when this was written
