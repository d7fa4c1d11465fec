"""Three-valued verdicts and why there is none: the words in which analysis speaks to the engine."""

from dataclasses import dataclass
from enum import StrEnum

from canary_rollout.model.spec import Action


class Outcome(StrEnum):
    """What a rule or gate says now."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    NONE = "none"


class Lack(StrEnum):
    """Why there is no verdict (design invariant 3): three different things, treated differently."""

    NO_DATA = "NoData"
    """Was there, is gone; Prometheus down; the query does not parse. Hold, say so, resume by itself."""
    NOT_ENOUGH = "NotEnough"
    """Too few requests yet, a window that still reaches back before the rule began afresh, or a breach that has not
    lasted for ``for`` yet (then ``breached_since`` is set). Extend the hold."""
    NOT_APPLICABLE = "NotApplicable"
    """The series never existed for this app, stable breaches too, or the rule is off: neither holds nor pauses anything."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule's or gate's word at one evaluation.

    Attributes:
        rule: name of the halt rule or gate.
        outcome: pass, fail or none; ``fail`` of a halt rule means it was breached for all of its ``for``.
        action: what a fail of it does; gates carry ``None``.
        lack: why there is no outcome; ``None`` otherwise.
        value: the canary's value (ratio 0..1 for error rates, seconds for latencies), ``None`` when there is none.
        stable: stable's value at the same time, ``None`` when not asked or not there.
        threshold: the bound the value was held against.
        requests: the canary's requests in the window, ``None`` when unknown.
        breached_since: POSIX seconds of the first breaching sample of the present unbroken breach, else ``None``.
        message: one sentence for a person, with the numbers.
        inactive: whether it does not apply because the app has never had that series.
        few: whether all that is missing is requests, and no breach is open.
    """

    rule: str
    outcome: Outcome
    action: Action | None
    lack: Lack | None
    value: float | None
    stable: float | None
    threshold: float | None
    requests: float | None
    breached_since: float | None
    message: str
    inactive: bool = False
    few: bool = False


@dataclass(frozen=True, slots=True)
class Assessment:
    """All verdicts of one rollout at one evaluation time.

    Attributes:
        at: evaluation time, POSIX seconds (the same for every query of the tick).
        rules: verdicts of the halt rules, in the order of the spec.
        exits: verdicts of the present stage's exit gates.
        entering: name of the stage whose entry gates were judged (the next one); empty after the last.
        entries: verdicts of those entry gates.
        tests: verdicts of the sequential comparison's tests, as if each were a halt rule.
        promotion: what the comparison says about going on; a gate that every raise asks. ``None``: there is no comparison.
        received_share: share of the requests that the canary really got in the window, 0..1; ``None`` when unknown.
        received_requests: requests of both versions in the window that ``received_share`` rests on.
    """

    at: float
    rules: tuple[Verdict, ...]
    exits: tuple[Verdict, ...]
    received_share: float | None = None
    received_requests: float = 0.0
    entering: str = ""
    entries: tuple[Verdict, ...] = ()
    tests: tuple[Verdict, ...] = ()
    promotion: Verdict | None = None

    @property
    def stops(self) -> tuple[Verdict, ...]:
        """Everything that may stop a rollout: halt rules and tests of the comparison."""
        return (*self.rules, *self.tests)

    @property
    def every(self) -> tuple[Verdict, ...]:
        """All verdicts, in the order in which they are listed."""
        gate = () if self.promotion is None else (self.promotion,)
        return (*self.tests, *self.rules, *self.exits, *self.entries, *gate)
