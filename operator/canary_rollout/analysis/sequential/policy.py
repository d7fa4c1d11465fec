"""What a user decides about the comparison, and how the tests share the false-alarm budget."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from canary_rollout.errors import CanaryRolloutError
from canary_rollout.model.measures import Action


class PolicyError(CanaryRolloutError, ValueError):
    """A setting of the comparison that makes no sense; the message names it, its value and what is allowed."""


class Test(StrEnum):
    """The tests of the comparison; the value is the name under which a test's verdict is reported."""

    __test__ = False  # pytest collects by name

    ERRORS = "error-comparison"
    LIMIT = "max-error-rate"
    LATENCY = "latency-comparison"
    GAUGES = "gauge-comparison"
    HISTORY = "history-comparison"


_PARTS: Final = {Test.ERRORS: 5, Test.LIMIT: 2, Test.LATENCY: 3, Test.GAUGES: 1, Test.HISTORY: 1}
"""How a budget is shared among those tests that may roll back (analysis method, section 2.5)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings of one rollout's comparison.

    Attributes:
        false_rollback_rate: probability, for the whole rollout, that a healthy canary is rolled back; shared by the
            tests whose action is Rollback. A test with another action has as much for itself.
        tolerance: the canary may be this many times as bad as stable (ratio of error or slow shares).
        floor: least difference of the error shares that matters (0.001 = 0.1 percentage points).
        latency_floor: least difference of the shares of slow requests that matters.
        errors: what the error test does; ``None`` switches a test off.
        latency: what the latency test does.
        gauges: what the gauge test does.
        history: what the history test does.
        max_error_rate: a share of errors that is too high whatever stable does; ``None``: no such limit.
        certify: promotion waits until error shares from here up are excluded; ``None``: it does not.
        min_requests: canary requests in the stage before promotion. The tests that stop need none.
        min_errors: canary errors before the error test may stop the rollout.
        warm_up: seconds for which a new pod's latency is left out of account.
        interval: seconds between two ticks.
    """

    false_rollback_rate: float = 0.01
    tolerance: float = 1.25
    floor: float = 0.001
    latency_floor: float = 0.005
    errors: Action | None = Action.ROLLBACK
    latency: Action | None = Action.PAUSE
    gauges: Action | None = Action.ALERT
    history: Action | None = Action.ALERT
    max_error_rate: float | None = None
    certify: float | None = None
    min_requests: int = 100
    min_errors: int = 3
    warm_up: float = 120.0
    interval: float = 15.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name, low, high in (
            ("false_rollback_rate", 1e-6, 0.5),
            ("tolerance", 1.0, 100.0),
            ("floor", 0.0, 0.5),
            ("latency_floor", 0.0, 0.5),
            ("max_error_rate", 1e-6, 0.99),
            ("certify", 1e-6, 0.99),
            ("interval", 0.1, 3600.0),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise PolicyError(f"{name} is {value:g}: give a number from {low:g} to {high:g}")

    def action(self, test: Test) -> Action | None:
        """Return what a fail of a test does; ``None`` when the test is off."""
        if test is Test.LIMIT:
            return Action.ROLLBACK if self.max_error_rate is not None else None
        if test is Test.ERRORS:
            return self.errors
        if test is Test.LATENCY:
            return self.latency
        return self.gauges if test is Test.GAUGES else self.history

    def alpha(self, test: Test) -> float:
        """Return a test's false-alarm probability for the whole rollout."""
        sharing = [other for other in Test if self.action(other) is Action.ROLLBACK]
        if test not in sharing:
            return self.false_rollback_rate
        return self.false_rollback_rate * _PARTS[test] / sum(_PARTS[other] for other in sharing)
