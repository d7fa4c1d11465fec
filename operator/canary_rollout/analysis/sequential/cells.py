"""What the evidence is reckoned from and kept in: a tick's counts, what arrived, and the evidence since one point of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

HALF_AGE: Final = 12.0
"""Restarts after which half of their share is given out (half an hour): so a regression that starts late is found as fast."""


def to_come(number: int) -> float:
    """Return the share of the restarts after the ``number``-th, of all evidence: half at first, and all of it in the end."""
    return 0.5 * HALF_AGE / (HALF_AGE + number)


@dataclass(slots=True)
class Cell:
    """One tick's counts.

    Attributes:
        absent: requests of the canary that are not in ``n1`` yet, since its scrapes are late or lost.
        gain: what it has added to the mixture's members so far; ``None``: nothing, or (when ``sealed``) what ``n1`` to
            ``e2`` are worth.
        held: the same without the canary's bad requests.
        sealed: its gain was left out of a checkpoint.
        costs: what one bad request of stable costs each member, at the odds ``priced``.
    """

    index: int
    odds_floor: float
    n1: float = 0.0
    e1: float = 0.0
    n2: float = 0.0
    e2: float = 0.0
    absent: float = 0.0
    gain: list[float] | None = None
    held: list[float] | None = None
    sealed: bool = False
    priced: float = -1.0
    costs: list[float] = field(default_factory=list)

    def odds(self, tolerance: float) -> float:
        """Odds that a bad request is the canary's, if the canary is just tolerable."""
        if self.n2 <= 0:
            return inf
        return max(tolerance * (self.n1 + self.absent) / self.n2, self.odds_floor)


@dataclass(slots=True)
class Start:
    """The evidence since one point of time.

    Attributes:
        number: restarts before it; 0 is the beginning.
        after: index of the last cell that is not in it.
        logs: logarithms of the mixture's members, not yet divided by the dispersion.
        bets: logarithms of the bets' capitals.
        base: totals (n1, e1, n2, e2) when it began.
        value: evidence of this start alone.
        betting: its betting half.
        weight: its share of all evidence.
    """

    number: int
    after: int
    logs: list[float]
    bets: list[float]
    base: tuple[float, float, float, float]
    value: float = 1.0
    betting: float = 1.0
    weight: float = field(init=False)

    def __post_init__(self) -> None:
        """Its share of all evidence."""
        self.weight = 0.5 if self.number == 0 else to_come(self.number - 1) - to_come(self.number)


@dataclass(frozen=True, slots=True)
class Flow:
    """What arrived in one tick, by the number of ticks it covers (1 unless scrapes were lost).

    Attributes:
        canary: (span, behind) -> requests, bad requests that count now, bad requests that wait.
        stable: (span, behind) -> requests, bad requests.
        absent: requests of this tick that the canary's pods will have had of which nothing has arrived.
        back: (span, behind) -> requests per tick that were absent and have arrived now.
    """

    canary: Mapping[tuple[int, int], Sequence[float]]
    stable: Mapping[tuple[int, int], Sequence[float]]
    absent: float = 0.0
    back: Mapping[tuple[int, int], float] = field(default_factory=dict)


@dataclass(slots=True)
class Block:
    """Ticks that are one bet."""

    first: int = -1
    n1: float = 0.0
    e1: float = 0.0
    n2: float = 0.0
    e2: float = 0.0
    odds_floor: float = 0.0


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since some point of time: requests and bad requests of the canary (1) and of stable (2)."""

    n1: float = 0.0
    e1: float = 0.0
    n2: float = 0.0
    e2: float = 0.0
