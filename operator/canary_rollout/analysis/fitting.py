"""How much of the evidence is persisted: a status has room for so much, and what matters least is left out first.

A running operator loses nothing by it: it works with what it has in memory. What is left out begins anew after a restart,
each part in the direction that cannot roll back by mistake. Nothing here looks at a clock: the same evidence leaves the
same parts out.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from canary_rollout.analysis.sequential.latency import LatencyTest
from canary_rollout.analysis.sequential.tenants import Tenants

LARGEST_CHECKPOINT: Final = 10 * 1024
"""Bytes of a comparison's checkpoint as the API server stores it (quotes escaped). Usual are two to four thousand; the most
that is known, with tenants, five edges of latency and a fail of every test, are 9,700."""
BESIDE: Final = 400
"""Bytes of it that are left for its beginning and its weights."""
SHORTEST_WORDS: Final = 40
"""Characters of what is said about a fail, where there is no room: the words are in ``status.verdicts`` as well."""

WORDS: Final = "words"
PAST: Final = "past"
LATENCY: Final = "latency"
TENANTS: Final = "tenants"
LIMIT: Final = "limit"
COMPARISON: Final = "comparison"
GATES: Final = "gates"
BREACHES: Final = "breaches"
PARTS: Final = (WORDS, PAST, LATENCY, TENANTS, LIMIT, GATES, BREACHES, COMPARISON)
"""What can be left out: the words of fails, stable's past (the history test says nothing), the latency test (begins anew),
the tenants' past (a sticky stage pauses instead of rolling back), the limit of the error rate (begins anew), the ``for``
of gates and of breaches (begin anew), the whole comparison (begins anew)."""


def encoded(value: object) -> int:
    """Return how many bytes a value has as JSON."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def fitted_comparison(
    state: Mapping[str, Any], usual: Mapping[str, Any], most: int = LARGEST_CHECKPOINT - BESIDE
) -> tuple[str, tuple[str, ...]]:
    """Return a comparison's checkpoint as one text that a status has room for, and what was left out of it.

    Args:
        state: of :meth:`~canary_rollout.analysis.sequential.Comparison.checkpoint`; empty before the first tick.
        usual: of :meth:`~canary_rollout.analysis.history.HistoryTest.export`.
        most: bytes of the text inside another JSON document.
    """
    parts: dict[str, Any] = {"state": dict(state), "usual": dict(usual)} if state else {}
    left: list[str] = []
    text = _text(parts)
    for part, without in _LESS.items():
        if encoded(text) <= most:
            break
        shorter = _text(parts := without(parts))
        if shorter != text:
            left.append(part)
        text = shorter
    return text, tuple(left)


def fitted_evidence(raw: Mapping[str, Any], most: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return as much of :meth:`Evidence.to_dict` as ``most`` bytes hold, and what was left out of it.

    What a version has had (``seen``) and what is muted stays: without it, data that was lost would look like data that never
    was.
    """
    size = encoded(raw)
    if size <= most:
        return dict(raw), ()
    kept = {part: dict(value) if part in _ONE_BY_ONE else value for part, value in raw.items()}
    left: list[str] = []
    for part, name in _oldest(raw):
        if size <= most:
            break
        entry = kept[part].pop(name)
        size -= encoded(name) + encoded(entry) + 1  # a comma may stay
        left.append(_ONE_BY_ONE[part])
    if size > most and kept.pop("comparison", None) is not None:
        left.append(COMPARISON)
    return {part: value for part, value in kept.items() if value not in ({}, [])}, tuple(dict.fromkeys(left))


def _oldest(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Part and name of what can be left out one by one: gates before rules, and of each what was judged longest ago."""
    for part in _ONE_BY_ONE:
        yield from ((part, name) for name, _ in sorted(raw.get(part, {}).items(), key=_judged_at))


def _judged_at(entry: tuple[str, str]) -> tuple[int, str]:
    name, written = entry
    last = f"{written}".rsplit(" ", 1)[-1]
    return int(last) if last.isdecimal() else 0, name  # somebody may have mangled it: then it goes first


def _text(parts: Mapping[str, Any]) -> str:
    return json.dumps(parts, separators=(",", ":"))


def _state_with(parts: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {**parts, "state": {**parts["state"], **changed}}


def _few_words(parts: dict[str, Any]) -> dict[str, Any]:
    rows = [[*row[:3], row[3][:SHORTEST_WORDS], *row[4:]] for row in parts["state"]["latched"]]
    return _state_with(parts, latched=rows)


_ONE_BY_ONE: Final = {"held": GATES, "breaches": BREACHES}
_LESS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    WORDS: _few_words,
    PAST: lambda parts: {**parts, "usual": {}},
    LATENCY: lambda parts: _state_with(parts, latency=LatencyTest(1.0).state()),
    TENANTS: lambda parts: _state_with(parts, tenants=Tenants().state()),
    LIMIT: lambda parts: _state_with(parts, limit=None),
    COMPARISON: lambda _: {},
}
"""In this order: what is said elsewhere, what only alerts, what pauses, what a rollback can do without."""
