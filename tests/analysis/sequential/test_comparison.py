"""Ticks to verdicts: each row of the table of states, and what a fail says."""

from dataclasses import replace

import numpy as np
import pytest
from arms import Arms

from canary_rollout.analysis.sequential import Comparison, PodCounts, Policy, PolicyError, State, Test, Tick
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.model.measures import Action

DEFAULT = Policy()


def pods(name, requests, errors, count=1, **more):
    return tuple(PodCounts(f"{name}{n}", requests / count, errors / count, **more) for n in range(count))


def tick(number, n1, e1, n2, e2, weight=500, **more):
    return Tick(15.0 * number, weight, pods("c", n1, e1), pods("s", n2, e2, 10), **more)


def of(verdicts, rule=Test.ERRORS):
    return next(verdict for verdict in verdicts if verdict.rule == rule)


def with_history(policy=DEFAULT, seed=1, **service):
    comparison = Comparison(policy)
    for past in Arms(**service).past(np.random.default_rng(seed), 7200):
        comparison.history(past)
    return comparison


def test_a_failing_canary_fails_on_the_tick_after_its_errors_were_seen_and_says_how_bad_it_is():
    comparison = with_history()
    assert of(comparison.step(tick(1, 38, 19, 712, 1))).outcome is Outcome.NONE
    verdict = of(comparison.step(tick(2, 38, 19, 712, 1)))
    assert (verdict.outcome, verdict.state, verdict.action) == (Outcome.FAIL, State.BAD, Action.ROLLBACK)
    assert verdict.message.startswith(
        "canary 19 of 76 requests failed, stable 2 of 1,424: at 1 % false-alarm risk the canary"
    )
    assert verdict.worse_by is not None
    assert 2 < verdict.worse_by < (19 / 76) / (2 / 1424)


def test_it_need_not_wait_where_stable_was_scraped_later_and_shows_nothing():
    comparison = with_history()
    canary = (PodCounts("c0", 38, 19, scraped_at=4.0),)
    stable = tuple(PodCounts(f"s{n}", 71, 0, scraped_at=1.5 * n) for n in range(10))
    assert of(comparison.step(Tick(15.0, 500, canary, stable))).outcome is Outcome.FAIL


def test_it_waits_where_stable_was_scraped_earlier_and_for_an_outage_that_stable_shows_a_tick_later():
    comparison = with_history()
    early = tuple(PodCounts(f"s{n}", 71, 0, scraped_at=0.5 * n) for n in range(10))
    assert (
        of(comparison.step(Tick(15.0, 500, (PodCounts("c0", 38, 19, scraped_at=14.0),), early))).outcome is Outcome.NONE
    )
    late = tuple(PodCounts(f"s{n}", 71, 35, scraped_at=15 + 0.5 * n) for n in range(10))
    for number in range(2, 5):
        at = 15.0 * number
        verdict = of(comparison.step(Tick(at, 500, (PodCounts("c0", 38, 19, scraped_at=at - 1),), late)))
        assert verdict.outcome is not Outcome.FAIL


def test_two_errors_are_never_enough():
    comparison = Comparison(Policy(false_rollback_rate=0.5))
    for number in range(1, 6):
        assert of(comparison.step(tick(number, 2, 1 if number < 3 else 0, 90_000, 0))).outcome is not Outcome.FAIL


def test_a_difference_that_does_not_matter_is_none():
    """One in 10,000 against one in 100,000 is ten times worse and still nobody's problem."""
    comparison = with_history(stable_rate=0.00001, rps=20_000)
    for number in range(1, 60):
        verdict = of(comparison.step(tick(number, 75_000, 7, 225_000, 2, weight=2500)))
    assert verdict.outcome is not Outcome.FAIL


def test_a_fail_stays_a_fail():
    comparison = with_history()
    for number in range(1, 4):
        comparison.step(tick(number, 38, 38, 712, 1))
    first = of(comparison.step(tick(4, 38, 0, 712, 1)))
    assert first.outcome is Outcome.FAIL
    for number in range(5, 300):
        assert of(comparison.step(tick(number, 38, 0, 712, 1))) == first


