"""Counts that chance decides: judged so that a right program hardly ever fails and a wrong one hardly ever passes."""

from collections.abc import Awaitable, Callable, Sequence
from math import sqrt


def sigmas(seen: int, of: int, weight: int) -> float:
    """How far ``seen`` canary answers are from what ``weight`` basis points promise, in standard deviations."""
    share = weight / 10_000
    deviation = sqrt(of * share * (1 - share))
    away = seen - of * share
    return away / deviation if deviation else away * 1e9


async def split_by_chance(ask: Callable[[], Awaitable[Sequence[str]]], of: int, weight: int) -> bool:
    """Whether the canary's share of ``of`` independent answers is within three sigma of ``weight``.

    One right split in 370 is not: a suite of twenty such looks would fail once in twenty runs. So a sample that is
    further away is asked once more, and fails when the new one is too, on the same side (one in 500,000). A split that
    is really off is found as surely as by one sample.
    """
    first = sigmas((await ask()).count("canary"), of, weight)
    if abs(first) <= 3:
        return True
    second = sigmas((await ask()).count("canary"), of, weight)
    return abs(second) <= 3 or first * second < 0
