"""The peers' rules, as the benchmark has them, behave as the analysis method's tables say: so the comparison is fair.

Tables 1 and 2 there were drawn by another simulation (5 s bins, no scrapes); what must agree is the order of magnitude.
"""

from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from analysis_peers import RULES, STEP, flagger, high
from analysis_scenarios import HOUR, SCENARIOS, Scenario, select
from analysis_scrapes import EDGES, Weight, line, simulate

pytestmark = [pytest.mark.thorough]

FLAGGER, QUICK, ARGO = "Flagger 60 s, 5 failed", "Flagger 10 s, 5 failed", "Argo 60 s, failureLimit 3"
ALERT, AVERAGE, KAYENTA = "alert >1 % for 5 m", "5 m average >1 %", "Kayenta, 60 x 1 m"
TWICE, WINDOW, PEEKED = ">2x stable, n>=100", ">2x stable, n>=100, 5 m", "z-test 1 %, peeked"


def stage(rps, weight, **kind):
    return Scenario("stage", rps, ((weight, HOUR),), history=0.0, lost=0.0, **kind)


def rollbacks(scenario, hours=60):
    """By rule, when it rolled back in each of so many stage-hours."""
    out = {rule: [] for rule in RULES}
    for seed in range(hours):
        seen = simulate(scenario, seed).seen(STEP)
        for name, rule in RULES.items():
            out[name].append(rule(seen, scenario.stages))
    return out


def per_cent(times):
    return 100 * sum(at is not None for at in times) / len(times)


def middle(times):
    return median(at if at is not None else 1e9 for at in times)


# Healthy, 50 rps at 0.5 % (table 1, first column): what the rule rolls back there, in per cent, and how far we may be off.
TABLE_1 = {
    FLAGGER: 0.1,
    QUICK: 57.8,
    ARGO: 1.0,
    ALERT: 0,
    AVERAGE: 58.2,
    TWICE: 42.3,
    WINDOW: 1.7,
    PEEKED: 16.8,
    KAYENTA: 0,
}


def test_healthy_stage_hours_at_a_small_share_are_rolled_back_as_often_as_in_the_table():
    found = rollbacks(stage(50, 50), 100)
    for rule, expected in TABLE_1.items():
        assert per_cent(found[rule]) == pytest.approx(expected, abs=16), rule


def test_a_service_that_fails_two_per_cent_on_both_versions_is_always_rolled_back_by_absolute_thresholds():
    found = rollbacks(stage(50, 2500, error_rate=0.02), 20)
    assert [per_cent(found[rule]) for rule in (FLAGGER, QUICK, ARGO, ALERT, AVERAGE)] == [100] * 5
    assert per_cent(found[TWICE]) < 60


def test_bursts_and_harmless_ratios_do_to_the_peers_what_the_table_says():
    bursty = rollbacks(stage(2000, 2500, bursts="sticky"), 30)
    assert per_cent(bursty[PEEKED]) > 60
    assert per_cent(bursty[ALERT]) == 0
    benign = rollbacks(stage(2000, 2500, worse=1.2), 20)
    assert per_cent(benign[PEEKED]) == 100
    assert per_cent(benign[FLAGGER]) == 0


# Broken (table 2): rps, weight, error rate -> median seconds by rule.
TABLE_2 = [
    (50, 50, 0.05, {FLAGGER: 600, QUICK: 110, ARGO: 420, TWICE: 405}),
    (50, 500, 0.01, {FLAGGER: 720, QUICK: 130, ARGO: 480, TWICE: 45}),
    (2000, 2500, 0.01, {FLAGGER: 600, QUICK: 100, ARGO: 420, TWICE: 15, KAYENTA: 3600}),
    (2000, 50, 1.0, {FLAGGER: 360, QUICK: 60, ARGO: 240, ALERT: 315, TWICE: 15, KAYENTA: 3600}),
]


@pytest.mark.parametrize(("rps", "weight", "rate", "expected"), TABLE_2)
def test_broken_canaries_are_found_as_fast_as_in_the_table(rps, weight, rate, expected):
    found = rollbacks(stage(rps, weight, broken_rate=rate), 30)
    for rule, seconds in expected.items():
        assert 0.6 * seconds - 30 <= middle(found[rule]) <= 1.6 * seconds + 30, rule