def test_few_requests_are_said_and_do_not_promote():
    comparison = Comparison(Policy())
    verdict = of(comparison.step(tick(1, 42, 0, 800, 1)))
    assert (verdict.outcome, verdict.state) == (Outcome.NONE, State.NOT_ENOUGH)
    assert "42 of the 100 requests" in verdict.message
    assert not comparison.gate().promote


def test_enough_good_requests_pass_and_promote():
    comparison = Comparison(Policy())
    for number in range(1, 5):
        verdict = of(comparison.step(tick(number, 100, 0, 1900, 2)))
    assert (verdict.outcome, verdict.state) == (Outcome.PASS, State.OK)
    gate = comparison.gate()
    assert gate.promote
    assert gate.upper_error_rate == pytest.approx(1 - 0.01 ** (1 / 400))


def test_the_requests_of_the_stage_before_do_not_count_for_this_one():
    comparison = Comparison(Policy())
    comparison.step(tick(1, 500, 0, 1900, 2))
    assert comparison.gate().promote
    comparison.step(tick(2, 20, 0, 1900, 2, weight=2500))
    assert not comparison.gate().promote


def test_certify_waits_until_the_rate_is_excluded():
    comparison = Comparison(Policy(certify=0.01))
    comparison.step(tick(1, 400, 0, 1900, 2))
    held = comparison.gate()
    assert not held.promote
    assert "1 % is to be certified" in held.message
    comparison.step(tick(2, 100, 0, 1900, 2))
    assert comparison.gate().promote


def test_a_suspicion_holds_the_promotion_before_it_is_enough_to_fail():
    comparison = with_history(rps=2000)
    states = []
    for number in range(1, 12):
        verdict = of(comparison.step(tick(number, 1000, 3, 9000, 9, weight=1000)))
        states.append(verdict.state)
        if verdict.state is State.SUSPECT:
            assert not comparison.gate().promote
    assert State.SUSPECT in states


def test_no_data_freezes_the_evidence_and_holds():
    comparison = Comparison(Policy())
    for number in range(1, 5):
        comparison.step(tick(number, 100, 0, 1900, 2))
    verdict = of(comparison.step(Tick(75.0, 500, complete=False)))
    assert (verdict.outcome, verdict.state) == (Outcome.NONE, State.NO_DATA)
    assert not comparison.gate().promote
    assert of(comparison.step(tick(6, 100, 0, 1900, 2))).outcome is Outcome.PASS


def test_a_canary_that_gets_nothing_though_it_should_is_no_traffic_and_no_fail():
    comparison = Comparison(Policy())
    comparison.step(tick(1, 100, 0, 1900, 2))
    for number in range(2, 8):
        verdict = of(comparison.step(Tick(15.0 * number, 500, (), pods("s", 1900, 2, 10))))
    assert (verdict.outcome, verdict.state) == (Outcome.NONE, State.NO_TRAFFIC)
    assert "500 were to be expected" in verdict.message.replace("600", "500")
    assert not comparison.gate().promote


def test_a_share_far_from_the_weight_is_said_and_judged_as_received():
    comparison = with_history(rps=2000)
    for number in range(1, 20):
        verdicts = comparison.step(tick(number, 3000, 3, 6000, 6, weight=2500))
    assert of(verdicts).outcome is Outcome.PASS
    share = of(verdicts, "received-share")
    assert (share.outcome, share.state) == (Outcome.PASS, State.SPLIT_MISMATCH)
    assert share.message.startswith("canary got 33 % of 171,000 requests instead of 25 %")


def test_at_full_weight_there_is_nothing_to_compare_and_the_errors_of_all_are_no_fail():
    comparison = with_history()
    for number in range(1, 40):
        verdict = of(comparison.step(Tick(15.0 * number, 10_000, pods("c", 750, 300), ())))
    assert (verdict.outcome, verdict.state) == (Outcome.NONE, State.NO_CONTROL)
    assert not comparison.gate().promote


def test_the_limit_fails_at_full_weight():
    comparison = with_history(Policy(max_error_rate=0.05))
    for number in range(1, 6):
        verdicts = comparison.step(Tick(15.0 * number, 10_000, pods("c", 750, 300), ()))
    verdict = of(verdicts, Test.LIMIT)
    assert (verdict.outcome, verdict.action) == (Outcome.FAIL, Action.ROLLBACK)
    assert "more than 5 % do" in verdict.message


