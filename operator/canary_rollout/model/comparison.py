"""``spec.analysis``: the sequential comparison of the canary with stable. What the numbers mean is told in docs/analysis.md."""

from typing import Final, Self

from pydantic import ConfigDict, Field, StrictBool, StrictInt, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import SpecModel
from canary_rollout.model.measures import Action
from canary_rollout.model.units import Number, format_number


class TestActions(SpecModel):
    """What each test of the comparison does when it fails."""

    __test__ = False  # no test of pytest's

    errors: Action = Field(Action.ROLLBACK, description="More of the canary's requests fail than of stable's.")
    latency: Action = Field(Action.PAUSE, description="More of the canary's requests are slow.")
    gauges: Action = Field(Action.ALERT, description="The canary's pods use more memory or CPU than stable's.")
    history: Action = Field(Action.ALERT, description="The canary is far from what this hour was on the last days.")


_LIMITS: Final = (
    ("false_rollback_rate", "falseRollbackRate", 0.000001, 0.5, 'above "0%" and at most "50%"'),
    ("tolerance", "tolerance", 1.0, 100.0, '"1" to "100"'),
    ("floor", "floor", 0.0, 1.0, '"0%" to "100%"'),
    ("max_error_rate", "maxErrorRate", 0.000001, 1.0, 'above "0%" and at most "100%"'),
    ("certify", "certify", 0.000001, 1.0, 'above "0%" and at most "100%"'),
)


def _value(name: str) -> str:
    """CEL expression: the quantity of a quoted number."""
    return f"(self.{name}.endsWith('%') ? double(self.{name}.replace('%', '')) / 100.0 : double(self.{name}))"


class Analysis(SpecModel):
    """The sequential comparison of the canary with stable: always on, looks at every tick, needs no minimum to roll back."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            *(
                Rule(
                    f"!has(self.{name}) || !self.{name}.matches('^[0-9.]+%?$') "
                    f"|| ({_value(name)} >= {low} && {_value(name)} <= {high})",
                    f"{name} is {words}",
                    f"'{name} ' + self.{name} + ' is out of range: write {words}'",
                    f".{name}",
                )
                for _, name, low, high, words in _LIMITS
            )
        )
    )

    enabled: StrictBool = Field(default=True, description="false: the canary is judged by halt rules and gates alone.")
    false_rollback_rate: Number = Field(
        default=0.01,
        description="Share of rollouts of healthy versions that may be rolled back by mistake, whatever the number of stages "
        "and looks. The tests that may roll back share it.",
    )
    tolerance: Number = Field(
        default=1.25, description="How many times stable's error rate the canary's may be without being called worse."
    )
    floor: Number = Field(
        default=0.001, description="Smallest difference of error rates, canary minus stable, that is worth a rollback."
    )
    min_requests: StrictInt = Field(
        100,
        ge=0,
        le=1_000_000_000,
        description="A stage is not left before the canary has had this many requests in it. Rollback needs no minimum.",
    )
    max_error_rate: Number | None = Field(
        None, description="An error rate the canary must not have, however bad stable is. Default: no such limit."
    )
    certify: Number | None = Field(
        None,
        description="A stage is not left before error rates above this are excluded. Default: it is only reported.",
    )
    actions: TestActions = Field(default_factory=TestActions, description="What each test does when it fails.")

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        for field, name, low, high, words in _LIMITS:
            value = getattr(self, field)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} {format_number(value)} is out of range: write {words}")
        return self
