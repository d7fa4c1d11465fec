"""``spec.metrics``: where the numbers come from, and which series are whose."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import LabelName, SafeValue, SpecModel, Url
from canary_rollout.model.units import SecondOrMore


class Arms(SpecModel):
    """Which series belong to which version."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                "self.by == 'label' ? has(self.label) && has(self.stable) && has(self.canary) "
                ": !has(self.label) && !has(self.stable) && !has(self.canary)",
                "by: label needs label, stable and canary; by: pod and by: service take none of them",
            ),
            Rule(
                "!has(self.stable) || !has(self.canary) || self.stable != self.canary",
                "the label has different values on stable and canary: change one",
            ),
        )
    )

    by: Literal["pod", "service", "label"] = Field(
        "pod",
        description="pod: the names of each Deployment's pods. service: the Services' names. label: a label of your own.",
    )
    label: LabelName | None = Field(None, description="With by: label, the label that tells the versions apart.")
    stable: SafeValue | None = Field(None, description="With by: label, its value on stable.")
    canary: SafeValue | None = Field(None, description="With by: label, its value on the canary.")

    @model_validator(mode="after")
    def _label_needs_values(self) -> Self:
        given = [value for value in (self.label, self.stable, self.canary) if value is not None]
        if len(given) != (3 if self.by == "label" else 0):
            raise ValueError("by: label needs label, stable and canary; by: pod and by: service take none of them")
        if self.stable is not None and self.stable == self.canary:
            raise ValueError("the label has different values on stable and canary: change one")
        return self


class Metrics(SpecModel):
    """Where the numbers come from."""

    prometheus: Url = Field(
        description="Address of Prometheus, such as http://prometheus.monitoring:9090. No credentials in it."
    )
    interval: SecondOrMore = Field(default=10.0, description="Time between two evaluations.")
    source: Literal["app", "agent"] = Field(
        "app",
        description="Whose series the presets read. app: http_requests_total and http_request_duration_seconds. agent: "
        "the nginx agent's counters.",
    )
    arms: Arms = Field(default_factory=Arms, description="Which series belong to which version.")
    window: SecondOrMore = Field(
        default=300.0, description="Time range that rates and quantiles are taken over where a rule names none."
    )
    status_label: LabelName = Field(
        "status", description="Label that holds the HTTP status (some libraries call it code)."
    )
    timeout: SecondOrMore = Field(default=5.0, description="Longest wait for one query.")