def test_a_limit_that_stable_breaks_too_holds_and_fails_nobody():
    comparison = with_history(Policy(max_error_rate=0.01))
    for number in range(1, 40):
        verdicts = comparison.step(tick(number, 150, 15, 1900, 190))
    verdict = of(verdicts, Test.LIMIT)
    assert (verdict.outcome, verdict.state) == (Outcome.NONE, State.SHARED)
    assert of(verdicts).outcome is not Outcome.FAIL
    assert not comparison.gate().promote


def test_both_versions_at_two_per_cent_pass():
    comparison = with_history(stable_rate=0.02)
    service = Arms(stable_rate=0.02, canary_rate=0.02, share=0.25)
    for each in service.ticks(np.random.default_rng(4), 240):
        assert of(comparison.step(each)).outcome is not Outcome.FAIL


def slow(name, count, requests, tails, errors=0.0):
    edges = {edge: requests / count * share for edge, share in tails.items()}
    return tuple(PodCounts(f"{name}{n}", requests / count, errors, edges, requests / count) for n in range(count))


USUAL = {0.1: 0.35, 0.25: 0.05, 0.5: 0.01, 1.0: 0.0001}


def latency(comparison, tails, ticks=20, canary_edges=None):
    for number in range(1, ticks + 1):
        stable = slow("s", 10, 1900, USUAL)
        shape = tails if canary_edges is None else {edge: tails[edge] for edge in canary_edges}
        verdicts = comparison.step(Tick(15.0 * number, 500, slow("c", 1, 100, shape), stable))
    return verdicts


def known(policy=DEFAULT):
    comparison = Comparison(policy)
    for number in range(-240, 1):
        comparison.history(Tick(15.0 * number, 0, (), slow("s", 10, 2000, USUAL)))
    return comparison


def test_a_slower_canary_fails_the_latency_test_which_pauses():
    verdict = of(latency(known(), {0.1: 0.6, 0.25: 0.25, 0.5: 0.08, 1.0: 0.01}), Test.LATENCY)
    assert (verdict.outcome, verdict.action) == (Outcome.FAIL, Action.PAUSE)
    assert "requests took over" in verdict.message


def test_a_faster_canary_never_does():
    verdict = of(latency(known(), {0.1: 0.1, 0.25: 0.01, 0.5: 0.001, 1.0: 0.0}), Test.LATENCY)
    assert verdict.outcome is Outcome.PASS


def test_versions_with_different_buckets_are_compared_at_the_edges_they_share():
    worse = {0.1: 0.6, 0.25: 0.25, 0.5: 0.08, 1.0: 0.01}
    verdict = of(latency(known(), worse, canary_edges=[0.1]), Test.LATENCY)
    assert verdict.outcome is Outcome.FAIL
    assert "100 ms" in verdict.message


def test_without_buckets_the_latency_test_says_nothing():
    assert Test.LATENCY not in {verdict.rule for verdict in Comparison(Policy()).step(tick(1, 10, 0, 90, 0))}


def test_only_the_tests_that_may_roll_back_share_the_budget():
    assert Policy().alpha(Test.ERRORS) == 0.01
    assert Policy().alpha(Test.LATENCY) == 0.01
    both = Policy(latency=Action.ROLLBACK)
    assert both.alpha(Test.ERRORS) == pytest.approx(0.00625)
    assert both.alpha(Test.LATENCY) == pytest.approx(0.00375)
    all_ = replace(both, gauges=Action.ROLLBACK, history=Action.ROLLBACK, max_error_rate=0.05)
    assert sum(all_.alpha(test) for test in Test) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("field", "value"), [("tolerance", 0.9), ("false_rollback_rate", 0.0), ("max_error_rate", 1.0), ("interval", 0.0)]
)
def test_settings_without_sense_are_refused_by_name(field, value):
    with pytest.raises(PolicyError, match=field):
        Policy(**{field: value})


# -- sticky stages ---------------------------------------------------------------------------------------------------


