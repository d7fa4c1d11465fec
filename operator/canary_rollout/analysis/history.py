"""The canary against the service's own past: the same hour of the last days, in medians of five minutes.

Three sigma per tick would be 240 looks an hour at noise that hangs together: 13 to 81 % false alarms an hour. Here centre and
scale come from *five-minute values* of the past, so season and autocorrelation are inside the scale, and the alarm is at 4
of it: 0.0 to 0.2 % an hour (analysis method, section 2.4, with the noise models). Where stable runs beside the canary, the
difference of the two is judged (difference-in-differences), which takes shared incidents out; alone, at 100 %, a fail never
does more than alert: time is the biggest source of change there is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, Final

from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.gauges import amount
from canary_rollout.analysis.sequential.counts import Tick
from canary_rollout.analysis.sequential.policy import Policy, Test
from canary_rollout.analysis.sequential.verdicts import State, TestVerdict
from canary_rollout.analysis.usual import ERRORS, MINUTE, WINDOW, Baseline, Minutes, Past, Value, restored
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.analysis.wording import number
from canary_rollout.model.measures import Action

UNITS: Final = 4.0
"""Scale units between usual and alarming."""
IN_A_ROW: Final = 6
"""Minutes in a row that must be out of the usual: two windows that share no minute, so that one heap of errors is not enough."""
LEAST_REQUESTS: Final = 20
LEAST_ERRORS: Final = 3
"""Bursts (of the size the past had) by which the canary must exceed what is usual: two can always meet."""
LEAST_SURPRISE: Final = 10.0
"""Least -log of Chernoff's bound for that many bursts: of few, the spread tells too little, they have a long tail."""
LEAST_SCALE: Final = 0.05


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
        self._past: Past | None = Past()
        self._usual: dict[str, dict[str, Baseline]] = {}
        self._edge: float | None = None
        self._arms = {"canary": Minutes(), "stable": Minutes()}
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

    def _scale(self, signal: str, usual: Baseline, canary: Value, stable: Value | None) -> float:
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
    def _share(usual: Baseline, stable: Value | None) -> float:
        return min(max(usual.centre, stable.value if stable else 0.0, 1 / max(usual.volume, 1.0)), 1.0)

    def _matters(self, signal: str, usual: Baseline, canary: Value, reference: float, stable: Value | None) -> bool:
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
                str(signal): {str(hour): restored(parts) for hour, parts in hours.items()}
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
