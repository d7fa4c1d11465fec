"""Evidence that survives a restart: the same ticks give the same verdicts, and its size is bounded for ever."""

import json
from dataclasses import replace

import numpy as np
import pytest
from arms import Arms
from hypothesis import given, settings
from hypothesis import strategies as st

from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.sequential import Comparison, PodCounts, Policy, Tick
from canary_rollout.analysis.sequential.eprocess import RESTART_EVERY

POLICY = Policy(max_error_rate=0.2, certify=0.01)
EDGES = (0.05, 0.1, 0.25, 0.5, 1.0)
TAILS = (0.4, 0.2, 0.1, 0.03, 0.004)


def written(raw):
    """As it comes back from the API server."""
    return json.loads(json.dumps(raw, allow_nan=False))


def timed(pod: PodCounts, rng) -> PodCounts:
    return replace(
        pod, slow={edge: float(rng.binomial(pod.requests, tail)) for edge, tail in zip(EDGES, TAILS, strict=True)}
    )


def world(rng, service: Arms, count: int, first: int = 1):
    """Ticks with buckets, lost scrapes (the next one covers two ticks), silence and a change of weight.

    A canary pod that is missed is reckoned with what it had, as the tracker does.
    """
    missed: dict[str, PodCounts] = {}
    for tick in service.ticks(rng, count, first):
        if rng.random() < 0.03:
            yield Tick(tick.at, tick.weight, complete=bool(rng.random() < 0.5))
            continue
        arms, absent = [], 0.0
        for arm in (tick.canary, tick.stable):
            pods = []
            for pod in arm:
                if rng.random() < 0.08:
                    missed[pod.pod] = pod
                    absent += 100.0 if arm is tick.canary else 0.0
                    continue
                before = missed.pop(pod.pod, None)
                if before is not None:
                    pod = replace(  # noqa: PLW2901
                        pod,
                        requests=pod.requests + before.requests,
                        errors=pod.errors + before.errors,
                        span=2,
                        reckoned=100.0 if arm is tick.canary else 0.0,
                    )
                pods.append(timed(replace(pod, scraped_at=tick.at - 15 * rng.random()), rng))
            arms.append(tuple(pods))
        weight = tick.weight if tick.at < 1000 else 2500
        yield replace(tick, canary=arms[0], stable=arms[1], weight=weight, absent=absent)


@pytest.mark.thorough
@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.001, 0.01, 0.03, 0.5]),
    st.sets(st.integers(1, 99), min_size=1, max_size=6),
)
def test_a_restart_at_any_tick_changes_no_verdict_and_no_gate(seed, rate, restarts):
    rng = np.random.default_rng(seed)
    service = Arms(rps=200, share=0.1, canary_rate=rate, stable_pods=4, canary_pods=2)
    lasting = Comparison(POLICY)
    for tick in service.past(rng, 600):
        past = replace(tick, stable=tuple(timed(pod, rng) for pod in tick.stable))
        lasting.history(past)
    ticks = list(world(rng, service, 100))
    lasting.step(ticks[0])
    mortal = Comparison.restore(POLICY, written(lasting.checkpoint()))
    mortal.step(ticks[0])
    for number, tick in enumerate(ticks[1:], 1):
        if number in restarts:
            mortal = Comparison.restore(POLICY, written(mortal.checkpoint()))
            for old in ticks[:number]:
                if old.at > mortal.replay_from:
                    mortal.step(old)
        assert mortal.step(tick) == lasting.step(tick)
        assert mortal.gate() == lasting.gate()
    assert written(mortal.checkpoint()) == written(lasting.checkpoint())


@pytest.mark.thorough
def test_after_three_days_the_checkpoint_is_still_small():
    rng = np.random.default_rng(1)
    service = Arms(rps=20_000, share=0.25, stable_rate=0.002, canary_rate=0.002, stable_pods=20, canary_pods=7)
    comparison = Comparison(POLICY)
    for number in range(-480, 1):
        pods = tuple(
            PodCounts(f"bucket:{n}", 500, 2, dict(zip(EDGES, (200, 100, 50, 15, 2), strict=True))) for n in range(200)
        )
        comparison.history(Tick(15.0 * number, 0, (), pods))
    ticks = list(world(rng, service, 60))
    largest = 0
    for hours in range(0, 72 * 240, 1200):
        for tick in ticks:
            comparison.step(replace(tick, at=tick.at + hours * 15.0))
        largest = max(largest, len(json.dumps(comparison.checkpoint(), separators=(",", ":"))))
    assert largest < 8192


def test_a_checkpoint_from_before_the_first_block_begins_where_the_first_tick_did():
    comparison = Comparison(POLICY)
    assert comparison.checkpoint() == {}
    comparison.step(Tick(1000.0, 50, (PodCounts("c", 10, 0),), (PodCounts("s", 100, 0),)))
    restored = Comparison.restore(POLICY, written(comparison.checkpoint()))
    assert restored.replay_from < 1000.0 - POLICY.interval


@pytest.mark.parametrize(
    "raw",
    [{"v": 2}, {"v": 1}, {"v": 1, "at": 5, "began": "x"}, {"v": 1, "at": 1, "began": 0, "alone": 0, "errors": []}],
)
def test_what_somebody_else_wrote_is_refused(raw):
    with pytest.raises(EvidenceError, match="use retry or reset"):
        Comparison.restore(POLICY, raw)


def test_ticks_that_come_twice_or_backwards_are_ignored():
    comparison = Comparison(POLICY)
    ticks = list(Arms().ticks(np.random.default_rng(2), 30))
    for tick in ticks:
        verdicts = comparison.step(tick)
    assert comparison.step(ticks[10]) == verdicts
    assert comparison.step(ticks[-1]) == verdicts


def test_restarts_that_were_missed_are_made_up_for_by_one_so_that_none_pushes_older_evidence_out():
    ticks = list(world(np.random.default_rng(3), Arms(rps=500, share=0.25, stable_rate=0.002, canary_rate=0.002), 120))
    comparison = Comparison(POLICY)
    for tick in ticks:
        comparison.step(tick)
    before = [start.number for start in comparison._errors.starts]
    for tick in ticks[:6]:
        comparison.step(replace(tick, at=tick.at + 4 * 3600.0))
    errors, limit = comparison._errors, comparison._limit
    due = int((ticks[5].at + 4 * 3600.0 - ticks[0].at) // RESTART_EVERY)
    assert errors.latest == limit.latest == due
    assert len(set(before) - {start.number for start in errors.starts}) <= 1
