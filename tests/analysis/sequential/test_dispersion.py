"""The burst size, estimated from stable's pods."""

import numpy as np
import pytest

from canary_rollout.analysis.sequential import PodCounts
from canary_rollout.analysis.sequential.dispersion import Dispersion

POD = PodCounts("s0", 1000, 1)


def estimate(blocks):
    spread = Dispersion()
    for pods in blocks:
        spread.add(
            [
                (PodCounts(f"s{number}", requests, errors), requests, errors)
                for number, (requests, errors) in enumerate(pods)
            ]
        )
        spread.close()
    return spread.phi


def bursts(rng, size, pods=10, blocks=400):
    for _ in range(blocks):
        yield [(3000, size * rng.poisson(3 / size)) for _ in range(pods)]


def test_before_anything_is_known_errors_are_believed_to_come_in_tens():
    assert Dispersion().phi == 10.0


def test_independent_errors_have_a_dispersion_of_one_soon():
    assert estimate(bursts(np.random.default_rng(1), 1)) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("size", [5, 30])
def test_bursts_of_a_size_have_that_dispersion(size):
    assert estimate(bursts(np.random.default_rng(2), size)) == pytest.approx(max(size, 1.2 * size - 1), rel=0.25)


def test_an_outage_that_all_pods_share_cancels_out():
    rng = np.random.default_rng(3)
    calm = [[(3000, rng.poisson(3)) for _ in range(10)] for _ in range(200)]
    outage = [[(3000, rng.poisson(600)) for _ in range(10)] for _ in range(3)]
    assert estimate(calm + outage) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("requests", [300, 12_000])
def test_outages_that_all_pods_share_do_not_hide_bursts(requests):
    """Ten thousand errors of a shared outage against a few dozen in bursts of thirty."""
    rng = np.random.default_rng(7)
    blocks = [[(requests, 30 * rng.poisson(requests / 30_000)) for _ in range(10)] for _ in range(360)]
    for where in range(0, 360, 30):
        blocks[where] = [(requests, rng.poisson(requests / 12) + bad) for _, bad in blocks[where]]
    assert 15 <= estimate(blocks) <= 40


def test_pods_with_unequal_traffic_are_no_bursts():
    rng = np.random.default_rng(4)
    rates = [300, 600, 1200, 6000, 12000]
    assert estimate([[(n, rng.poisson(n / 1000)) for n in rates] for _ in range(300)]) == pytest.approx(1.0, abs=0.2)


def test_a_single_pod_is_held_against_its_own_past():
    rng = np.random.default_rng(5)
    assert estimate([[(3000, rng.poisson(3))] for _ in range(300)]) == pytest.approx(1.0, abs=0.3)
    assert estimate([[(3000, 30 * rng.poisson(0.1))] for _ in range(300)]) == pytest.approx(35, rel=0.4)


def test_an_outage_of_a_single_pod_does_not_raise_the_bar_beyond_all_reach():
    assert estimate([[(3000, 3)]] * 50 + [[(30_000, 15_000)]] + [[(3000, 3)]] * 50) < 240


def test_a_tick_with_an_outage_is_no_calm_one():
    spread = Dispersion()
    for _ in range(20):
        assert spread.add([(POD, 1000, 1)])
    assert not spread.add([(POD, 1000, 300)])


def test_what_was_written_down_is_the_same_estimate():
    spread = Dispersion()
    for pods in bursts(np.random.default_rng(6), 12, blocks=50):
        spread.add([(PodCounts(str(number), *pair), *pair) for number, pair in enumerate(pods)])
        spread.close()
    assert Dispersion.restore(spread.state()).phi == spread.phi


def test_a_tick_without_a_pods_scrape_is_no_calm_one_either():
    spread = Dispersion()
    both = [(POD, 1000, 1), (PodCounts("s1", 1000, 1), 1000, 1)]
    assert spread.add(both)
    assert not spread.add(both[:1])
    assert spread.add(both)


def lasting(rng, seconds, *, outages=0, rate=0.001, size=30):
    """Whether bursts are seen to last: ten pods of 50 requests a second, six hours, bursts of ``size`` over ``seconds``."""
    ticks, pods, per_tick = 1440, 10, 750.0
    errors = np.zeros((ticks, pods))
    for pod in range(pods):
        for at in rng.uniform(0, ticks, rng.poisson(ticks * per_tick * rate / size)):
            where = np.minimum((at + rng.uniform(0, seconds / 15, size)).astype(int), ticks - 1)
            np.add.at(errors[:, pod], where, 1)
    for at in rng.integers(1, ticks, outages):  # pods are scraped at different moments: some show it a tick later
        seen = rng.uniform(0, 1, pods)
        errors[at] += 300 * seen
        errors[at - 1] += 300 * (1 - seen)
    spread = Dispersion()
    for number, row in enumerate(errors):
        counts = [PodCounts(f"s{pod}", per_tick, float(bad)) for pod, bad in enumerate(row)]
        spread.follow(counts)
        spread.add([(pod, pod.requests, pod.errors) for pod in counts])
        if number % 4 == 3:
            spread.close()
    return spread.lasting


@pytest.mark.parametrize("outages", [0, 12])
@pytest.mark.parametrize(("seconds", "expected"), [(0.1, False), (4, False), (45, True), (90, True)])
def test_bursts_that_go_on_into_the_next_ticks_are_told_from_those_that_do_not(seconds, expected, outages):
    assert [lasting(np.random.default_rng(seed), seconds, outages=outages) for seed in range(4)] == [expected] * 4


@pytest.mark.thorough
def test_independent_errors_do_not_last_however_many():
    assert not lasting(np.random.default_rng(5), 0.0, rate=0.02, size=1)


def test_whether_bursts_last_is_in_what_is_written_down():
    spread = Dispersion()
    for number in range(8):
        pods = [PodCounts(f"s{pod}", 500, 20.0 * (pod == number // 4)) for pod in range(3)]
        spread.follow(pods)
        spread.add([(pod, pod.requests, pod.errors) for pod in pods])
    spread.close()
    assert spread.lasting
    assert Dispersion.restore(spread.state()).lasting
    assert not Dispersion.restore(spread.state()[:10]).lasting  # of a version that did not know
