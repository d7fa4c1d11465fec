"""The canary against the service's own past: the same hour of the last days, in medians of five minutes.

Three sigma per tick would be 240 looks an hour at noise that hangs together: 13 to 81 % false alarms an hour. Here centre and
scale come from *five-minute values* of the past, so season and autocorrelation are inside the scale, and the alarm is at 4
of it: 0.0 to 0.2 % an hour (analysis method, section 2.4, with the noise models). Where stable runs beside the canary, the
difference of the two is judged (difference-in-differences), which takes shared incidents out; alone, at 100 %, a fail never
does more than alert: time is the biggest source of change there is.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Final, NamedTuple

from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.gauges import amount
from canary_rollout.analysis.robust import median, spread
from canary_rollout.analysis.sequential.counts import TENANT_BUCKET, PodCounts, Tick
from canary_rollout.analysis.sequential.policy import Policy, Test
from canary_rollout.analysis.sequential.verdicts import State, TestVerdict
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.analysis.wording import number
from canary_rollout.model.measures import Action

MINUTE: Final = 60.0
WINDOW: Final = 5
NEEDED: Final = 3
"""Minutes of a window that must have values."""
UNITS: Final = 4.0
"""Scale units between usual and alarming."""
IN_A_ROW: Final = 6
"""Minutes in a row that must be out of the usual: two windows that share no minute, so that one heap of errors is not enough."""
LEAST_WINDOWS: Final = 12
"""Five-minute values without which there is no usual: an hour."""
LEAST_DAYS: Final = 3
MOST_WINDOWS: Final = 7 * 288
BURST: Final = 10.0
"""How many errors are taken to come at once where the past is too short to tell, and how many windows that weighs."""
LEAST_REQUESTS: Final = 20
LEAST_ERRORS: Final = 3
"""Bursts (of the size the past had) by which the canary must exceed what is usual: two can always meet."""
LEAST_SURPRISE: Final = 10.0
"""Least -log of Chernoff's bound for that many bursts: of few, the spread tells too little, they have a long tail."""
LEAST_SCALE: Final = 0.05
TYPICAL_TAIL: Final = 0.05
ERRORS: Final = "errors"
LATENCY: Final = "latency"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was usual.

    Attributes:
        centre: median of the five-minute values (a share 0..1, or the natural logarithm of a gauge).
        scale: their robust standard deviation, same unit.
        volume: median of the requests behind one value; 0 for a gauge.
        pods: robust standard deviation between the pods of one moment (gauges; logarithm), 0 for shares.
        together: how many errors came at once: the variance of the shares over what independent errors would have.
        windows: number of five-minute values this rests on.
    """

    centre: float
    scale: float
    volume: float = 0.0
    pods: float = 0.0
    together: float = 1.0
    windows: int = 0


class _Value(NamedTuple):
    """One five-minute value.

    The median of the minutes' shares (or a logarithm), the share of all of it, the requests behind it, the spread between
    pods, and how many pods.
    """

    value: float
    pooled: float
    volume: float
    pods: float
    across: int


def baseline(values: Sequence[float]) -> Baseline:
    """Return median and robust standard deviation of values of the past (five-minute medians, the same hour of each day).

    Args:
        values: at least one number, any unit.

    Raises:
        ValueError: there are no values.
    """
    centre = median(values)
    return Baseline(centre, spread(values, centre), windows=len(values))


def sigmas(value: float, usual: Baseline, least: float = 0.0) -> float:
    """Return how many scale units a value lies above usual; a scale below `least` (same unit) counts as that.

    A scale of 0 gives infinity above the centre, and 0 at or below it: values that never moved have no noise to speak of.
    """
    scale = max(usual.scale, least)
    above = value - usual.centre
    if scale > 0:
        return above / scale
    return math.inf if above > 0 else 0.0


@dataclass(slots=True)
class _Minutes:
    """The last minutes of one version: requests, errors, slow requests by edge, and gauges by pod."""

    counts: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    slow: dict[float, deque[tuple[int, float, float]]] = field(default_factory=dict)
    gauges: dict[str, dict[str, deque[tuple[int, float]]]] = field(default_factory=dict)

    def take(self, minute: int, pods: Iterable[PodCounts], edges: Iterable[float] | None) -> None:
        requests = errors = 0.0
        for pod in pods:
            if pod.pod.startswith(TENANT_BUCKET):
                continue
            requests += pod.requests
            errors += pod.errors
            timed = pod.requests if pod.timed is None else pod.timed
            for edge in pod.slow if edges is None else edges:
                late = pod.slow.get(edge)
                if late is not None:
                    _add(self.slow.setdefault(edge, deque(maxlen=WINDOW)), minute, timed, late)
        _add(self.counts, minute, requests, errors)

    def take_gauges(self, minute: int, gauges: Mapping[str, Mapping[str, float]]) -> None:
        for name, values in gauges.items():
            pods = self.gauges.setdefault(name, {})
            for pod, value in values.items():
                if 0 < value < math.inf:
                    last = pods.setdefault(pod, deque(maxlen=WINDOW))
                    if not last or last[-1][0] != minute:  # one value a minute is enough for a median of five minutes
                        last.append((minute, value))

    def share(self, minutes: deque[tuple[int, float, float]], minute: int) -> _Value | None:
        """Median of the minutes' shares in the window that ends with `minute`: an incident of a minute or two is no change.

        None without requests, or with too few minutes of it.
        """
        inside = [entry for entry in minutes if minute - WINDOW < entry[0] <= minute and entry[1] > 0]
        if len(inside) < NEEDED:
            return None
        requests = sum(entry[1] for entry in inside)
        pooled = sum(entry[2] for entry in inside) / requests
        return _Value(median([bad / of for _, of, bad in inside]), pooled, requests, 0.0, 0)

    def gauge(self, name: str, minute: int) -> _Value | None:
        """Median over the pods of each pod's median, as a logarithm."""
        pods = self.gauges.get(name, {})
        for pod in [pod for pod, values in pods.items() if values[-1][0] <= minute - WINDOW]:
            del pods[pod]
        levels = []
        for values in pods.values():
            inside = [value for at, value in values if minute - WINDOW < at <= minute]
            if len(inside) >= NEEDED:
                levels.append(math.log(median(inside)))
        return _Value(median(levels), 0.0, 0.0, spread(levels), len(levels)) if levels else None

    def of(self, signal: str, edge: float | None, minute: int) -> _Value | None:
        """The window's value of "errors", "latency" (at the edge) or "gauge:NAME"."""
        if signal == ERRORS:
            return self.share(self.counts, minute)
        if signal == LATENCY:
            return None if edge is None or edge not in self.slow else self.share(self.slow[edge], minute)
        return self.gauge(signal.removeprefix("gauge:"), minute)