def test_thresholds_miss_what_the_table_says_they_miss():
    found = rollbacks(stage(50, 50, broken_rate=0.05), 60)
    assert per_cent(found[ALERT]) == pytest.approx(15, abs=12)
    assert per_cent(found[KAYENTA]) <= 20
    slight = rollbacks(stage(2000, 2500, broken_rate=0.005), 20)
    assert per_cent(slight[FLAGGER]) == 0


def test_no_value_is_a_failed_check_for_flagger():
    """`ErrNoValuesFound` counts: five minutes without a request roll back a healthy canary."""
    rows = int(HOUR / STEP) + 1
    nothing = {f"{arm} {key}": np.zeros(rows) for arm in ("canary", "stable") for key in "ne"}
    assert flagger(nothing, ((50, HOUR),)) == 360
    assert flagger(nothing, ((50, HOUR),), 10.0) == 60


def test_failed_checks_are_counted_over_the_whole_rollout():
    rows = int(HOUR / STEP) + 1
    requests = np.arange(rows) * 10.0
    errors = np.cumsum((np.arange(rows) % 120 == 60) * 20.0)  # one bad minute in ten
    seen = {"canary n": requests, "canary e": errors, "stable n": requests, "stable e": errors}
    assert flagger(seen, ((50, HOUR),)) == pytest.approx(2760, abs=120)


def test_kayenta_passes_sparse_errors_and_calls_a_clear_shift_high():
    """Its own tracker's case (#426): control 0, canary 0, 1, 2, 1, 0, 0 passes; and what nobody would pass."""
    assert not high(np.array([0.0, 1, 2, 1, 0, 0]), np.zeros(6))
    assert high(np.arange(60.0) + 200, np.arange(60.0))
    assert not high(np.arange(60.0), np.arange(60.0))
    assert not high(np.array([]), np.arange(60.0))


def test_the_same_seed_gives_the_same_samples():
    scenario = replace(SCENARIOS["restarts-50"], history=600.0, stages=((500, 600.0),))
    first, again, other = (list(simulate(scenario, seed).events()) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_samples_are_what_prometheus_would_have_scraped():
    scenario = replace(SCENARIOS["independent-50"], history=1800.0, stages=((2500, 1800.0),), restarts=4.0, lost=0.05)
    scrapes = simulate(scenario, 3)
    last, resets, first_errors = {}, 0, []
    for event in scrapes.events():
        if isinstance(event, Weight):
            assert (event.ts, event.weight) == (0.0, 2500)
            continue
        key = (event.pod, event.series)
        assert event.arrival >= event.ts
        if key not in last and event.series == "errors":
            first_errors.append(event.value)
        elif event.value < last.get(key, 0):
            resets += 1
        last[key] = event.value
        assert set(line(event)) >= {"ts", "arrival", "arm", "pod", "series", "value", "created"}
    assert resets > 10
    assert min(first_errors) >= 1, "the first failure is what creates the series"


def test_histograms_are_cumulative_and_end_with_all_requests():
    scenario = replace(SCENARIOS["latency-50-25-x2"], history=300.0, stages=((2500, 300.0),), lost=0.0)
    by_scrape = {}
    for event in simulate(scenario, 1).events():
        if not isinstance(event, Weight) and event.series in {"latency_bucket", "requests"}:
            by_scrape.setdefault((event.pod, event.ts), {})[event.le] = event.value
    for values in by_scrape.values():
        requests = values.pop(None)
        counts = [values[edge] for edge in EDGES]
        assert counts == sorted(counts)
        assert counts[-1] == requests


def test_scenarios_are_chosen_by_name_beginning_and_group():
    assert [scenario.name for scenario in select(["batch-50"])] == ["batch-50"]
    assert all(scenario.name.startswith("late-") for scenario in select(["late-"]))
    assert {scenario.group for scenario in select(["odd"])} == {"odd"}
    with pytest.raises(SystemExit, match="no scenario or group is called 'nonsense'"):
        select(["nonsense"])
