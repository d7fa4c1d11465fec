"""``spec`` of a CanaryRollout: what the user writes. Frozen, validated, in inside units (see ``units``)."""

from enum import StrEnum
from typing import Final, Literal, Self

from pydantic import ConfigDict, Field, StrictBool, StrictInt, field_validator, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.cohorts import Cohort, Regions, RegionWeight
from canary_rollout.model.comparison import Analysis, TestActions
from canary_rollout.model.fields import (
    DnsLabel,
    DnsName,
    HeaderName,
    LabelName,
    PathPointer,
    PromQL,
    SafeValue,
    SpecModel,
    Url,
)
from canary_rollout.model.halt_rules import HaltRule, default_halt_rules, merged
from canary_rollout.model.measures import Action, AlertSelector, Baseline, BaselineFrom, Gate, Measure
from canary_rollout.model.metrics import Arms, Metrics
from canary_rollout.model.presets import PRESETS, Preset
from canary_rollout.model.routers import IngressNginxTraffic, NginxTraffic
from canary_rollout.model.routing import Pin, RequestHeaders, ResponseHeaders, Sticky, Traffic
from canary_rollout.model.rule_sets import RuleSetReference
from canary_rollout.model.stages import (
    STAGE_LIST_RULES,
    Stage,
    check_stages,
    default_stages,
    repeated,
    stages_from_weights,
)
from canary_rollout.model.units import Duration, SecondOrMore

__all__ = [
    "GROUP",
    "KIND",
    "PLURAL",
    "PRESETS",
    "VERSION",
    "Action",
    "AlertSelector",
    "Analysis",
    "Arms",
    "Baseline",
    "BaselineFrom",
    "CanaryRolloutSpec",
    "CanaryVersion",
    "Cohort",
    "DnsLabel",
    "DnsName",
    "Gate",
    "HaltRule",
    "HeaderName",
    "IngressNginxTraffic",
    "LabelName",
    "Measure",
    "Metrics",
    "NginxTraffic",
    "OnNoData",
    "PathPointer",
    "Pin",
    "Preset",
    "PromQL",
    "Promotion",
    "RegionWeight",
    "Regions",
    "RequestHeaders",
    "ResponseHeaders",
    "RuleSetReference",
    "SafeValue",
    "Scaling",
    "SpecModel",
    "StableVersion",
    "Stage",
    "Sticky",
    "TestActions",
    "Traffic",
    "Url",
    "Workload",
    "check_stages",
    "default_halt_rules",
    "default_stages",
    "stages_from_weights",
]

GROUP: Final = "canaryrollout.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "canaryrollouts"
KIND: Final = "CanaryRollout"


class Promotion(StrEnum):
    """Who brings stable up to date at the end."""

    COPY_TEMPLATE = "CopyTemplate"
    MANUAL = "Manual"


class Scaling(SpecModel):
    """Replicas the operator gives the canary's Deployment; without it the operator never touches them."""

    replicas: StrictInt = Field(ge=1, le=10_000, description="Replicas while a rollout is under way.")
    idle_replicas: StrictInt = Field(
        0, ge=0, le=10_000, description="Replicas once the canary serves nothing and has drained."
    )


class StableVersion(SpecModel):
    """The version that serves today."""

    service: DnsLabel = Field(description="Service that selects the stable pods.")
    deployment: DnsName = Field(description="Deployment of the stable pods.")


class CanaryVersion(SpecModel):
    """The version that is tried."""

    service: DnsLabel = Field(description="Service that selects the canary pods.")
    deployment: DnsName = Field(
        description="Deployment of the canary pods; a change of its pod template starts a rollout."
    )
    scaling: Scaling | None = Field(
        None, description="Let the operator scale the canary. Absent: its replicas are yours."
    )