def tenants(rate, broken, buckets, requests=20.0):
    """Buckets of tenants; the broken one fails always."""
    return tuple(
        PodCounts(f"bucket:{n}", requests, requests if n == broken else round(requests * rate)) for n in buckets
    )


def sticky_rollout(*, past: bool):
    """Tenant 7 fails on both versions; it is one of ten in the canary."""
    comparison = Comparison(Policy())
    if past:
        for number in range(-240, 1):
            comparison.history(Tick(15.0 * number, 0, (), tenants(0.0, 7, range(200))))
    for number in range(1, 60):
        canary, stable = tenants(0.0, 7, range(10)), tenants(0.0, 7, range(10, 200))
        verdict = of(comparison.step(Tick(15.0 * number, 500, canary, stable, sticky=True)))
    return verdict


def test_one_tenant_whose_every_request_fails_on_both_versions_does_not_roll_a_healthy_release_back():
    assert sticky_rollout(past=True).outcome is not Outcome.FAIL


def test_without_the_tenants_past_a_sticky_stage_pauses_and_says_why():
    verdict = sticky_rollout(past=False)
    assert (verdict.outcome, verdict.action) == (Outcome.FAIL, Action.PAUSE)
    assert "paused instead of rolled back" in verdict.message


def test_a_release_that_breaks_all_tenants_is_rolled_back_in_a_sticky_stage_too():
    comparison = Comparison(Policy())
    for number in range(-240, 1):
        comparison.history(Tick(15.0 * number, 0, (), tenants(0.0, 7, range(200))))
    for number in range(1, 30):
        canary = tuple(PodCounts(f"bucket:{n}", 20, 20) for n in range(20, 30))
        stable = tenants(0.0, 7, [*range(20), *range(30, 200)])
        verdict = of(comparison.step(Tick(15.0 * number, 500, canary, stable, sticky=True)))
    assert (verdict.outcome, verdict.action) == (Outcome.FAIL, Action.ROLLBACK)


def test_a_sticky_stage_counted_by_pod_pauses_and_says_why():
    comparison = with_history()
    for number in range(1, 10):
        verdict = of(comparison.step(replace(tick(number, 38, 30, 712, 1), sticky=True)))
    assert (verdict.outcome, verdict.action) == (Outcome.FAIL, Action.PAUSE)


def test_a_latency_test_that_is_switched_off_costs_nothing_and_says_nothing():
    comparison = Comparison(Policy(latency=None))
    for number in range(60):
        slow = {0.1: 50, 0.5: 5}
        pods = tuple(PodCounts(f"s{pod}", 1000, 1, slow) for pod in range(3))
        tick = Tick(15.0 * number, 500, (PodCounts("c0", 100, 0, {0.1: 90, 0.5: 80}),), pods)
        verdicts = comparison.step(tick)
    assert not any(verdict.rule == Test.LATENCY for verdict in verdicts)
    assert comparison.checkpoint()["latency"]["p"] == []


@pytest.mark.parametrize(
    ("before", "failed", "promotes"),
    [
        (0, 0, True),
        (0, 4, True),
        (0, 750, False),  # nothing is known of stable: 5 % of failures are too many
        (80, 1, True),
        (80, 2, True),
        (80, 40, False),  # stable had 0.1 %
    ],
)
def test_a_canary_that_serves_everything_is_held_while_its_last_minutes_are_far_worse_than_stable_was(
    before, failed, promotes
):
    comparison = with_history(seed=3)
    for number in range(1, before + 1):
        comparison.step(tick(number, 38, 0, 1000, 1))
    for number in range(before + 1, before + 41):
        comparison.step(Tick(15.0 * number, 10_000, pods("c", 750, failed, 3), ()))
    gate = comparison.gate()
    assert gate.promote is promotes, gate.message
    assert ("in the last minutes" in gate.message) is not promotes


def test_an_incident_holds_a_canary_that_serves_everything_for_as_long_as_it_lasts():
    comparison = with_history(seed=3)
    gates = []
    for number in range(1, 121):
        failed = 400 if 20 < number <= 24 else 1
        comparison.step(Tick(15.0 * number, 10_000, pods("c", 750, failed, 3), ()))
        gates.append(comparison.gate().promote)
    assert not any(gates[21:30])
    assert all(gates[50:])