def _add(minutes: deque[tuple[int, float, float]], minute: int, requests: float, bad: float) -> None:
    if minutes and minutes[-1][0] == minute:
        _, before, worse = minutes.pop()
        requests, bad = requests + before, bad + worse
    minutes.append((minute, requests, bad))


class _Past:
    """Five-minute values of stable before the rollout; turned into baselines once, then dropped."""

    def __init__(self) -> None:
        self._minutes = _Minutes()
        self._last: int | None = None
        self._at = -math.inf
        self._values: dict[tuple[str, float | None], deque[tuple[int, _Value]]] = {}

    def take(self, tick: Tick) -> None:
        if tick.at <= self._at:
            return  # it was given before
        self._at = tick.at
        minute = math.floor(tick.at / MINUTE)
        if self._last is not None and minute != self._last and (self._last + 1) % WINDOW == 0:
            self._close(self._last)
        self._last = minute
        self._minutes.take(minute, tick.stable, None)
        self._minutes.take_gauges(minute, {name: arms.get("stable", {}) for name, arms in tick.gauges.items()})

    def _close(self, minute: int) -> None:
        signals: list[tuple[str, float | None]] = [(ERRORS, None)]
        signals += [(LATENCY, edge) for edge in self._minutes.slow if edge != math.inf]
        signals += [(f"gauge:{name}", None) for name in self._minutes.gauges]
        for signal, edge in signals:
            value = self._minutes.of(signal, edge, minute)
            if value is not None:
                self._values.setdefault((signal, edge), deque(maxlen=MOST_WINDOWS)).append((minute, value))

    def baselines(self) -> tuple[dict[str, dict[str, Baseline]], float | None]:
        """By signal and hour of the day (UTC; "all" for any), and the latency edge that tells most."""
        tails = {
            edge: median([value.value for _, value in values])
            for (signal, edge), values in self._values.items()
            if signal == LATENCY and edge is not None and len(values) >= LEAST_WINDOWS
        }
        useful = {edge: tail for edge, tail in tails.items() if 0.001 <= tail <= 0.5}
        best = min(useful, key=lambda edge: abs(math.log(useful[edge] / TYPICAL_TAIL))) if useful else None
        out: dict[str, dict[str, Baseline]] = {}
        for (signal, edge), values in self._values.items():
            if (signal == LATENCY and edge != best) or len(values) < LEAST_WINDOWS:
                continue
            out[signal] = {"all": _usual([value for _, value in values])}
            hours: dict[int, list[tuple[int, _Value]]] = {}
            for minute, value in values:
                hours.setdefault(minute // 60 % 24, []).append((minute // 1440, value))
            for hour, entries in hours.items():
                if len({day for day, _ in entries}) >= LEAST_DAYS and len(entries) >= LEAST_WINDOWS:
                    out[signal][str(hour)] = _usual([value for _, value in entries])
        return out, best


def _usual(values: list[_Value]) -> Baseline:
    """Rounded at once: after a restart the very same numbers are used."""
    found = baseline([value.value for value in values])
    volume, pods = median([value.volume for value in values]), median([value.pods for value in values])
    share = sum(value.pooled * value.volume for value in values) / max(sum(value.volume for value in values), 1.0)
    together = 1.0
    if 0 < share < 1:
        excess = [(value.pooled - share) ** 2 * value.volume / (share * (1 - share)) for value in values]
        together = max(1.0, (sum(excess) + BURST * BURST) / (len(excess) + BURST))
    numbers = [_short(part) for part in (found.centre, found.scale, volume, pods, together)]
    return _baseline([*numbers, len(values)])


class HistoryTest:
    """Errors, slow requests and gauges of the canary, held against the service's own past; a ``WindowTest``.

    Feed ``past`` with stable's ticks from before the rollout (an hour at least; with three days or more the same hour of the
    day is used), then ``step`` with the rollout's. Without a past there are no verdicts. ``export`` is what a restart
    needs of it; the rest is made again from the last :attr:`lookback` seconds of ticks.

    Args:
        policy: tolerance, floors, and what a fail does.
        raw: what ``export`` returned.

    Raises:
        EvidenceError: `raw` is not what ``export`` returns.
    """

    lookback: float = (WINDOW + IN_A_ROW + 2) * MINUTE

    def __init__(self, policy: Policy, raw: Mapping[str, Any] | None = None) -> None:
        self._policy = policy
        self._action = policy.action(Test.HISTORY)
        self._past: _Past | None = _Past()
        self._usual: dict[str, dict[str, Baseline]] = {}
        self._edge: float | None = None
        self._arms = {"canary": _Minutes(), "stable": _Minutes()}
        self._minute: int | None = None
        self._rows: dict[str, int] = {}
        self._verdicts: tuple[TestVerdict, ...] = ()
        if raw:
            self._restore(raw)

    def past(self, tick: Tick) -> None:
        """Take in a tick of stable from before the rollout; ticks after the first ``step`` are left out."""
        if self._action is not None and self._past is not None and tick.complete:
            self._past.take(tick)

    def export(self) -> dict[str, Any]:
        """Return the baselines as JSON: by signal and hour of the day, six numbers each; 60 bytes for a signal and hour."""
        self._learn()
        return {
            "edge": self._edge,
            "usual": {
                signal: {hour: list(astuple(usual)) for hour, usual in hours.items()}
                for signal, hours in self._usual.items()
            },
        }

    def step(self, tick: Tick) -> tuple[TestVerdict, ...]:
        """Take in a tick; return one verdict per signal that has a past. Verdicts change once a minute."""
        if self._action is None:
            return ()
        self._learn()
        if not self._usual:
            return ()
        minute = math.floor(tick.at / MINUTE)
        if self._minute is not None and minute != self._minute:
            self._verdicts = tuple(
                verdict
                for signal, hours in self._usual.items()
                if (verdict := self._judge(signal, hours, self._minute)) is not None
            )
        self._minute = minute
        if tick.complete:
            edges = () if self._edge is None else (self._edge,)
            self._arms["canary"].take(minute, tick.canary, edges)
            self._arms["stable"].take(minute, tick.stable, edges)
            for arm, minutes in self._arms.items():
                known = {
                    name: arms.get(arm, {}) for name, arms in tick.gauges.items() if f"gauge:{name}" in self._usual
                }
                minutes.take_gauges(minute, known)
        return self._verdicts

    def _learn(self) -> None:
        if self._past is not None:
            self._usual, self._edge = self._past.baselines()
            self._past = None

    def _judge(self, signal: str, hours: Mapping[str, Baseline], minute: int) -> TestVerdict | None:
        canary, stable = (self._arms[arm].of(signal, self._edge, minute) for arm in ("canary", "stable"))
        if canary is None or (canary.volume < LEAST_REQUESTS and not signal.startswith("gauge:")):
            self._rows[signal] = 0
            return None
        usual = hours.get(str(minute // 60 % 24), hours["all"])
        alone = stable is None or (stable.volume < LEAST_REQUESTS and not signal.startswith("gauge:"))
        beside = None if alone else stable
        reference = usual.centre if beside is None else beside.value
        scale = self._scale(signal, usual, canary, beside)
        if signal.startswith("gauge:"):
            bad = canary.value - reference > max(UNITS * scale, math.log(max(self._policy.tolerance, 1.05)))
        else:
            allowed = self._policy.tolerance * reference
            bad = canary.value - allowed > UNITS * scale and self._matters(signal, usual, canary, reference, beside)
        self._rows[signal] = self._rows.get(signal, 0) + 1 if bad else 0
        failed = self._rows[signal] >= IN_A_ROW
        shown = [
            math.exp(value) if signal.startswith("gauge:") else value
            for value in (canary.value, reference, usual.centre)
        ]
        return TestVerdict(
            rule=f"{Test.HISTORY.value}:{signal.removeprefix('gauge:')}",
            outcome=Outcome.FAIL if failed else Outcome.PASS,
            state=State.BAD if failed else State.SUSPECT if bad else State.OK,
            action=Action.ALERT if beside is None or self._action is None else self._action,
            message=self._sentence(signal, shown, usual, alone=alone),
            canary=shown[0],
            stable=None if beside is None else shown[1],
            requests=canary.volume or None,
        )

    def _scale(self, signal: str, usual: Baseline, canary: _Value, stable: _Value | None) -> float:
        """Noise of the difference: the past's own, and what the canary's few requests or pods add to it."""
        if signal.startswith("gauge:"):
            between = max(usual.pods, stable.pods if stable else 0.0, LEAST_SCALE)
            return math.hypot(
                usual.scale, between * math.sqrt(1 / canary.across + (1.57 / stable.across if stable else 0.0))
            )
        fewer = max(1.0, usual.volume / canary.volume)
        share = self._share(usual, stable)
        sampling = math.pi / 2 * usual.together * share * (1 - share) / canary.volume
        return math.sqrt(max(usual.scale**2 * fewer, sampling))

    @staticmethod
    def _share(usual: Baseline, stable: _Value | None) -> float:
        return min(max(usual.centre, stable.value if stable else 0.0, 1 / max(usual.volume, 1.0)), 1.0)

    def _matters(self, signal: str, usual: Baseline, canary: _Value, reference: float, stable: _Value | None) -> bool:
        """Return whether shares differ by enough to care, and by more bursts than chance brings together."""
        floor = self._policy.floor if signal == ERRORS else self._policy.latency_floor
        bursts = canary.volume / usual.together
        share = min(canary.value, canary.pooled)
        usually = self._policy.tolerance * max(reference, stable.pooled if stable else 0.0)
        return (
            canary.value - reference >= floor
            and (share - reference) * bursts >= LEAST_ERRORS
            and _surprise(share * bursts, usually * bursts) >= LEAST_SURPRISE
        )

    def _sentence(self, signal: str, shown: Sequence[float], usual: Baseline, *, alone: bool) -> str:
        if signal.startswith("gauge:"):
            said = [amount(value) for value in shown]
            what = f"{signal.removeprefix('gauge:')} of the canary is {said[0]}"
        else:
            said = [f"{number(value * 100)} %" for value in shown]
            failed = "failed" if signal == ERRORS else f"took longer than {number(self._edge or 0.0)} s"
            what = f"{said[0]} of the canary's requests {failed} in the last {WINDOW} minutes"
        beside = "stable gets no traffic" if alone else f"stable has {said[1]}"
        return f"{what}; {beside}, and {said[2]} was usual at this hour ({usual.windows * WINDOW // 60} h of the past)"

    def _restore(self, raw: Mapping[str, Any]) -> None:
        try:
            self._edge = None if raw["edge"] is None else float(raw["edge"])
            self._usual = {
                str(signal): {str(hour): _baseline(parts) for hour, parts in hours.items()}
                for signal, hours in raw["usual"].items()
            }
            _ = [hours["all"] for hours in self._usual.values()]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EvidenceError(
                f"the stored past of the service cannot be read ({error!r}): delete it, and it is learned again"
            ) from error
        self._past = None


def _surprise(count: float, expected: float) -> float:
    """Return -log of Chernoff's bound on the probability of so many where `expected` is the mean of a Poisson number."""
    if count <= expected:
        return 0.0
    return count * math.log(count / expected) - count + expected if expected > 0 else math.inf


def _baseline(parts: Sequence[float]) -> Baseline:
    centre, scale, volume, pods, together, windows = parts
    return Baseline(float(centre), float(scale), float(volume), float(pods), float(together), int(windows))


def _short(value: float) -> float:
    """Six significant digits: what a restart restores must be what was used before it."""
    return float(f"{value:.6g}")
