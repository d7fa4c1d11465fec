"""The canary against the service's own past: quiet for noise, season and shared incidents, awake for what is new."""

import json
import math
import random

import pytest

from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.history import HistoryTest
from canary_rollout.analysis.robust import median, slope, spread
from canary_rollout.analysis.sequential import PodCounts, Policy, State, Tick
from canary_rollout.analysis.usual import Baseline, baseline, sigmas
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.model.measures import Action

START = 1_800_000_000.0 - 1_800_000_000.0 % 86_400
TICK = 15.0
HOUR = 3600.0


def poisson(rng, mean):
    if mean > 30:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    product, count, limit = rng.random(), 0, math.exp(-mean)
    while product > limit:
        product, count = product * rng.random(), count + 1
    return count


class Service:
    """Counts per tick of ten stable pods and one of the canary."""

    def __init__(self, seed=1, rps=50.0, rate=0.001, slow=0.05, season=0.0):
        self.rng = random.Random(seed)
        self.rps, self.rate, self.slow, self.season = rps, rate, slow, season

    def pod(self, name, requests, rate, slow):
        requests = poisson(self.rng, requests)
        errors, late = (min(requests, poisson(self.rng, requests * share)) for share in (rate, slow))
        return PodCounts(name, requests, errors, {0.25: late, 0.5: late / 10, math.inf: 0})

    def tick(self, at, weight=0, rate=None, slow=None, gauge=None, seconds=TICK):
        wave = 1 + self.season * math.sin(2 * math.pi * at / 86_400)
        usual, late = self.rate * wave, self.slow * wave
        each = seconds * self.rps * (1 - weight / 10_000) / 10
        stable = tuple(self.pod(f"s{number}", each, usual, late) for number in range(10)) if weight < 10_000 else ()
        canary = ()
        if weight:
            share = seconds * self.rps * weight / 10_000
            canary = (self.pod("c0", share, usual if rate is None else rate, late if slow is None else slow),)
        gauges = {}
        if gauge is not None:
            pods = {f"s{number}": 100 * math.exp(self.rng.gauss(0, 0.03)) for number in range(10)}
            gauges["queue"] = {"stable": pods if weight < 10_000 else {}, "canary": {"c0": gauge} if weight else {}}
        return Tick(at, weight, canary, stable, gauges)


def learned(service, hours=6.0, policy=None, gauge=None, step=60.0):
    test = HistoryTest(policy or Policy())
    for number in range(int(hours * HOUR / step)):
        test.past(service.tick(START - hours * HOUR + number * step, gauge=gauge, seconds=step))
    return test


def run(test, service, weight, seconds=HOUR, begin=START, **kind):
    return [test.step(service.tick(begin + number * TICK, weight, **kind)) for number in range(int(seconds / TICK))]


def failed(said):
    return sorted({verdict.rule for verdicts in said for verdict in verdicts if verdict.outcome is Outcome.FAIL})


@pytest.mark.thorough
@pytest.mark.parametrize("weight", [50, 500, 2500, 10_000])
@pytest.mark.parametrize("rps", [50.0, 2000.0])
def test_a_healthy_canary_is_like_the_past(rps, weight):
    for seed in range(3):
        service = Service(seed, rps)
        assert failed(run(learned(service, 3), service, weight)) == []


def test_at_the_full_weight_more_errors_than_ever_alert_and_do_no_more():
    service = Service(2)
    said = run(learned(service, policy=Policy(history=Action.ROLLBACK)), service, 10_000, 900, rate=0.02)
    assert failed(said) == ["history-comparison:errors"]
    last = next(verdict for verdict in said[-1] if verdict.rule == "history-comparison:errors")
    assert (last.state, last.action, last.stable) == (State.BAD, Action.ALERT, None)
    assert "of the canary's requests failed in the last 5 minutes; stable gets no traffic, and 0." in last.message


def test_beside_stable_a_fail_does_what_the_policy_says():
    service = Service(3, 2000)
    said = run(learned(service, policy=Policy(history=Action.PAUSE)), service, 2500, 900, rate=0.02)
    assert failed(said) == ["history-comparison:errors"]
    assert {verdict.action for verdict in said[-1]} == {Action.PAUSE}


def test_slow_requests_are_found_at_the_edge_that_tells_most():
    service = Service(4, 2000)
    test = learned(service)
    assert test.export()["edge"] == 0.25
    said = run(test, service, 2500, 900, slow=0.2)
    assert failed(said) == ["history-comparison:latency"]
    assert "took longer than 0.25 s" in " ".join(verdict.message for verdict in said[-1])


def test_a_gauge_far_from_its_past_is_found():
    service = Service(5)
    test = learned(service, gauge=100.0)
    assert failed(run(test, service, 10_000, 900, gauge=100.0)) == []
    assert failed(run(test, service, 10_000, 900, begin=START + 900, gauge=180.0)) == ["history-comparison:queue"]


def test_an_incident_of_both_versions_is_not_the_canarys():
    service = Service(6, 2000)
    test = learned(service)
    service.rate = 0.05
    assert failed(run(test, service, 2500)) == []


def test_a_past_that_is_given_twice_counts_once():
    service, policy = Service(1), Policy()
    ticks = [service.tick(START - 7200 + number * 60, seconds=60) for number in range(120)]
    once, twice = HistoryTest(policy), HistoryTest(policy)
    for tick in ticks:
        once.past(tick)
    for tick in ticks * 2:
        twice.past(tick)
    assert twice.export() == once.export()


