"""The e-process: evidence that bad requests are more frequent on the canary than the tolerance allows.

Per tick the canary has ``e1`` bad of ``n1`` requests and stable ``e2`` of ``n2``. Under "the canary is at most ``rho`` times
as bad", whatever stable's rate is and however it drifts, the evidence ``E`` is a non-negative supermartingale that starts
at 1, so it ever reaches ``1/alpha`` with a probability of at most ``alpha`` (Ville 1939), no matter how often one looks.
``E`` is half a mixture of conditional likelihood ratios, divided by the burst size (tempered), and half a bet on the
canary's share of the bad ones; it is begun anew again and again so that it does not wear a healthy past.
Method: analysis method, section 2.1; Ramdas et al., "Game-theoretic statistics and safe anytime-valid inference" (2023);
Lindon & Malek, "Anytime-valid inference for multinomial count data" (2022).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, inf, log
from operator import add, sub
from typing import Any, Final

from canary_rollout.analysis.sequential.cells import Block, Cell, Flow, Start, Totals, to_come
from canary_rollout.analysis.sequential.numbers import count_shorts, log_shorts, shorts

RATIOS: Final = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 35.0, 60.0, 100.0, 200.0, 500.0, 1000.0)
"""How many times worse than the tolerance the mixture believes the canary to be."""

BETS: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9)
"""Stakes of the betting half."""

RESTART_EVERY: Final = 150.0
"""Seconds between two restarts. A healthy past costs evidence, so a regression is found soon after one of them."""

RING: Final = 12
"""Ticks that late samples can still reach: the longest span and the longest wait."""

_LARGEST: Final = 300.0
_HUGE: Final = exp(_LARGEST)
_NOTHING: Final = -30.0
_BET_DELAY: Final = 1
_SMALL_DISPERSION: Final = 1.3
_BLOCK_DISPERSIONS: Final = 3.0


@dataclass(slots=True)
class RatioProcess:
    """Evidence on one kind of bad request.

    Attributes:
        tolerance: the canary may be this many times as bad.
        ratios: the mixture's alternatives.
        bets: stakes of the betting half; none: the mixture is all.
        reach: ticks that late samples can still reach.
        most_starts: restarts kept; the least informative one is dropped, which costs its own weight and no guarantee.
    """

    tolerance: float
    ratios: tuple[float, ...] = RATIOS
    most_starts: int = 8
    bets: tuple[float, ...] = BETS
    reach: int = RING
    index: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    ring: deque[Cell] = field(default_factory=deque)
    starts: list[Start] = field(default_factory=list)
    latest: int = 0
    log_e: float = 0.0
    phi: float = 1.0
    waiting: list[list[float]] = field(default_factory=list)
    block: int = 1
    """Ticks that one bet covers at least, where bad requests come in bursts."""
    _block: Block = field(default_factory=Block)
    _log_ratios: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """The first start."""
        self.ring = deque(self.ring, maxlen=self.reach)
        self._log_ratios = tuple(log(ratio) for ratio in self.ratios)
        if not self.starts:
            self.starts.append(self._start(0))

    def restart(self, number: int) -> None:
        """Begin anew from here (the ``number``-th time), beside what was begun before.

        What stable did wrong in the tick that ends here counts: its part of an outage that both share may have been
        scraped a tick before the canary's.
        """
        self.latest = number
        made = self._start(number)
        if self.ring:
            self._touch(self.ring[-1])
            made.logs = list(self.ring[-1].held or made.logs)
        self.starts.append(made)
        if len(self.starts) > self.most_starts:
            ages = [log(number + 1 - start.number) for start in self.starts]
            inner = range(1, len(self.starts) - 1)
            del self.starts[min(inner, key=lambda i: ages[i - 1] - ages[i + 1])]

    def take(self, flow: Flow, phi: float, released: int, odds_floor: float = 0.0) -> None:
        """Take in one tick.

        The canary's requests and all that is stable's count at once. The canary's bad requests count once stable's
        pods were scraped as late as the canary's: ``released`` is the index of the latest cell for which they were. So an
        outage that both share is never seen on the canary first, and the evidence is never above what it will be.

        Args:
            flow: what arrived.
            phi: dispersion as it is known now, 1 or more.
            released: cells up to this index no longer wait.
            odds_floor: least odds that a bad request is the canary's, from what its tenants did on stable.
        """
        self.index += 1
        self.ring.append(Cell(self.index, odds_floor, absent=flow.absent))
        dirty = self._spread(flow)
        dirty |= self._release(released)
        changed = self._gain(cell for cell in self.ring if cell.index in dirty)
        changed |= self._bet() | (phi != self.phi)
        self.phi = phi
        if changed:
            self._sum()

    def release(self, errors: float) -> None:
        """Count some of the newest cell's waiting bad requests now."""
        for entry in self.waiting:
            if entry[0] == entry[1] == self.index:
                entry[2] -= errors
                self._count(self.ring[-1], errors)
        self._gain([self.ring[-1]])
        self._sum()

    def strongest(self) -> Start:
        """Return the start that carries most of the evidence."""
        return max(self.starts, key=lambda start: start.weight * start.value)

    def since(self, start: Start) -> Totals:
        """Return the counts that a start has seen."""
        return Totals(*(now - then for now, then in zip(self.totals, start.base, strict=True)))

    # -- counting ------------------------------------------------------------------------------------------------------

    def _start(self, number: int) -> Start:
        return Start(number, self.index, [0.0] * len(self.ratios), [0.0] * len(self.bets), tuple(self.totals))  # type: ignore[arg-type]  # four

    def _spread(self, flow: Flow) -> set[int]:
        """Put what arrived into the ticks it covers: requests evenly, bad ones where they speak least for evidence.

        Nobody knows in which of them requests failed. So the canary's are laid to the first tick and stable's to the
        last one: a start in between counts stable's part of an outage that both share, and not the canary's.
        """
        ring, totals, dirty = self.ring, self.totals, set()
        for (span, behind), (requests, now, waiting) in flow.canary.items():
            covered = _covered(ring, span, behind)
            for cell in covered:
                self._touch(cell)
                cell.n1 += requests / len(covered)
                dirty.add(cell.index)
            first = covered[0]
            totals[0] += requests
            self._count(first, now)
            if waiting:
                self.waiting.append([self.index, first.index, waiting])
        for (span, behind), requests in flow.back.items():
            for cell in _covered(ring, span, behind):
                if cell.index < self.index:
                    cell.absent = max(cell.absent - requests, 0.0)
        for (span, behind), (requests, bad) in flow.stable.items():
            covered = _covered(ring, span, behind)
            for cell in covered:
                self._touch(cell)
                cell.n2 += requests / len(covered)
                dirty.add(cell.index)
            covered[-1].e2 += bad
            totals[2] += requests
            totals[3] += bad
        return dirty

    def _release(self, through: int) -> set[int]:
        """Count what waited and arrived in cells up to ``through``."""
        due = [entry for entry in self.waiting if entry[0] <= through]
        if due:
            self.waiting = [entry for entry in self.waiting if entry[0] > through]
        oldest = self.ring[0].index
        dirty = set()
        for _, index, errors in due:
            cell = self.ring[max(int(index), oldest) - oldest]
            self._count(cell, errors)
            dirty.add(cell.index)
        return dirty

    def _count(self, cell: Cell, errors: float) -> None:
        self._touch(cell)
        cell.e1 += errors
        self.totals[1] += errors

    # -- evidence ------------------------------------------------------------------------------------------------------

    def _gain(self, cells: Iterable[Cell]) -> bool:
        """Work changed cells into all starts; returns whether there was anything to work in."""
        changed = False
        for cell in cells:
            if cell.e1 or cell.e2 or cell.gain:
                gain, held = self._worth(cell)
                self._add(cell, gain, held)
                cell.gain, cell.held = gain, held
                changed = True
        return changed

    def _worth(self, cell: Cell) -> tuple[list[float], list[float]]:
        """Return what a cell adds to the mixture's members, and what it adds without the canary's bad requests.

        ``e1 ln(qk/q0) + e2 ln((1-qk)/(1-q0))`` is ``e1 ln r - (e1+e2) ln((1 + r o)/(1 + o))`` with the odds ``o`` of q0.
        """
        odds, e1, e2 = cell.odds(self.tolerance), cell.e1, cell.e2
        if odds == inf:
            alone = [-e2 * log_ratio for log_ratio in self._log_ratios]
            return alone, alone
        if odds != cell.priced:
            base, cell.priced = log(1.0 + odds), odds
            cell.costs = [log(1.0 + ratio * odds) - base for ratio in self.ratios]
        held = [-e2 * cost for cost in cell.costs]
        if not e1:
            return held, held
        both = e1 + e2
        gain = [e1 * log_ratio - both * cost for log_ratio, cost in zip(self._log_ratios, cell.costs, strict=True)]
        return gain, held

    def _touch(self, cell: Cell) -> None:
        """Reckon what a cell has added so far, before it changes."""
        if cell.sealed:
            cell.sealed = False
            if cell.e1 or cell.e2:
                cell.gain, cell.held = self._worth(cell)

    def _add(self, cell: Cell, gain: list[float], held: list[float]) -> None:
        """Add what changed in a cell; of the tick before a restart, what stable did wrong."""
        delta = list(map(sub, gain, cell.gain)) if cell.gain else gain
        for start in self.starts:
            if cell.index > start.after or (start.number == 0 and cell.index > 0):
                start.logs = list(map(add, start.logs, delta))
            elif cell.index == start.after:
                was = cell.held or [0.0] * len(held)
                start.logs = [total + new - before for total, new, before in zip(start.logs, held, was, strict=True)]

    def _bet(self) -> bool:
        """Bet on the canary's share of the bad requests, once per block; returns whether a block ended with any.

        A cell enters its block a tick later, when a lost scrape has come in.
        """
        if len(self.ring) <= _BET_DELAY or not self.bets:
            return False
        cell, block = self.ring[-1 - _BET_DELAY], self._block
        if block.first < 0:
            block.first = cell.index
        block.n1 += cell.n1 + cell.absent
        block.e1 += cell.e1
        block.n2 += cell.n2
        block.e2 += cell.e2
        block.odds_floor = max(block.odds_floor, cell.odds_floor)
        if self.phi > _SMALL_DISPERSION:
            # A burst that several blocks share would win as many bets: wait for its end, for at most as long again.
            requests = block.n1 / (_BLOCK_DISPERSIONS * self.phi)
            ticks = (cell.index - block.first + 1) / self.block if self.block > 1 else inf
            if min(requests, ticks) < (2.0 if cell.e1 > 0 else 1.0):
                return False
        self._block = Block()
        return self._settle(block)

    def _settle(self, block: Block) -> bool:
        if block.n1 <= 0 or block.n2 <= 0 or block.e1 + block.e2 <= 0:
            return False
        odds = max(self.tolerance * block.n1 / block.n2, block.odds_floor)
        payoff = block.e1 / (block.e1 + block.e2) * (1.0 + odds) / odds
        logs = [log(1.0 - bet + bet * payoff) for bet in self.bets]
        for start in self.starts:
            if start.number == 0 or block.first > start.after + 1:
                start.bets = list(map(add, start.bets, logs))
                start.betting = _mean_exp(start.bets, 1.0)
        return True

    def _sum(self) -> None:
        """Average it all.

        The whole of the evidence is divided by the dispersion as it is known now, not each tick's by what was known then:
        in a shared outage the canary's part and stable's would weigh differently.
        """
        total = to_come(self.latest)
        scale = 1.0 / self.phi
        for start in self.starts:
            mixture = _mean_exp(start.logs, scale)
            start.value = 0.5 * (mixture + start.betting) if self.bets else mixture
            total += start.weight * start.value
        self.log_e = log(total)

    # -- persistence ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the state as JSON, rounded; the process itself goes on with the rounded numbers."""
        for start in self.starts:
            start.logs = log_shorts(start.logs, self.phi)
            start.bets = log_shorts(start.bets, 1.0)
            start.betting = _mean_exp(start.bets, 1.0) if start.bets else 1.0
            start.base = tuple(count_shorts(start.base))  # type: ignore[assignment]  # four
        self.totals = count_shorts(self.totals)
        for cell in self.ring:
            numbers = (cell.n1, cell.e1, cell.n2, cell.e2, cell.absent)
            cell.n1, cell.e1, cell.n2, cell.e2, cell.absent = count_shorts(numbers)
            cell.gain = cell.held = None  # reckoned again from these, as a restored process will
            cell.sealed = True
        self.waiting = [shorts(entry) for entry in self.waiting if entry[2] > 0]
        block = self._block
        self._block = Block(block.first, *shorts((block.n1, block.e1, block.n2, block.e2, block.odds_floor)))
        self._sum()
        return {
            "i": self.index,
            "t": list(self.totals),
            "c": [[cell.n1, cell.e1, cell.n2, cell.e2] for cell in self.ring],
            "o": [cell.odds_floor for cell in self.ring] if any(cell.odds_floor for cell in self.ring) else [],
            "a": [cell.absent for cell in self.ring] if any(cell.absent for cell in self.ring) else [],
            "w": [list(entry) for entry in self.waiting],
            "s": [[start.number, start.after, *start.base, start.logs, start.bets] for start in self.starts],
            "j": self.latest,
            "f": self.phi,
            "b": [getattr(self._block, name) for name in ("first", "n1", "e1", "n2", "e2", "odds_floor")],
        }

    @classmethod
    def restore(cls, raw: Any, like: "RatioProcess") -> "RatioProcess":
        """Return the process that :meth:`state` wrote, with the settings of another one."""
        starts = [
            Start(int(number), int(after), [float(x) for x in logs], [float(x) for x in bets], (n1, e1, n2, e2))
            for number, after, n1, e1, n2, e2, logs, bets in raw["s"]
        ]
        for start in starts:
            start.betting = _mean_exp(start.bets, 1.0) if start.bets else 1.0
        made = cls(
            like.tolerance,
            like.ratios,
            like.most_starts,
            like.bets,
            like.reach,
            int(raw["i"]),
            [float(x) for x in raw["t"]],
            starts=starts,
        )
        first = made.index - len(raw["c"]) + 1
        for offset, (n1, e1, n2, e2) in enumerate(raw["c"]):
            floor = raw["o"][offset] if raw["o"] else 0.0
            absent = raw["a"][offset] if raw.get("a") else 0.0
            made.ring.append(Cell(first + offset, floor, n1, e1, n2, e2, absent, sealed=True))
        made.latest, made.phi = int(raw["j"]), float(raw["f"])
        made.waiting = [[float(x) for x in entry] for entry in raw["w"]]
        made._block = Block(int(raw["b"][0]), *(float(x) for x in raw["b"][1:]))
        made._sum()
        return made


def _covered(ring: Sequence[Cell], span: int, behind: int) -> list[Cell]:
    """Return the ticks that an increment covers, oldest first, as far as they are kept."""
    if span == 1 and not behind:
        return [ring[-1]]
    last = len(ring) - min(behind, len(ring) - 1)
    return [ring[place] for place in range(max(last - span, 0), last)]


def _mean_exp(logs: list[float], scale: float) -> float:
    """Return the mean of exponentials, 0 where all are too small to matter."""
    most = max(logs) * scale
    if most < _NOTHING:
        return 0.0
    if most > _LARGEST:
        return _HUGE
    total: float = sum([exp(x) for x in logs] if scale == 1.0 else [exp(x * scale) for x in logs])
    return total / len(logs)
