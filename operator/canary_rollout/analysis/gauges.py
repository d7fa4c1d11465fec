"""Gauges (memory, CPU, connections): is the canary's level higher than stable's, and does it grow without end?

Pods are the sample, not points: the values of one pod hang together (lag-1 autocorrelation 0.97 to 1.00 in real data), so
sixty minutes of one pod are one observation, and sixty points of it are still one. Method: analysis method, section 2.3;
the numbers were chosen there by simulation (0.5 to 1 % false alarms an hour, a level of 1.5x found in 90 to 99 %).

Values are kept as one median per pod and minute, so the cost of a tick is one append per pod, and the state is what the last
:attr:`GaugeTest.lookback` seconds of ticks make of it.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from canary_rollout.analysis.robust import median, slope, spread
from canary_rollout.analysis.sequential.counts import Tick
from canary_rollout.analysis.sequential.policy import Policy, Test
from canary_rollout.analysis.sequential.verdicts import State, TestVerdict
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.analysis.wording import number
from canary_rollout.model.measures import Action

MINUTE: Final = 60.0
WINDOW: Final = 5
"""Minutes whose median is a pod's level."""
NEEDED: Final = 3
"""Minutes of the window a pod must have been seen in; also how many minutes in a row a breach must last."""
Z: Final = 4.0
LEAST_SCALE: Final = 0.05
"""Pods that agree better than 5 % are taken to differ by that much: ten pods cannot know it better."""
FEW_RATIO: Final = 1.5
"""With fewer than three stable pods there is no spread to hold a difference against, only a ratio."""
LEAK_WINDOW: Final = 30
LEAK_LEAST: Final = 25
LEAK_AGE: Final = 45
"""Minutes a pod must have been seen for: younger ones fill their caches, and that is no leak."""
LEAK_GROWTH: Final = 0.08
SLOWING: Final = 0.5
"""The later half of the window must grow at least this much as fast as the earlier one."""
LEAK_AHEAD: Final = 60
LEAKING: Final = ("memory", "connection", "goroutine", "thread", "handle", "descriptor")
"""Gauges that are looked at for endless growth: those whose name contains one of these."""
MOST_PODS: Final = 32
"""Pods of a version that are looked at (the first ones by name): bounds the cost of a tick."""
MOST_RATES: Final = 8
"""Stable pods whose growth is looked at: a slope costs as much as everything else of a minute."""
ARMS: Final = ("canary", "stable")


@dataclass(slots=True)
class _Pod:
    """One pod's minutes: (number of the minute, median of the logarithms), oldest first; and the minute under way."""

    minutes: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=LEAK_WINDOW))
    now: list[float] = field(default_factory=list)
    first: int | None = None

    def level(self, minute: int) -> float | None:
        """Median of the window that ends with `minute`; None when it was seen too rarely."""
        values = [value for at, value in self.minutes if minute - WINDOW < at <= minute]
        return median(values) if len(values) >= NEEDED else None


@dataclass(slots=True)
class _Gauge:
    """One gauge of both versions."""

    pods: dict[str, dict[str, _Pod]] = field(default_factory=lambda: {arm: {} for arm in ARMS})
    minute: int | None = None
    high: int = 0
    few: int = 0
    leak: int = 0
    verdict: TestVerdict | None = None


@dataclass(frozen=True, slots=True)
class _Levels:
    """Both versions' levels in natural logarithms, one number per pod, and what they say."""

    canary: list[float]
    stable: list[float]

    @property
    def difference(self) -> float:
        return median(self.canary) - median(self.stable)

    @property
    def z(self) -> float:
        """Difference of the medians in standard errors; 1.57 = pi/2 is the price of a median against a mean."""
        scale = max(spread(self.stable), LEAST_SCALE)
        return self.difference / (scale * math.sqrt(1 / len(self.canary) + 1.57 / len(self.stable)))


