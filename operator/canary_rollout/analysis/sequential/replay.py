"""Raw scrapes of any origin through the comparison, in the order in which they arrived."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from canary_rollout.analysis.sequential.comparison import Comparison
from canary_rollout.analysis.sequential.counts import RawSample, Tick
from canary_rollout.analysis.sequential.tracker import CounterTracker
from canary_rollout.analysis.sequential.verdicts import PromotionGate, TestVerdict
from canary_rollout.analysis.verdict import Outcome, Verdict
from canary_rollout.model.measures import Action

_LONGEST_SILENCE: Final = 50
"""Ticks without any line that are evaluated one by one; what follows is the same."""


More = Callable[[Tick, tuple[TestVerdict, ...], PromotionGate], tuple[Verdict, ...]]


@dataclass(frozen=True, slots=True)
class Change:
    """A verdict that is another one than at the tick before.

    Attributes:
        ts: time of the tick, POSIX seconds.
        outcome: the verdict.
        rule: whose.
        message: one sentence.
    """

    ts: float
    outcome: Outcome
    rule: str
    message: str


class Replay:
    """Feeds a comparison from samples and weights. Memory is bounded; nothing is kept but the last values.

    Call :meth:`until` with each line's time of arrival, then :meth:`add` or :meth:`weight` with the line, and
    :meth:`finish` at the end. Ticks count from the first weight; what comes before it is stable's history.

    Args:
        comparison: what judges; fresh.
        tick: seconds between two evaluations.
        more: further verdicts for a tick (threshold rules), given the tick, the comparison's verdicts and its gate.
        warm_up: seconds for which a new pod's latency is left out.
    """

    def __init__(
        self,
        comparison: Comparison,
        tick: float = 15.0,
        more: More | None = None,
        warm_up: float = 120.0,
    ) -> None:
        self._comparison = comparison
        self._tracker = CounterTracker(tick, warm_up)
        self._tick = tick
        self._more = more
        self._weight: int | None = None
        self._origin: float | None = None
        self._done = 0
        self._now: float | None = None
        self._unread = False
        self._silence = 0
        self._outcomes: dict[str, Outcome] = {}
        self._failed = False
        self._halted: Verdict | None = None

    @property
    def failed(self) -> bool:
        """Whether any verdict was a fail, also one that was taken back."""
        return self._failed

    def gate(self) -> PromotionGate:
        """Return the promotion gate as of the last tick; a further verdict that pauses or rolls back holds it, for good."""
        gate = self._comparison.gate()
        if self._halted is None or not gate.promote:
            return gate
        return replace(gate, promote=False, message=f"{self._halted.message}; {gate.message}")

    def until(self, arrival: float) -> Iterator[Change]:
        """Evaluate the ticks before a time of arrival, POSIX seconds. A time before the one before counts as that one."""
        if self._origin is None:
            self._origin = arrival
        self._now = arrival if self._now is None else max(self._now, arrival)
        due = ceil((self._now - self._origin) / self._tick - 1e-9) - 1
        while self._done < due:
            if self._silence >= _LONGEST_SILENCE:
                self._done = due - 1
            yield from self._evaluate()

    def add(self, sample: RawSample) -> None:
        """Take in a sample."""
        self._tracker.add(sample)
        self._unread = True

    def weight(self, ts: float, weight: int) -> None:
        """Take in a change of the weight (basis points) at a time, POSIX seconds."""
        if self._weight is None:
            self._comparison.history(self._tracker.tick(ts, 0))
            self._tracker.begin(ts)
            self._origin, self._done, self._unread = ts, 0, False
        self._weight = weight

    def finish(self) -> Iterator[Change]:
        """Evaluate what is left: the tick that the last lines belong to."""
        if self._unread:
            yield from self._evaluate()

    def _evaluate(self) -> Iterator[Change]:
        self._done += 1
        self._silence = 0 if self._unread else self._silence + 1
        self._unread = False
        at = round((self._origin or 0.0) + self._done * self._tick, 6)
        if self._weight is None:
            self._comparison.history(self._tracker.tick(at, 0))
            return
        tick = self._tracker.tick(at, self._weight)
        tests = self._comparison.step(tick)
        more = () if self._more is None else self._more(tick, tests, self._comparison.gate())
        for other in more:
            if other.outcome is Outcome.FAIL and other.action in {Action.ROLLBACK, Action.PAUSE}:
                self._halted = self._halted or other
        said: list[TestVerdict | Verdict] = [*tests, *more]
        for verdict in said:
            if self._outcomes.get(verdict.rule) is not verdict.outcome:
                self._outcomes[verdict.rule] = verdict.outcome
                self._failed = self._failed or verdict.outcome is Outcome.FAIL
                yield Change(at, verdict.outcome, verdict.rule, verdict.message)