class Workload(SpecModel):
    """Who is stable, who is canary."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            *(
                Rule(
                    f"self.stable.{field} != self.canary.{field}",
                    f"stable and canary are two different {kind}s: name the canary's own",
                    f"'stable and canary are two different {kind}s, both name ' + self.stable.{field} + "
                    "': name the canary\\'s own'",
                    f".canary.{field}",
                )
                for field, kind in (("service", "Service"), ("deployment", "Deployment"))
            )
        )
    )

    stable: StableVersion = Field(description="The version that serves today.")
    canary: CanaryVersion = Field(description="The version that is tried.")
    promotion: Promotion = Field(
        Promotion.COPY_TEMPLATE,
        description="Who brings stable up to date at the end. CopyTemplate: the operator copies the canary's pod "
        "template to stable. Manual: somebody (Git) does.",
    )
    identity_paths: tuple[PathPointer, ...] = Field(
        (),
        max_length=32,
        description="Paths in the pod template that may differ between the two for good, such as "
        "/spec/containers/0/env/VERSION (list elements by index or by name).",
    )
    drain: Duration = Field(
        default=30.0, description="How long requests under way may still take once the canary gets no new ones."
    )
    progress_deadline: SecondOrMore = Field(
        default=600.0, description="How long pods may take to become ready before the rollout is reported Stalled."
    )

    @model_validator(mode="after")
    def _two_of_each(self) -> Self:
        for field, kind in (("service", "Service"), ("deployment", "Deployment")):
            name = getattr(self.stable, field)
            if name == getattr(self.canary, field):
                raise ValueError(
                    f"stable and canary are two different {kind}s, both name {name}: name the canary's own"
                )
        return self


class OnNoData(SpecModel):
    """What happens when the numbers stop coming. Never a pass, never a fail."""

    hold_for: Duration = Field(default=900.0, description="How long the weight is simply held.")
    then: Literal["Pause"] = Field(
        "Pause", description="Pause: reported as Paused; it ends by itself when data returns."
    )


class CanaryRolloutSpec(SpecModel):
    """A rollout: two versions, one router, stages, and what stops it."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                "!has(self.traffic.nginx) || !has(self.traffic.nginx.service) || !(self.traffic.nginx.service in "
                "[self.workload.stable.service, self.workload.canary.service])",
                "traffic.nginx.service selects the nginx pods, not stable or canary: name the Service in front of nginx",
                field=".traffic.nginx.service",
            )
        )
    )

    workload: Workload = Field(description="Who is stable, who is canary.")
    traffic: Traffic = Field(description="Exactly one router, and how requests are told apart.")
    metrics: Metrics = Field(description="Where the numbers come from.")
    stages: tuple[Stage, ...] = Field(
        default_factory=default_stages,
        min_length=1,
        max_length=32,
        description="The steps, in order: weights rise, and the last enabled one is 100%. Default: 0.5% for 1h, 5% for "
        "24h, 25% for 48h, 100% for 1h.",
        json_schema_extra=STAGE_LIST_RULES,
    )
    analysis: Analysis = Field(
        default_factory=Analysis, description="The sequential comparison of the canary with stable."
    )
    halt_rules: tuple[HaltRule, ...] = Field(
        (),
        max_length=32,
        description="Conditions that stop a rollout, on top of the standard ones (docs/halt-rules.md): one with the name of a "
        "standard rule changes or switches off that one.",
        json_schema_extra=cel.rules(
            Rule(
                "self.all(a, self.exists_one(b, b.name == a.name))",
                "two halt rules have the same name, and events and metrics speak of rules by name: rename one",
            )
        ),
    )
    default_halt_rules: StrictBool = Field(
        default=True,
        description="false: of the standard halt rules only those named in haltRules count.",
    )
    halt_rule_sets: tuple[RuleSetReference, ...] = Field(
        (),
        max_length=8,
        description="Reusable halt rules (kinds HaltRuleSet and ClusterHaltRuleSet). Later sets and haltRules change rules of "
        "earlier ones by name.",
    )
    paused: StrictBool = Field(
        default=False,
        description="true: hold the weight where it is until this is false again; rollbacks still happen.",
    )
    on_no_data: OnNoData = Field(
        default_factory=OnNoData,
        description="What happens when the numbers stop coming; that is never a pass and never a fail.",
    )

    @field_validator("stages")
    @classmethod
    def _stages_rise_to_all(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        check_stages(stages)
        return stages

    @field_validator("halt_rules")
    @classmethod
    def _rules_have_unique_names(cls, rules: tuple[HaltRule, ...]) -> tuple[HaltRule, ...]:
        if twice := repeated([rule.name for rule in rules]):
            raise ValueError(f"halt rules have unique names; found twice: {twice}: rename one")
        return rules

    @model_validator(mode="after")
    def _nginx_is_its_own_service(self) -> Self:
        nginx = self.traffic.nginx
        if nginx is not None and nginx.service in {self.workload.stable.service, self.workload.canary.service}:
            raise ValueError(
                "traffic.nginx.service selects the nginx pods, not stable or canary: name the Service in front of nginx"
            )
        return self

    @property
    def active_stages(self) -> tuple[Stage, ...]:
        """The stages a rollout goes through: those that are enabled."""
        return tuple(stage for stage in self.stages if stage.enabled)

    def rules_for(self, stage: Stage | None) -> tuple[HaltRule, ...]:
        """The whole halt rules that count in a stage (``None``: those of the rollout), those that are off included.

        Rules of sets are among them once the spec is the effective one (``model.effective``).
        """
        standard = default_halt_rules() if self.default_halt_rules else ()
        rules = merged(standard, self.halt_rules, stage.halt_rules if stage is not None else ())
        return tuple(rule for rule in rules if not (rule.partial and not rule.enabled))