def test_a_season_is_inside_the_scale():
    service = Service(7, 2000, season=0.6)
    assert failed(run(learned(service, 24), service, 10_000, 4 * HOUR)) == []


def test_the_same_hour_of_three_days_is_what_is_usual():
    service = Service(8, 50, season=0.9)
    test = learned(service, 72)
    usual = test.export()["usual"]["latency"]
    assert len(usual) == 25
    assert usual["6"][0] > 5 * usual["18"][0]  # the top and the bottom of the wave


def test_without_a_past_there_is_no_verdict():
    service = Service(9)
    assert run(learned(service, 0.5), service, 10_000, 900, rate=0.5)[-1] == ()


def test_a_handful_of_errors_is_no_news():
    service = Service(10, 50)
    assert failed(run(learned(service, 2), service, 50, 2 * HOUR, rate=0.004)) == []


@pytest.mark.parametrize("rps", [500.0, 2000.0])
def test_a_canary_within_the_tolerance_is_let_go_on(rps):
    service = Service(12, rps, rate=0.02)
    assert failed(run(learned(service, 6), service, 2500, HOUR, rate=0.024)) == []


class Bursts(Service):
    """A service whose errors come ten to fifty at a time."""

    def pod(self, name, requests, rate, slow):
        many = sum(self.rng.randint(10, 50) for _ in range(poisson(self.rng, requests * rate / 30)))
        return PodCounts(name, poisson(self.rng, requests) + many, many)


@pytest.mark.thorough
def test_bursts_that_meet_by_chance_are_no_news():
    fails = 0
    for seed in range(12):
        service = Bursts(seed, 500.0, rate=0.02)
        fails += bool(failed(run(learned(service, 6), service, 50, 4 * HOUR)))
    assert fails == 0


def test_bursts_all_the_time_are_found():
    service = Bursts(1, 500.0)
    assert failed(run(learned(service, 6), service, 2500, 900, rate=0.05)) == ["history-comparison:errors"]


def test_switched_off_it_says_nothing():
    service = Service(11)
    assert run(learned(service, 2, Policy(history=None)), service, 10_000, 900, rate=0.5)[-1] == ()


def test_a_restart_changes_nothing():
    service = Service(12, 2000)
    test = learned(service, 30, gauge=100.0)
    raw = json.loads(json.dumps(test.export()))
    ticks = [service.tick(START + number * TICK, 2500, rate=0.003, gauge=120.0) for number in range(300)]
    said = [test.step(tick) for tick in ticks]
    again = HistoryTest(Policy(), raw)
    for number in range(200 - int(again.lookback / TICK), 300):
        verdicts = again.step(ticks[number])
        if number >= 200:
            assert verdicts == said[number], number


@pytest.mark.parametrize(
    "raw", [{"edge": None}, {"edge": "x", "usual": {}}, {"edge": None, "usual": {"errors": {"all": [1]}}}]
)
def test_a_past_somebody_else_wrote_is_refused(raw):
    with pytest.raises(EvidenceError, match="cannot be read"):
        HistoryTest(Policy(), raw)


def noises(kind, seed):
    """A day of a healthy metric at 15 s: the four noise models of the analysis method's table 8."""
    rng, state = random.Random(seed), 0.0
    for number in range(30 * 240):
        if kind == "gauss":
            value = rng.gauss(0, 1)
        elif kind == "t3":
            value = rng.gauss(0, 1) / math.sqrt(sum(rng.gauss(0, 1) ** 2 for _ in range(3)) / 3)
        else:
            state = value = 0.9 * state + rng.gauss(0, math.sqrt(1 - 0.81))
            if kind == "season":
                value += math.sin(2 * math.pi * number / 960)
        yield value


@pytest.mark.parametrize("kind", ["gauss", "t3", "ar", "season"])
def test_five_minute_medians_at_four_units_hardly_ever_alarm(kind):
    """Where three sigma at each tick alarms in 7 to 81 % of hours (analysis method, table 8)."""
    hours = alarms = naive = 0
    for seed in range(6):
        values = list(noises(kind, seed))
        medians = [median(values[at : at + 20]) for at in range(0, 24 * 240, 20)]
        usual = baseline(medians)
        for hour in range(24, 30):
            hours += 1
            ticks = range(hour * 240, (hour + 1) * 240)
            alarms += any(sigmas(median(values[at - 19 : at + 1]), usual) > 4 for at in ticks)
            naive += any(values[at] > 3 for at in ticks)
    assert alarms <= 2, (alarms, hours)
    if kind in {"gauss", "t3"}:
        assert naive >= 5


def test_sigmas_of_what_never_moved():
    still = Baseline(1.0, 0.0)
    assert sigmas(1.0, still) == 0
    assert sigmas(1.1, still) == math.inf
    assert sigmas(1.1, still, least=0.05) == pytest.approx(2)


def test_half_of_the_values_may_be_wild():
    assert median([1, 2, 3, 1e9, 1e12]) == 3
    assert spread([1, 2, 3, 4, 1e9]) == pytest.approx(1.4826)
    assert slope([(0, 0), (1, 2), (2, 4), (3, 1e6), (4, 8)]) == 2


@pytest.mark.parametrize(
    "broken", [lambda: median([]), lambda: baseline([]), lambda: slope([(1, 1)]), lambda: slope([(1, 1), (1, 2)])]
)
def test_statistics_of_nothing_are_refused(broken):
    with pytest.raises(ValueError, match="give"):
        broken()
