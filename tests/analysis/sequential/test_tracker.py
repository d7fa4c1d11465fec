"""Raw samples to increments: every row of the table in docs/analysis.md."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary_rollout.analysis.sequential import CounterTracker, PodCounts, RawSample


def scrape(pod, ts, requests, errors=None, *, arm="stable", created=None, arrival=None):
    yield RawSample(ts, arm, pod, "requests", requests, created=created, arrival=arrival)
    if errors is not None:
        yield RawSample(ts, arm, pod, "errors", errors, created=created, arrival=arrival)


def feed(tracker, *scrapes):
    for samples in scrapes:
        for sample in samples:
            tracker.add(sample)


def only(pods: tuple[PodCounts, ...]) -> PodCounts:
    (pod,) = pods
    return pod


def test_the_first_sample_of_an_old_pod_is_its_base_line():
    tracker = CounterTracker(began=100.0)
    feed(tracker, scrape("s1", 101, 5000, 70, created=3.0))
    assert only(tracker.tick(115, 50).stable).requests == 0
    feed(tracker, scrape("s1", 116, 5040, 72, created=3.0))
    counts = only(tracker.tick(130, 50).stable)
    assert (counts.requests, counts.errors) == (40, 2)


def test_a_pod_without_created_is_taken_as_old():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("c1", 5, 900, 30, arm="canary"))
    assert only(tracker.tick(15, 50).canary).errors == 0


def test_a_pod_created_since_the_analysis_began_counts_from_zero():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("c1", 5, 12, 3, arm="canary", created=0.0))
    counts = only(tracker.tick(15, 50).canary)
    assert (counts.requests, counts.errors) == (12, 3)


def test_the_first_failure_of_a_known_pod_counts_although_its_series_is_new():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 100), scrape("s1", 16, 140, 1))
    assert only(tracker.tick(30, 50).stable).errors == 1


def test_a_late_born_series_that_rose_by_more_than_the_requests_was_only_not_seen_before():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 100_000), scrape("s1", 16, 100_040, 700), scrape("s1", 31, 100_080, 701))
    assert only(tracker.tick(45, 50).stable).errors == 1


def test_a_counter_that_falls_was_reset_and_counts_from_zero():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 1000, 10))
    tracker.tick(15, 50)
    feed(tracker, scrape("s1", 16, 30, 2))
    counts = only(tracker.tick(30, 50).stable)
    assert (counts.requests, counts.errors) == (30, 2)
    assert tracker.resets == {"canary": 0, "stable": 1}


def test_errors_that_overtook_their_old_value_after_a_reset_are_all_counted():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 1000, 1), scrape("s1", 16, 30, 3))
    assert only(tracker.tick(30, 50).stable).errors == 3


def test_a_pod_of_the_same_name_that_was_created_anew_counts_from_zero_even_above_its_old_value():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 10, 1, created=-50.0), scrape("s1", 16, 40, 9, created=8.0))
    counts = only(tracker.tick(30, 50).stable)
    assert (counts.requests, counts.errors) == (40, 9)


def test_a_lost_scrape_loses_nothing_and_its_increase_says_how_many_ticks_it_covers():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 0, 0), scrape("s2", 2, 0, 0))
    tracker.tick(15, 50)
    feed(tracker, scrape("s2", 17, 10, 0))
    assert [pod.pod for pod in tracker.tick(30, 50).stable] == ["s2"]
    feed(tracker, scrape("s1", 31, 80, 4), scrape("s2", 32, 20, 0))
    first, second = tracker.tick(45, 50).stable
    assert (first.requests, first.errors, first.span) == (80, 4, 2)
    assert (second.requests, second.span) == (10, 1)


def test_while_nobody_was_scraped_no_tick_passes():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 0, 0))
    tracker.tick(15, 50)
    for at in range(30, 300, 15):
        assert tracker.tick(at, 50).stable == ()
    feed(tracker, scrape("s1", 301, 500, 1))
    assert only(tracker.tick(315, 50).stable).span == 1


def test_a_sample_that_comes_late_is_ignored_since_the_newer_one_holds_its_increase():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 0, 0), scrape("s1", 31, 80, 4), scrape("s1", 16, 40, 1, arrival=33))
    counts = only(tracker.tick(45, 50).stable)
    assert (counts.requests, counts.errors) == (80, 4)
    assert tracker.ignored == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_what_is_no_count_is_dropped_with_all_of_its_scrape(value):
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 0, 0), scrape("s1", 16, value, 5))
    assert only(tracker.tick(30, 50).stable).errors == 0
    feed(tracker, scrape("s1", 31, 90, 6))
    counts = only(tracker.tick(45, 50).stable)
    assert (counts.requests, counts.errors) == (90, 6)
    assert tracker.dropped == 1


def test_lines_of_one_scrape_that_a_tick_tears_apart_are_counted_together_or_one_after_the_other():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 0, 0))
    tracker.tick(15, 50)
    tracker.add(RawSample(16, "stable", "s1", "requests", 50))
    assert only(tracker.tick(30, 50).stable).requests == 50
    tracker.add(RawSample(16, "stable", "s1", "errors", 3))
    assert only(tracker.tick(45, 50).stable).errors == 3


def histogram(pod, ts, cumulative, *, arm="stable", created=None):
    for le, value in cumulative.items():
        yield RawSample(ts, arm, pod, "latency_bucket", value, le, created)


def test_buckets_become_requests_above_each_edge():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 0), histogram("s1", 1, {0.1: 0, 0.5: 0, math.inf: 0}))
    feed(tracker, scrape("s1", 16, 10), histogram("s1", 16, {0.1: 6, 0.5: 9, math.inf: 10}))
    counts = only(tracker.tick(30, 50).stable)
    assert counts.slow == {0.1: 4, 0.5: 1}
    assert counts.timed == 10


def test_a_scrape_with_a_part_of_the_buckets_is_left_to_the_next_one():
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 1, 0), histogram("s1", 1, {0.1: 0, 0.5: 0, math.inf: 0}))
    tracker.tick(15, 50)
    feed(tracker, scrape("s1", 16, 10), histogram("s1", 16, {0.1: 6, math.inf: 10}))
    assert only(tracker.tick(30, 50).stable).slow == {}
    feed(tracker, scrape("s1", 31, 20), histogram("s1", 31, {0.1: 12, 0.5: 19, math.inf: 20}))
    assert only(tracker.tick(45, 50).stable).slow == {0.1: 8, 0.5: 1}


def test_the_latency_of_a_new_pod_is_left_out_while_it_warms_up_and_its_errors_are_not():
    tracker = CounterTracker(warm_up=60.0, began=0.0)
    for at in range(5, 125, 15):
        feed(tracker, scrape("c1", at, at, at, arm="canary", created=2.0))
        feed(tracker, histogram("c1", at, {0.1: 0, math.inf: at}, arm="canary", created=2.0))
        counts = only(tracker.tick(at + 5, 50).canary)
        assert counts.errors > 0
        assert bool(counts.slow) == (at - 2 >= 60)


def test_queries_return_the_last_value_again_so_an_unchanged_pod_was_not_scraped():
    tracker = CounterTracker(began=0.0, scrape_times=False)
    feed(tracker, scrape("s1", 10, 100, 0))
    tracker.tick(10, 50)
    feed(tracker, scrape("s1", 20, 100, 0))
    assert tracker.tick(20, 50).stable == ()
    feed(tracker, scrape("s1", 30, 120, 1))
    counts = only(tracker.tick(30, 50).stable)
    assert (counts.requests, counts.scraped_at) == (20, None)


def test_gauges_are_the_latest_values_and_vanish_with_their_pod():
    tracker = CounterTracker(interval=15.0, began=0.0)
    tracker.add(RawSample(1, "stable", "s1", "gauge:memory", 5.0))
    tracker.add(RawSample(9, "stable", "s1", "gauge:memory", 6.0))
    assert tracker.tick(15, 50).gauges == {"memory": {"canary": {}, "stable": {"s1": 6.0}}}
    assert tracker.tick(75, 50).gauges == {}


def test_a_version_that_is_not_scraped_any_more_makes_the_tick_incomplete():
    tracker = CounterTracker(began=0.0)
    for at in range(1, 60, 15):
        feed(tracker, scrape("s1", at, at), scrape("c1", at, at, arm="canary"))
        assert tracker.tick(at + 14, 50).complete
    for at in range(61, 121, 15):
        feed(tracker, scrape("s1", at, at))
        last = tracker.tick(at + 14, 50)
    assert not last.complete
    assert tracker.tick(121, 0).complete  # it should not be serving


def test_pods_that_are_scraped_seldom_are_not_missing_in_between():
    tracker = CounterTracker(began=0.0)
    for at in range(15, 900, 15):
        if at % 60 == 0:
            feed(tracker, scrape("s1", at, at))
        assert tracker.tick(at, 50).complete


def test_a_series_nobody_knows_is_refused_by_name():
    with pytest.raises(ValueError, match="'reqs'"):
        CounterTracker().add(RawSample(1, "stable", "s1", "reqs", 5.0))


life = st.lists(
    st.tuples(
        st.integers(0, 50),  # requests since the scrape before
        st.integers(0, 50),  # errors among them, at most
        st.sampled_from(["scraped", "scraped", "scraped", "lost", "late", "reset"]),
        st.booleans(),  # a tick follows
    ),
    max_size=60,
)


@given(life)
def test_nothing_is_counted_twice_or_negative_and_only_what_a_reset_hid_is_lost(events):
    tracker = CounterTracker(began=0.0)
    feed(tracker, scrape("s1", 0.5, 0, 0))
    requests = errors = 0  # the pod's own counters
    seen = served = failed = hidden = 0
    held: list[RawSample] = []
    got: list[PodCounts] = []
    for number, (more, bad, fate, tick) in enumerate(events, 1):
        requests, errors = requests + more, errors + min(bad, more)
        served, failed = served + more, failed + min(bad, more)
        samples = list(scrape("s1", number, requests, errors))
        if fate == "scraped":
            feed(tracker, samples, held)
            held, seen = [], number
        elif fate == "late":
            held += samples
        if fate == "reset":  # what nobody scraped before the container died is gone
            requests = errors = 0
            hidden += 1
        if tick:
            got += tracker.tick(number, 50).stable
    got += tracker.tick(len(events) + 1, 50).stable
    assert all(pod.requests >= 0 and pod.errors >= 0 and pod.span >= 1 for pod in got)
    assert sum(pod.requests for pod in got) <= served
    assert sum(pod.errors for pod in got) <= failed
    if not hidden and seen == len(events):
        assert sum(pod.requests for pod in got) == served
        assert sum(pod.errors for pod in got) == failed
