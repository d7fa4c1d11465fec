"""The absolute guard: is the canary's error share above a limit, whatever stable does?

One-sample version of the e-process (analysis method, section 2.1b): mixture of likelihood ratios of error shares that are
multiples of the limit against the limit itself, divided by the burst size, begun anew again and again.
"""

from dataclasses import dataclass, field
from math import exp, log, log1p
from typing import Any, Final

from canary_rollout.analysis.sequential.cells import Totals, to_come
from canary_rollout.analysis.sequential.numbers import log_shorts, short, shorts

MULTIPLES: Final = (2.0, 5.0, 10.0, 20.0, 50.0)
_MOST: Final = 0.99
_LARGEST: Final = 300.0


@dataclass(slots=True)
class _Since:
    number: int
    logs: list[float]
    base: list[float]
    phi: float = 1.0

    @property
    def weight(self) -> float:
        return 0.5 if self.number == 0 else to_come(self.number - 1) - to_come(self.number)

    @property
    def value(self) -> float:
        return sum(exp(min(x / self.phi, _LARGEST)) for x in self.logs) / len(self.logs)


@dataclass(slots=True)
class LimitProcess:
    """Evidence that the canary's error share is above ``limit`` (0..1)."""

    limit: float
    most_starts: int = 8
    latest: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0] * 4)
    starts: list[_Since] = field(default_factory=list)
    log_e: float = 0.0
    before: float = 0.0
    _steps: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """The alternatives: what an error and a success are worth under each."""
        shares = sorted({min(multiple * self.limit, _MOST) for multiple in MULTIPLES if self.limit < _MOST})
        self._steps = tuple(
            (log(share / self.limit), log1p(-share) - log1p(-self.limit)) for share in shares if share > self.limit
        )
        if not self.starts:
            self.starts.append(_Since(0, [0.0] * len(self._steps), [0.0] * 4))

    def restart(self, number: int) -> None:
        """Begin anew from here, beside what was begun before."""
        self.latest = number
        self.starts.append(_Since(number, [0.0] * len(self._steps), list(self.totals)))
        if len(self.starts) > self.most_starts:
            ages = [log(number + 1 - start.number) for start in self.starts]
            del self.starts[min(range(1, len(self.starts) - 1), key=lambda i: ages[i - 1] - ages[i + 1])]

    def take(self, tick: Totals, phi: float) -> None:
        """Take in one tick's counts and the dispersion."""
        for place, count in enumerate((tick.n1, tick.e1, tick.n2, tick.e2)):
            self.totals[place] += count
        self.before = self.log_e
        good = max(tick.n1 - tick.e1, 0.0)
        steps = [tick.e1 * bad + good * fine for bad, fine in self._steps]
        total = to_come(self.latest)
        for start in self.starts:
            start.phi = phi
            start.logs = [total_ + step for total_, step in zip(start.logs, steps, strict=True)]
            total += start.weight * start.value
        self.log_e = log(total)

    @property
    def confirmed(self) -> float:
        """Evidence that two ticks in a row agree on: an outage that stable shares may show on the canary first."""
        return min(self.before, self.log_e)

    def strongest(self) -> Totals:
        """Return the counts since the start that carries most of the evidence."""
        start = max(self.starts, key=lambda start: start.weight * start.value)
        return Totals(*(now - then for now, then in zip(self.totals, start.base, strict=True)))

    def state(self) -> dict[str, Any]:
        """Return the state as JSON, rounded; the process itself goes on with the rounded numbers."""
        self.totals = shorts(self.totals)
        for start in self.starts:
            start.logs = log_shorts(start.logs, start.phi)
            start.base = shorts(start.base)
        self.before = short(self.before)
        return {
            "j": self.latest,
            "p": self.before,
            "f": self.starts[0].phi,
            "t": list(self.totals),
            "s": [[start.number, list(start.base), list(start.logs)] for start in self.starts],
        }

    @classmethod
    def restore(cls, raw: Any, limit: float) -> "LimitProcess":
        """Return the process that :meth:`state` wrote."""
        starts = [
            _Since(int(number), [float(x) for x in logs], [float(x) for x in base]) for number, base, logs in raw["s"]
        ]
        made = cls(limit, latest=int(raw["j"]), totals=[float(x) for x in raw["t"]], starts=starts)
        made.take(Totals(), float(raw["f"]))
        made.before = float(raw["p"])
        return made
