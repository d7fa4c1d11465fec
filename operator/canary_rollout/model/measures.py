"""What is measured and what follows: halt rules and the gates at the end of a stage."""

from enum import StrEnum
from typing import Any, Final, Literal, Self

from pydantic import ConfigDict, Field, StrictBool, StrictInt, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import DnsLabel, PromQL, SpecModel
from canary_rollout.model.units import Duration, Number, SecondOrMore


class Action(StrEnum):
    """What a failing halt rule does; the worst wins (Rollback > Pause > Alert)."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"
    ALERT = "Alert"


Preset = Literal[
    "error-rate", "latency-p50", "latency-p75", "latency-p95", "latency-p99", "latency-average", "request-rate"
]

_ONE_MEASURE: Final = Rule(
    cel.only_one("preset", "query"),
    "name exactly one of preset and query",
    "'name exactly one of preset (a ready-made query) and query (PromQL of your own); found ' + "
    + cel.found("preset", "query"),
)


class Measure(SpecModel):
    """What is measured: a preset, or a PromQL query of one's own that answers with one number."""

    preset: Preset | None = Field(None, description="A ready-made query. Name either this or query.")
    query: PromQL | None = Field(
        None,
        description="PromQL that answers with one number for one version. $namespace, $deployment, $service, $pods (a "
        "regex of pod names) and $window are filled in for the version asked. Name either this or preset.",
    )
    window: SecondOrMore | None = Field(
        None, description="Time range that rates and quantiles are taken over. Default: metrics.window."
    )
    min_requests: StrictInt = Field(
        100,
        ge=0,
        le=1_000_000_000,
        description="No verdict before the version has had this many requests in the window.",
    )

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        given = [name for name in ("preset", "query") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "name exactly one of preset (a ready-made query) and query (PromQL of your own); "
                f"found {' and '.join(given) or 'none'}"
            )
        return self


class Gate(Measure):
    """A condition that must hold at the end of a stage; it is asked again at the moment of the raise."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            _ONE_MEASURE,
            Rule(
                cel.only_one("max", "min", "maxRatio"),
                "a gate names exactly one of max, min and maxRatio",
                "'a gate names exactly one of max, min and maxRatio; found ' + " + cel.found("max", "min", "maxRatio"),
            ),
            Rule(
                "has(self.name) || has(self.preset)",
                "a gate with a query needs a name to be spoken of: add one, as in name: slow-checkouts",
            ),
        )
    )

    name: DnsLabel | None = Field(
        None, description="What the gate is called in status and events. Default: the preset's name."
    )
    max: Number | None = Field(None, description="The canary's value must not be above this.")
    min: Number | None = Field(None, description="The canary's value must not be below this.")
    max_ratio: Number | None = Field(None, description="The canary's value must not be above this many times stable's.")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        given = [name for name in ("max", "min", "maxRatio") if getattr(self, _SNAKE.get(name, name)) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a gate names exactly one of max, min and maxRatio; found {' and '.join(given) or 'none'}"
            )
        if self.name is None and self.preset is None:
            raise ValueError("a gate with a query needs a name to be spoken of: add one, as in name: slow-checkouts")
        return self

    @property
    def label(self) -> str:
        """The name shown to people."""
        return self.name or f"{self.preset}"


class HaltRule(Measure):
    """A condition that stops a rollout when it has held for ``for``."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            _ONE_MEASURE,
            Rule(
                cel.only_one("above", "below", "aboveRatio"),
                "a halt rule names exactly one of above, below and aboveRatio",
                "'halt rule ' + self.name + ' names exactly one of above, below and aboveRatio; found ' + "
                + cel.found("above", "below", "aboveRatio"),
            ),
        )
    )

    name: DnsLabel = Field(description="What the rule is called in status, events and metrics; unique in this list.")
    above: Number | None = Field(None, description="Breached while the canary's value is above this.")
    below: Number | None = Field(None, description="Breached while the canary's value is below this.")
    above_ratio: Number | None = Field(
        None, description="Breached while the canary's value is above this many times stable's."
    )
    for_: Duration = Field(default=0.0, alias="for", description="How long the breach must last without a break.")
    unless_stable_too: StrictBool = Field(
        default=True,
        description="A threshold that stable breaches too says nothing about the canary: no verdict then.",
    )
    action: Action = Field(
        Action.ROLLBACK,
        description="What happens. Rollback: weight 0, and this revision stays there. Pause: the weight is held until "
        "somebody says resume. Alert: it is said, nothing more.",
    )
    enabled: StrictBool = Field(default=True, description="false: the rule is listed but not evaluated.")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        given = [name for name in ("above", "below", "aboveRatio") if getattr(self, _SNAKE.get(name, name)) is not None]
        if len(given) != 1:
            raise ValueError(
                f"halt rule {self.name} names exactly one of above, below and aboveRatio; "
                f"found {' and '.join(given) or 'none'}"
            )
        return self


_SNAKE: Final = {"maxRatio": "max_ratio", "aboveRatio": "above_ratio"}


def default_halt_rules() -> tuple[HaltRule, ...]:
    """What every rollout is watched for unless it names rules of its own."""
    raw: list[dict[str, Any]] = [
        {"name": "error-rate", "preset": "error-rate", "above": "1%", "for": "5m", "action": "Rollback"},
        {"name": "p99-latency", "preset": "latency-p99", "aboveRatio": "5", "for": "10m", "action": "Pause"},
    ]
    return tuple(HaltRule.model_validate(rule) for rule in raw)
