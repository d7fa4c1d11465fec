"""The evidence itself: a fair game for a healthy canary, and one that can be forgotten and begun anew."""

import json
from itertools import pairwise
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary_rollout.analysis.sequential.cells import Flow, Start, to_come
from canary_rollout.analysis.sequential.eprocess import RATIOS, RatioProcess

counts = st.integers(0, 40)


def flow(n1, e1, n2, e2, *, waiting=0, span=1):
    return Flow({(span, 0): [n1, e1, waiting]}, {(1, 0): [n2, e2]})


def test_one_tick_is_the_formula():
    process = RatioProcess(1.25)
    process.take(flow(100, 3, 900, 2), 1.0, 1)
    q = 1.25 * 0.1 / (1.25 * 0.1 + 0.9)
    members = []
    for ratio in RATIOS:
        worse = 1.25 * ratio * 0.1 / (1.25 * ratio * 0.1 + 0.9)
        members.append(3 * log(worse / q) + 2 * log((1 - worse) / (1 - q)))
    mixture = sum(exp(x) for x in members) / len(members)
    assert exp(process.log_e) == pytest.approx(0.5 * 0.5 * (mixture + 1) + 0.5)


def test_bursts_divide_the_evidence():
    alone, bursts = RatioProcess(1.25), RatioProcess(1.25)
    alone.take(flow(1000, 3, 9000, 0), 1.0, 1)
    bursts.take(flow(1000, 30, 9000, 0), 10.0, 1)
    assert bursts.log_e == pytest.approx(alone.log_e)


@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=30), st.integers(0, 29), st.integers(1, 20))
def test_one_more_canary_error_never_lowers_the_evidence(ticks, where, more):
    better, worse = RatioProcess(1.25), RatioProcess(1.25)
    for number, (e1, e2) in enumerate(ticks):
        better.take(flow(100, e1, 900, e2), 1.0, number + 1)
        worse.take(flow(100, e1 + (more if number == where else 0), 900, e2), 1.0, number + 1)
        assert worse.log_e >= better.log_e - 1e-9


@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=30), st.integers(0, 29), st.integers(1, 20))
def test_one_more_stable_error_never_raises_it(ticks, where, more):
    before, after = RatioProcess(1.25), RatioProcess(1.25)
    for number, (e1, e2) in enumerate(ticks):
        before.take(flow(100, e1, 900, e2), 1.0, number + 1)
        after.take(flow(100, e1, 900, e2 + (more if number == where else 0)), 1.0, number + 1)
        assert after.log_e <= before.log_e + 1e-9


def test_errors_that_wait_count_nothing_until_their_tick_is_released():
    process = RatioProcess(1.25)
    process.take(flow(100, 0, 900, 1, waiting=50), 1.0, 0)
    assert process.log_e <= 0
    process.take(flow(100, 0, 900, 1, waiting=50), 1.0, 1)
    once = process.log_e
    assert once > 5
    process.take(flow(100, 0, 900, 0), 1.0, 2)
    assert process.log_e > once


def test_a_shared_outage_that_the_canary_shows_first_is_no_evidence():
    process = RatioProcess(1.25)
    process.take(flow(500, 0, 1500, 2, waiting=250), 1.0, 0)  # half of everything fails, stable was scraped before
    for number in range(2, 10):
        process.take(flow(500, 0, 1500, 750, waiting=250), 1.0, number - 1)
        assert process.log_e < 0.1


def test_an_outage_whose_end_only_the_canary_still_shows_is_no_evidence_for_a_restart_made_in_between():
    process = RatioProcess(1.25)
    for number in range(1, 4):
        process.take(flow(500, 0, 1500, 750, waiting=250), 1.0, number - 1)
    process.restart(1)
    process.take(flow(500, 0, 1500, 0, waiting=250), 1.0, 3)  # scraped before stable; it is over already
    for number in range(5, 12):
        process.take(flow(500, 0, 1500, 1), 1.0, number)
        assert process.log_e < 1


def test_a_lost_scrape_in_a_shared_outage_is_no_evidence_when_it_is_made_good():
    process = RatioProcess(1.25)
    process.take(flow(500, 0, 1500, 1), 1.0, 1)
    process.take(Flow({}, {(1, 0): [1500, 750]}), 1.0, 2)  # the outage; the canary's scrape is lost
    process.take(flow(1000, 250, 1500, 2, span=2), 1.0, 3)
    for number in range(4, 9):
        process.take(flow(500, 1, 1500, 2), 1.0, number)
        assert process.log_e < 1


