"""What was usual: five-minute values of the last days, made into baselines by hour of the day."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from canary_rollout.analysis.robust import median, spread
from canary_rollout.analysis.sequential.counts import TENANT_BUCKET, PodCounts, Tick

MINUTE: Final = 60.0
WINDOW: Final = 5
NEEDED: Final = 3
"""Minutes of a window that must have values."""
LEAST_WINDOWS: Final = 12
"""Five-minute values without which there is no usual: an hour."""
LEAST_DAYS: Final = 3
MOST_WINDOWS: Final = 7 * 288
BURST: Final = 10.0
"""How many errors are taken to come at once where the past is too short to tell, and how many windows that weighs."""
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


class Value(NamedTuple):
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
class Minutes:
    """The last minutes of one version: requests, errors, slow requests by edge, and gauges by pod."""

    counts: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    slow: dict[float, deque[tuple[int, float, float]]] = field(default_factory=dict)
    gauges: dict[str, dict[str, deque[tuple[int, float]]]] = field(default_factory=dict)

    def take(self, minute: int, pods: Iterable[PodCounts], edges: Iterable[float] | None) -> None:
        """Count a minute's requests of all pods; ``edges`` (seconds): whose slow ones, ``None`` for all."""
        requests = errors = 0.0
        slow: dict[float, list[float]] = {}
        for pod in pods:
            if pod.pod.startswith(TENANT_BUCKET):
                continue
            requests += pod.requests
            errors += pod.errors
            timed = pod.requests if pod.timed is None else pod.timed
            for edge in pod.slow if edges is None else edges:
                late = pod.slow.get(edge)
                if late is not None:
                    counts = slow.setdefault(edge, [0.0, 0.0])
                    counts[0] += timed
                    counts[1] += late
        for edge, (timed, late) in slow.items():
            _add(self.slow.setdefault(edge, deque(maxlen=WINDOW)), minute, timed, late)
        _add(self.counts, minute, requests, errors)

    def take_gauges(self, minute: int, gauges: Mapping[str, Mapping[str, float]]) -> None:
        """Note a minute's gauges: by name, by pod."""
        for name, values in gauges.items():
            pods = self.gauges.setdefault(name, {})
            for pod, value in values.items():
                if 0 < value < math.inf:
                    last = pods.setdefault(pod, deque(maxlen=WINDOW))
                    if not last or last[-1][0] != minute:  # one value a minute is enough for a median of five minutes
                        last.append((minute, value))

    def share(self, minutes: deque[tuple[int, float, float]], minute: int) -> Value | None:
        """Median of the minutes' shares in the window that ends with `minute`: an incident of a minute or two is no change.

        None without requests, or with too few minutes of it.
        """
        inside = [entry for entry in minutes if minute - WINDOW < entry[0] <= minute and entry[1] > 0]
        if len(inside) < NEEDED:
            return None
        requests = sum(entry[1] for entry in inside)
        pooled = sum(entry[2] for entry in inside) / requests
        return Value(median([bad / of for _, of, bad in inside]), pooled, requests, 0.0, 0)

    def gauge(self, name: str, minute: int) -> Value | None:
        """Median over the pods of each pod's median, as a logarithm."""
        pods = self.gauges.get(name, {})
        for pod in [pod for pod, values in pods.items() if values[-1][0] <= minute - WINDOW]:
            del pods[pod]
        levels = []
        for values in pods.values():
            inside = [value for at, value in values if minute - WINDOW < at <= minute]
            if len(inside) >= NEEDED:
                levels.append(math.log(median(inside)))
        return Value(median(levels), 0.0, 0.0, spread(levels), len(levels)) if levels else None

    def of(self, signal: str, edge: float | None, minute: int) -> Value | None:
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


class Past:
    """Five-minute values of stable before the rollout; turned into baselines once, then dropped."""

    def __init__(self) -> None:
        self._minutes = Minutes()
        self._last: int | None = None
        self._at = -math.inf
        self._values: dict[tuple[str, float | None], deque[tuple[int, Value]]] = {}

    def take(self, tick: Tick) -> None:
        """Take in a tick of stable; ticks come in order, one that was given before is left out."""
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
            hours: dict[int, list[tuple[int, Value]]] = {}
            for minute, value in values:
                hours.setdefault(minute // 60 % 24, []).append((minute // 1440, value))
            for hour, entries in hours.items():
                if len({day for day, _ in entries}) >= LEAST_DAYS and len(entries) >= LEAST_WINDOWS:
                    out[signal][str(hour)] = _usual([value for _, value in entries])
        return out, best


def _usual(values: list[Value]) -> Baseline:
    """Rounded at once: after a restart the very same numbers are used."""
    found = baseline([value.value for value in values])
    volume, pods = median([value.volume for value in values]), median([value.pods for value in values])
    share = sum(value.pooled * value.volume for value in values) / max(sum(value.volume for value in values), 1.0)
    together = 1.0
    if 0 < share < 1:
        excess = [(value.pooled - share) ** 2 * value.volume / (share * (1 - share)) for value in values]
        together = max(1.0, (sum(excess) + BURST * BURST) / (len(excess) + BURST))
    numbers = [_short(part) for part in (found.centre, found.scale, volume, pods, together)]
    return restored([*numbers, len(values)])


def restored(parts: Sequence[float]) -> Baseline:
    """A baseline out of its six numbers, as they are stored."""
    centre, scale, volume, pods, together, windows = parts
    return Baseline(float(centre), float(scale), float(volume), float(pods), float(together), int(windows))


def _short(value: float) -> float:
    """Six significant digits: what a restart restores must be what was used before it."""
    return float(f"{value:.6g}")
