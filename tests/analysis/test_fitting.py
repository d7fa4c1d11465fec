"""What of the evidence there is room for: never more than asked, the same every time, and it still reads."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary_rollout.analysis.evidence import Breach, Evidence, short
from canary_rollout.analysis.fitting import (
    BREACHES,
    COMPARISON,
    GATES,
    LATENCY,
    LIMIT,
    PARTS,
    PAST,
    TENANTS,
    WORDS,
    encoded,
    fitted_comparison,
    fitted_evidence,
)
from canary_rollout.analysis.sequential import Comparison, PodCounts, Policy, Tick
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.model.effective import MOST_RULES

NOON = 1_795_262_400.0
STAYS = 6000
"""Bytes of what is never left out: names of measures that each version has had, and of alerts that are muted."""

NAMES = st.lists(st.text("abcdef-", min_size=1, max_size=40), unique=True, max_size=MOST_RULES + 8)


def breach(seconds):
    return Breach("f" * 8, NOON, 12.345, NOON + seconds)


@st.composite
def evidences(draw):
    names = draw(NAMES)
    return Evidence(
        breaches={short(name): breach(draw(st.integers(0, 1000))) for name in names},
        held={short(f"exit/{name}"): breach(draw(st.integers(0, 1000))) for name in names[:24]},
        seen_canary=frozenset(f"canary~{number:08x}" for number in range(draw(st.integers(0, 128)))),
        seen_stable=frozenset(f"stable~{number:08x}" for number in range(draw(st.integers(0, 128)))),
        comparison={"began": NOON, "weights": [], "evidence": "c" * draw(st.integers(0, 8000))},
        evaluated_through=NOON,
    )


@settings(max_examples=200, deadline=None)
@given(evidences(), st.integers(STAYS, 24_000))
def test_evidence_is_never_larger_than_there_is_room_for_and_always_reads(evidence, most):
    raw = evidence.to_dict()
    kept, left = fitted_evidence(raw, most)
    assert encoded(kept) <= most
    assert fitted_evidence(raw, most) == (kept, left)
    assert set(left) <= set(PARTS)
    assert bool(left) == (encoded(raw) > most)
    again = Evidence.from_dict(json.loads(json.dumps(kept)))
    assert (again.seen_canary, again.seen_stable) == (evidence.seen_canary, evidence.seen_stable)
    assert again.breaches.items() <= evidence.breaches.items()
    assert again.held.items() <= evidence.held.items()
    if not left:
        assert kept == raw


def test_gates_go_before_rules_what_was_judged_longest_ago_first_and_the_comparison_last():
    evidence = Evidence(
        breaches={f"rule-{number}": breach(number) for number in range(20)},
        held={f"exit/{number}": breach(100 - number) for number in range(20)},
        comparison={"evidence": "c" * 4000},
    )
    raw = evidence.to_dict()
    size = encoded(raw)
    kept, left = fitted_evidence(raw, size - 100)
    assert left == (GATES,)
    assert set(raw["held"]) - set(kept["held"]) == {"exit/19", "exit/18"}
    kept, left = fitted_evidence(raw, 5000)
    assert left == (GATES, BREACHES)
    assert "held" not in kept
    assert min(kept["breaches"], key=lambda name: int(name.split("-")[1])) == f"rule-{20 - len(kept['breaches'])}"
    kept, left = fitted_evidence(raw, 100)
    assert (kept, left) == ({}, (GATES, BREACHES, COMPARISON))


EDGES = (0.05, 0.1, 0.25, 0.5, 1.0)
POLICY = Policy(max_error_rate=0.2, certify=0.01)
USUAL = {"edge": 0.1, "usual": {"errors": {"all": [0.001, 0.0001, 5000, 0, 1, 60]}}}


@pytest.fixture(scope="module")
def failed():
    """A comparison with everything in it: tails, tenants with a past, a limit, and a fail."""
    comparison = Comparison(POLICY)
    for number in range(-120, 1):
        pods = tuple(
            PodCounts(f"bucket:{bucket}", 500, 2, dict(zip(EDGES, (200, 100, 50, 15, 2), strict=True)))
            for bucket in range(100)
        )
        comparison.history(Tick(NOON + 15.0 * number, 0, (), pods))
    for number in range(1, 41):
        slow = dict(zip(EDGES, (900, 800, 700, 600, 500), strict=True))
        canary = tuple(PodCounts(f"bucket:{bucket}", 1000, 500, slow) for bucket in range(5))
        stable = tuple(
            PodCounts(f"bucket:{bucket}", 500, 2, dict(zip(EDGES, (200, 100, 50, 15, 2), strict=True)))
            for bucket in range(10, 100)
        )
        comparison.step(Tick(NOON + 15.0 * number, 500, canary, stable))
    return comparison


def test_a_checkpoint_with_room_is_whole(failed):
    text, left = fitted_comparison(failed.checkpoint(), USUAL)
    assert left == ()
    assert json.loads(text) == {"state": json.loads(json.dumps(failed.checkpoint())), "usual": USUAL}
    assert fitted_comparison({}, {}) == ("{}", ())


def test_a_checkpoint_gives_up_what_rolls_back_last_and_keeps_every_fail(failed):
    state = failed.checkpoint()
    whole = encoded(fitted_comparison(state, USUAL, 10**6)[0])
    seen = []
    for most in range(whole, 1, -50):
        text, left = fitted_comparison(state, USUAL, most)
        assert encoded(text) <= most
        assert left == (WORDS, PAST, LATENCY, TENANTS, LIMIT, COMPARISON)[: len(left)]
        if left != (seen[-1] if seen else None):
            seen.append(left)
        parts = json.loads(text)
        if COMPARISON in left:
            assert parts == {}
            break
        restored = Comparison.restore(POLICY, parts["state"])
        fails = {verdict.rule for verdict in restored._verdicts if verdict.outcome is Outcome.FAIL}
        assert "error-comparison" in fails
        assert restored._errors.log_e == pytest.approx(Comparison.restore(POLICY, state)._errors.log_e)
        assert restored._tenants.known == (TENANTS not in left), "unknown tenants pause, they never roll back"
        restored.step(Tick(NOON + 15.0 * 41, 500, (PodCounts("bucket:1", 10, 0),), (PodCounts("bucket:50", 100, 0),)))
    assert [len(left) for left in seen] == list(range(7))