def test_a_long_healthy_past_is_no_shelter_since_evidence_is_begun_anew():
    process = RatioProcess(1.25)
    for number in range(1, 1000):
        process.take(flow(300, 0, 900, 5), 1.0, number)
        if number % 20 == 0:
            process.restart(number // 20)
    assert len(process.starts) == 8
    for number in range(1000, 1004):
        process.take(flow(300, 30, 900, 5), 1.0, number)
    assert process.log_e > log(100)


def test_restarts_lie_geometrically_back_from_now_however_long_it_lasts():
    process = RatioProcess(1.25)
    for number in range(1, 865):  # 72 h
        process.take(flow(10, 0, 90, 0), 1.0, number)
        process.restart(number)
    ages = [865 - start.number for start in process.starts]
    assert ages[0] == 865
    assert ages[-1] == 1
    assert max(old / young for old, young in pairwise(ages)) < 8


@given(st.integers(0, 2000))
def test_all_shares_of_the_evidence_together_are_one(restarts):
    weights = [Start(number, 0, [], [], (0.0, 0.0, 0.0, 0.0)).weight for number in range(restarts + 1)]
    assert min(weights) > 0
    assert sum(weights) + to_come(restarts) == pytest.approx(1.0)


def test_what_fails_in_the_first_tick_after_a_restart_counts_for_it():
    process = RatioProcess(1.25)
    for number in range(1, 101):
        process.take(flow(1000, 1, 9000, 9), 1.0, number)
    process.restart(1)
    process.take(flow(1000, 40, 9000, 9), 1.0, 101)
    assert process.strongest().number == 1
    assert process.log_e > log(100)


def test_stables_part_of_an_outage_that_was_scraped_before_a_restart_counts_for_it():
    """Stable shows the outage in the tick before the restart, the canary in the one after it."""
    process = RatioProcess(1.25)
    process.take(flow(500, 0, 1500, 1), 1.0, 1)
    process.take(flow(500, 0, 1500, 750), 1.0, 2)
    process.restart(1)
    for number in range(3, 8):
        process.take(flow(500, 250 if number == 3 else 0, 1500, 1), 1.0, number)
        assert process.log_e < 1


def test_a_burst_that_lasts_for_four_ticks_is_one_bet():
    """Forty errors of one accident, ten a tick, at a twentieth of the traffic; bursts are known to have forty."""
    evidence = []
    for block in (1, 4):
        process = RatioProcess(1.25)
        process.block, most = block, 0.0
        for number in range(1, 40):
            process.take(flow(500, 10 if 12 <= number < 16 else 0, 9500, 0), 40.0, number)
            most = max(most, process.starts[0].betting)
        evidence.append(most)
    assert evidence[0] > 1000  # four bets won
    assert evidence[1] < 16  # one: at most what the odds pay


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.2, 0.5]), st.sampled_from([0.001, 0.02, 0.3]))
def test_two_versions_that_are_the_same_hardly_ever_gather_evidence(seed, share, rate):
    """Ville: the probability to reach 1/alpha ever is at most alpha; 20 runs at 1e-6 never do."""
    rng = np.random.default_rng(seed)
    process = RatioProcess(1.0)
    n1, n2 = round(2000 * share), round(2000 * (1 - share))
    for number in range(1, 200):
        process.take(flow(n1, rng.binomial(n1, rate), n2, rng.binomial(n2, rate)), 1.0, number)
        if number % 20 == 0:
            process.restart(number // 20)
        assert process.log_e < log(1e6)


@pytest.mark.thorough
def test_the_mean_of_the_evidence_stays_at_most_one_for_a_just_tolerable_canary():
    """A supermartingale: 2,000 games of 20 ticks at p1 = 1.25 p2; the mean is 1 but for its own scatter."""
    rng = np.random.default_rng(7)
    final = []
    for _ in range(2000):
        process = RatioProcess(1.25)
        for number in range(1, 21):
            process.take(flow(20, rng.binomial(20, 0.0125), 180, rng.binomial(180, 0.01)), 1.0, number)
        final.append(min(exp(process.log_e), 1000.0))
    assert np.mean(final) <= 1.0 + 4 * np.std(final) / 2000**0.5


@given(
    st.lists(st.tuples(counts, counts, st.integers(1, 4), st.booleans()), min_size=1, max_size=40), st.integers(0, 40)
)
def test_a_process_that_was_written_down_goes_on_as_if_nothing_had_happened(ticks, when):
    process, other = RatioProcess(1.25), None
    for number, (e1, e2, span, restart) in enumerate(ticks, 1):
        for each in filter(None, (process, other)):
            each.take(flow(100, 1, 900, e2, waiting=e1, span=span), 2.0, number - 1)
            if restart:
                each.restart(each.latest + 1)
        if number == when:
            other = RatioProcess.restore(json.loads(json.dumps(process.state())), RatioProcess(1.25))
    if other is not None:
        assert other.log_e == process.log_e
        assert other.state() == process.state()