class GaugeTest:
    """Levels and growth of every gauge in the ticks, canary against stable; a ``WindowTest``.

    Fails (with the policy's action for gauges) when the canary's pods lie more than 4 robust standard errors and more than
    the tolerance above stable's for 3 minutes in a row. Endless growth, or a ratio above 1.5 to one or two stable pods, is
    no fail but a suspicion: no promotion meanwhile. A lower level never fails.

    Args:
        policy: tolerance, warm-up and what a fail does.
        limits: by gauge name, the value at which things break (a memory limit), in the gauge's unit. A gauge without one
            that stays below 1.5 is taken for a share of its limit; any other is held against stable's level.
    """

    def __init__(self, policy: Policy, limits: Mapping[str, float] | None = None) -> None:
        self._action = policy.action(Test.GAUGES)
        self._tolerance = math.log(max(policy.tolerance, 1.05))
        self._warm_up = math.ceil(policy.warm_up / MINUTE)
        self._limits = dict(limits or {})
        self._gauges: dict[str, _Gauge] = {}
        self.lookback = (LEAK_AGE + NEEDED + self._warm_up + 2) * MINUTE

    def past(self, tick: Tick) -> None:
        """Leave a tick from before the rollout out: both versions are compared from its first tick on.

        A restarted process is given the rollout's ticks again and no others, and must come to the same windows.
        """

    def step(self, tick: Tick) -> tuple[TestVerdict, ...]:
        """Take in a tick; return one verdict per gauge that either version has had in the last minutes.

        Verdicts change once a minute. A value that is no positive finite number is left out; an incomplete tick changes
        nothing. The canary's pods count from the end of their warm-up.
        """
        if self._action is None:
            return ()
        minute = math.floor(tick.at / MINUTE)
        if tick.complete:
            for name, arms in tick.gauges.items():
                gauge = self._gauges.setdefault(name, _Gauge(minute=minute))
                self._close(name, gauge, minute)
                for arm in ARMS:
                    self._take(gauge.pods[arm], arms.get(arm, {}), minute)
        for name, gauge in self._gauges.items():
            self._close(name, gauge, minute)
        self._gauges = {name: gauge for name, gauge in self._gauges.items() if any(gauge.pods.values())}
        return tuple(gauge.verdict for gauge in self._gauges.values() if gauge.verdict is not None)

    @staticmethod
    def _take(pods: dict[str, _Pod], values: Mapping[str, float], minute: int) -> None:
        names = sorted(values)[:MOST_PODS] if len(values) > MOST_PODS else values
        for name in names:
            value = values[name]
            if 0 < value < math.inf:
                pod = pods.get(name)
                if pod is None:
                    pod = pods[name] = _Pod(first=minute)
                pod.now.append(value)

    def _close(self, name: str, gauge: _Gauge, minute: int) -> None:
        """End the minutes before `minute`, and judge as of the last one that had values."""
        done = gauge.minute
        if done is None or done == minute:
            return
        gauge.minute = minute
        for arm, pods in gauge.pods.items():
            for pod_name, pod in list(pods.items()):
                warm = arm == "stable" or done - (pod.first or 0) >= self._warm_up
                if pod.now and warm:
                    pod.minutes.append((done, math.log(median(pod.now))))
                pod.now.clear()
                if not warm:
                    continue
                if not pod.minutes or pod.minutes[-1][0] <= minute - WINDOW - 1:
                    del pods[pod_name]
        self._judge(name, gauge, done)

    def _judge(self, name: str, gauge: _Gauge, minute: int) -> None:
        levels = _Levels(
            *([level for pod in gauge.pods[arm].values() if (level := pod.level(minute)) is not None] for arm in ARMS)
        )
        if not levels.canary:
            gauge.high = gauge.few = gauge.leak = 0
            gauge.verdict = self._say(
                name, (Outcome.NONE, State.NOT_ENOUGH), f"{name}: no canary pod has {NEEDED} minutes of it yet", None
            )
            return
        growing = self._growing(name, gauge, levels, minute)
        gauge.leak = gauge.leak + 1 if growing else 0
        verdict = self._level_verdict(name, gauge, levels)
        if gauge.leak >= NEEDED and verdict.outcome is Outcome.FAIL:
            verdict = replace(verdict, message=f"{verdict.message}; {growing}")
        elif gauge.leak >= NEEDED:
            verdict = self._say(name, (Outcome.NONE, State.SUSPECT), f"{name}: {growing}", levels)
        gauge.verdict = verdict

    def _level_verdict(self, name: str, gauge: _Gauge, levels: _Levels) -> TestVerdict:
        mine = f"{name}: {_pods(levels.canary, 'canary')} at {_amount(levels.canary)}"
        if not levels.stable:
            gauge.high = gauge.few = 0
            return self._say(name, (Outcome.NONE, State.NO_CONTROL), f"{mine}, no stable pod to compare with", levels)
        ratio = math.exp(levels.difference)
        both = f"{mine}, {_pods(levels.stable, 'stable')} at {_amount(levels.stable)} ({number(ratio)}x)"
        if len(levels.stable) < NEEDED:
            gauge.high = 0
            gauge.few = gauge.few + 1 if levels.difference > math.log(FEW_RATIO) else 0
            if gauge.few >= NEEDED:
                return self._say(
                    name, (Outcome.NONE, State.SUSPECT), f"{both}; too few stable pods to know what is usual", levels
                )
            return self._say(name, (Outcome.PASS, State.OK), both, levels)
        gauge.few = 0
        gauge.high = gauge.high + 1 if levels.difference > self._tolerance and levels.z > Z else 0
        if gauge.high >= NEEDED:
            allowed = math.exp(self._tolerance)
            text = f"{both} for {NEEDED} minutes and more: above {number(allowed)}x and far outside what stable's pods differ among themselves"
            return self._say(name, (Outcome.FAIL, State.BAD), text, levels, worse_by=ratio)
        return self._say(name, (Outcome.PASS, State.SUSPECT if gauge.high else State.OK), both, levels)

    def _growing(self, name: str, gauge: _Gauge, levels: _Levels, minute: int) -> str:
        """What the canary pod that grows fastest is heading for, or "" when none of them grows beyond its limit."""
        if not any(word in name.lower() for word in LEAKING):
            return ""
        suspects = []
        for pod in gauge.pods["canary"].values():
            rate = _rate(pod, minute)
            if rate is not None and _steady(pod, minute, rate):
                suspects.append((rate, pod.minutes[-1][1]))
        if not suspects:
            return ""
        rate, now = max(suspects)
        stable = [gauge.pods["stable"][pod] for pod in sorted(gauge.pods["stable"])[:MOST_RATES]]
        rates = [usual for pod in stable if (usual := _rate(pod, minute, least=-math.inf)) is not None]
        if rates and rate <= max(median(rates), 0.0) + (Z * spread(rates) if len(rates) >= NEEDED else 0.0):
            return ""
        limit, what = self._limit(name, now, levels)
        if now + rate * LEAK_AHEAD <= limit:
            return ""
        left = max(0.0, (limit - now) / rate)
        hourly = number(math.expm1(rate * LEAK_AHEAD) * 100)
        return f"a canary pod grows by {hourly} % an hour, and passes {what} in {left:.0f} minutes"

    def _limit(self, name: str, now: float, levels: _Levels) -> tuple[float, str]:
        """Logarithm of what must not be passed, and its name."""
        if name in self._limits:
            return math.log(self._limits[name]), f"its limit of {amount(self._limits[name])}"
        if now < math.log(FEW_RATIO):
            return 0.0, "its limit"
        usual = median(levels.stable) if levels.stable else now
        return (
            usual + self._tolerance,
            f"{number(math.exp(self._tolerance))}x of {'stable' if levels.stable else 'its present level'}",
        )

    def _say(
        self,
        name: str,
        said: tuple[Outcome, State],
        message: str,
        levels: _Levels | None,
        worse_by: float | None = None,
    ) -> TestVerdict:
        return TestVerdict(
            rule=f"{Test.GAUGES.value}:{name}",
            outcome=said[0],
            state=said[1],
            action=self._action or Action.ALERT,
            message=message,
            canary=math.exp(median(levels.canary)) if levels and levels.canary else None,
            stable=math.exp(median(levels.stable)) if levels and levels.stable else None,
            worse_by=worse_by,
        )


def _window(pod: _Pod, minute: int) -> list[tuple[float, float]]:
    return [(float(at), value) for at, value in pod.minutes if minute - LEAK_WINDOW < at <= minute]


def _rate(pod: _Pod, minute: int, least: float = LEAK_GROWTH / 2) -> float | None:
    """Growth a minute (of the logarithm) over the leak window.

    None when the pod is too young, has gaps, or has not grown by `least` from one end to the other: most have not, and
    a Theil-Sen slope is dear.
    """
    points = _window(pod, minute)
    if len(points) < LEAK_LEAST or pod.first is None or minute - pod.first < LEAK_AGE:
        return None
    ends = median([value for _, value in points[-WINDOW:]]) - median([value for _, value in points[:WINDOW]])
    return slope(points) if ends > least else None


def _steady(pod: _Pod, minute: int, rate: float) -> bool:
    """More than 8 % and more than the noise explains, and not slowing down as what fills a cache does."""
    points = _window(pod, minute)
    middle = (points[0][0] + points[-1][0]) / 2
    early = slope([point for point in points if point[0] <= middle])
    recent = slope([point for point in points if point[0] > middle])
    growth = rate * (points[-1][0] - points[0][0])
    noise = spread([value - rate * at for at, value in points])
    return math.expm1(growth) > LEAK_GROWTH and growth > Z * noise and early > 0 and recent > SLOWING * early


def _pods(levels: list[float], arm: str) -> str:
    return f"{len(levels)} {arm} pod{'s' if len(levels) > 1 else ''}"


def _amount(levels: list[float]) -> str:
    return amount(math.exp(median(levels)))


def amount(value: float) -> str:
    """Return a number of any unit for a sentence: three significant digits, with k, M or G (powers of a thousand)."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return number(value)
