"""``spec`` of a CanaryRollout: what the user writes. Frozen, validated, in inside units (see ``units``)."""

from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from canary_rollout.model.units import FULL, Duration, Number, Weight, format_weight, parse_duration, parse_weight

GROUP: Final = "canaryrollout.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "canaryrollouts"
KIND: Final = "CanaryRollout"

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\z", max_length=63)]
DnsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\z", max_length=253)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,62}\z", max_length=63)]
SafeValue = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}\z", max_length=64)]
LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*\z", max_length=63)]
PromQL = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?\z", max_length=512)]
PathPointer = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~-]+)+\z", max_length=256)]


class SpecModel(BaseModel):
    """Base of every part of the spec: camelCase outside, unknown fields refused, immutable."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Promotion(StrEnum):
    """Who brings stable up to date at the end."""

    COPY_TEMPLATE = "CopyTemplate"
    MANUAL = "Manual"


class Action(StrEnum):
    """What a failing halt rule does; the worst wins (Rollback > Pause > Alert)."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"
    ALERT = "Alert"


class Scaling(SpecModel):
    """Replicas the operator gives the canary's Deployment; without it the operator never touches them."""

    replicas: int = Field(ge=1, le=10_000, description="Replicas while a rollout is under way.")
    idle_replicas: int = Field(
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
        None, description="Let the operator scale the canary; absent: its replicas are yours."
    )


class Workload(SpecModel):
    """Who is stable, who is canary."""

    stable: StableVersion
    canary: CanaryVersion
    promotion: Promotion = Field(
        Promotion.COPY_TEMPLATE,
        description="CopyTemplate: the operator copies the canary's pod template to stable. Manual: somebody (Git) does.",
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
    progress_deadline: Duration = Field(
        default=600.0, description="How long pods may take to become ready before the rollout is reported Stalled."
    )


class Cohort(SpecModel):
    """People routed to the canary by a header or a cookie, on top of the weight."""

    header: HeaderName | None = Field(None, description="Request header to look at.")
    cookie: HeaderName | None = Field(None, description="Cookie to look at.")
    values: tuple[SafeValue, ...] = Field(min_length=1, max_length=64, description="Values that belong to the cohort.")

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if (self.header is None) == (self.cookie is None):
            raise ValueError("a cohort names exactly one of header and cookie")
        return self


class Sticky(SpecModel):
    """The same tenant always gets the same version (within a weight; never leaves the canary as the weight rises)."""

    header: HeaderName | None = Field(None, description="Request header that names the tenant, such as X-Tenant-ID.")
    cookie: HeaderName | None = Field(None, description="Cookie that names the tenant.")
    fallback: Literal["clientIP", "request"] = Field(
        "request",
        description="What decides when the header or cookie is absent: the client's address, or each request anew.",
    )

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if (self.header is None) == (self.cookie is None):
            raise ValueError("sticky names exactly one of header and cookie")
        return self


class ResponseHeaders(SpecModel):
    """Names of the headers that tell the client and the app which version answered; an empty string switches one off."""

    cohort: HeaderName | Literal[""] = Field("X-Canary-Cohort", description="Header with the cohort; empty: not sent.")
    version: HeaderName | Literal[""] = Field(
        "X-Canary-Version", description="Header with the version; empty: not sent."
    )


class NginxTraffic(SpecModel):
    """Our own nginx with the agent beside it."""

    service: DnsLabel = Field(
        description="Service that selects the nginx pods; all of them confirm before a step counts."
    )
    config_map: DnsName | None = Field(
        None, description="ConfigMap the operator writes for the agents; default: the CanaryRollout's name plus -nginx."
    )
    listen: int = Field(8080, ge=1024, le=65535, description="Port nginx listens on.")
    stale_after: Duration = Field(
        default=120.0, description="A proxy whose agent cannot renew its lease for this long serves stable only."
    )
    mode: Literal["auto", "njs", "reload"] = Field(
        "auto", description="njs: weights change in shared memory. reload: split_clients. auto: njs where nginx has it."
    )


class IngressNginxTraffic(SpecModel):
    """The community ingress-nginx controller: a canary Ingress beside the user's own."""

    ingress: DnsName = Field(description="The Ingress that routes to the stable Service; it is never changed.")
    settle: Duration = Field(
        default=5.0, description="Time after a write until the controller is taken to have it; it reports nothing."
    )


class Traffic(SpecModel):
    """Exactly one router, and how requests are told apart."""

    nginx: NginxTraffic | None = None
    ingress_nginx: IngressNginxTraffic | None = None
    sticky: Sticky | None = Field(None, description="Absent: every request is decided by itself.")
    response_headers: ResponseHeaders = Field(default_factory=ResponseHeaders)

    @model_validator(mode="after")
    def _one_router(self) -> Self:
        given = [name for name in ("nginx", "ingressNginx") if getattr(self, _SNAKE[name]) is not None]
        if len(given) != 1:
            raise ValueError(f"traffic names exactly one router, found {len(given)}: {', '.join(given) or 'none'}")
        return self

    @property
    def router(self) -> str:
        """Name of the one router that is set, as in the resource (``nginx``, ``ingressNginx``)."""
        return "nginx" if self.nginx is not None else "ingressNginx"


_SNAKE: Final = {"nginx": "nginx", "ingressNginx": "ingress_nginx"}


class Arms(SpecModel):
    """Which series belong to which version."""

    by: Literal["pod", "service", "label"] = Field("pod", description="pod: names of each Deployment's pods.")
    label: LabelName | None = Field(None, description="With by: label, the label that tells the versions apart.")
    stable: SafeValue | None = Field(None, description="With by: label, its value on stable.")
    canary: SafeValue | None = Field(None, description="With by: label, its value on the canary.")

    @model_validator(mode="after")
    def _label_needs_values(self) -> Self:
        if (self.by == "label") != (None not in {self.label, self.stable, self.canary}):
            raise ValueError("arms by: label needs label, stable and canary; by: pod and by: service take none of them")
        return self


class Metrics(SpecModel):
    """Where the numbers come from."""

    prometheus: Url = Field(description="Address of Prometheus, such as http://prometheus.monitoring:9090.")
    interval: Duration = Field(default=10.0, description="Time between two evaluations.")
    source: Literal["app", "agent"] = Field(
        "app",
        description="app: http_requests_total and http_request_duration_seconds. agent: the nginx agent's counters.",
    )
    arms: Arms = Field(default_factory=Arms)
    window: Duration = Field(default=300.0, description="Range of rates and quantiles where a rule names none.")
    status_label: LabelName = Field("status", description="Label that holds the HTTP status (code in some libraries).")
    timeout: Duration = Field(default=5.0, description="Longest wait for one query.")


Preset = Literal[
    "error-rate", "latency-p50", "latency-p75", "latency-p95", "latency-p99", "latency-average", "request-rate"
]


class Measure(SpecModel):
    """What is measured: a preset, or a PromQL query of one's own that answers with one number."""

    preset: Preset | None = Field(None, description="A ready-made query.")
    query: PromQL | None = Field(
        None,
        description="PromQL for one version. $namespace, $deployment, $service, $pods (a regex) and $window are filled in "
        "for the version asked.",
    )
    window: Duration | None = Field(None, description="Range of the rates; default: metrics.window.")
    min_requests: int = Field(
        100,
        ge=0,
        le=1_000_000_000,
        description="No verdict before the version has had this many requests in the window.",
    )

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if (self.preset is None) == (self.query is None):
            raise ValueError("name exactly one of preset and query")
        return self


class Gate(Measure):
    """Must hold at the end of a stage; evaluated again at the raise."""

    name: DnsLabel | None = Field(None, description="Default: the preset's name.")
    max: Number | None = Field(None, description="The canary's value must not be above this.")
    min: Number | None = Field(None, description="The canary's value must not be below this.")
    max_ratio: Number | None = Field(None, description="The canary's value must not be above this many times stable's.")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if [self.max, self.min, self.max_ratio].count(None) != 2:
            raise ValueError("a gate names exactly one of max, min and maxRatio")
        if self.name is None and self.preset is None:
            raise ValueError("a gate with a query needs a name")
        return self

    @property
    def label(self) -> str:
        """The name shown to people."""
        return self.name or f"{self.preset}"


class HaltRule(Measure):
    """A condition that stops a rollout when it has held for ``for``."""

    name: DnsLabel
    above: Number | None = Field(None, description="Breached when the canary's value is above this.")
    below: Number | None = Field(None, description="Breached when the canary's value is below this.")
    above_ratio: Number | None = Field(None, description="Breached when above this many times stable's value.")
    for_: Duration = Field(default=0.0, alias="for", description="How long the breach must last without a break.")
    unless_stable_too: bool = Field(
        default=True,
        description="An absolute threshold that stable breaches too says nothing about the canary: no verdict.",
    )
    action: Action = Field(Action.ROLLBACK, description="What happens: Rollback, Pause or Alert.")
    enabled: bool = Field(default=True, description="false: the rule is listed but not evaluated.")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if [self.above, self.below, self.above_ratio].count(None) != 2:
            raise ValueError(f"halt rule {self.name} names exactly one of above, below and aboveRatio")
        return self


class Stage(SpecModel):
    """One step: a weight, how long it is held, who else is routed, what must hold at its end."""

    name: DnsLabel
    weight: Weight = Field(description='Share of the traffic, quoted: "0.5%".')
    hold: Duration = Field(description="How long the weight is held after the data plane has confirmed it.")
    max_hold: Duration | None = Field(
        None, description="How far the hold is extended when there are too few requests; default: three times hold."
    )
    cohort: Cohort | None = Field(None, description="People routed to the canary on top of the weight.")
    exit: tuple[Gate, ...] = Field((), max_length=16, description="Gates that must hold before the next stage.")
    approval: Literal["required"] | None = Field(
        None, description="required: a person must approve before this stage begins."
    )
    enabled: bool = Field(default=True, description="false: the stage is passed over.")

    @property
    def longest_hold(self) -> float:
        """Seconds after which a stage with too few requests asks a person."""
        return self.max_hold if self.max_hold is not None else 3 * self.hold


def default_stages() -> tuple[Stage, ...]:
    """0.5 % -> 5 % -> 25 % -> 100 % (design: the stages a user gets who names none)."""
    raw: list[dict[str, Any]] = [
        {"name": "internal-test", "weight": "0.5%", "hold": "1h"},
        {"name": "friendly", "weight": "5%", "hold": "24h", "exit": [{"preset": "latency-p75", "maxRatio": "1.10"}]},
        {"name": "beta", "weight": "25%", "hold": "48h"},
        {"name": "ga", "weight": "100%", "hold": "1h"},
    ]
    return tuple(Stage.model_validate(stage) for stage in raw)


def default_halt_rules() -> tuple[HaltRule, ...]:
    """What every rollout is watched for unless it names rules of its own."""
    raw: list[dict[str, Any]] = [
        {"name": "error-rate", "preset": "error-rate", "above": "1%", "for": "5m", "action": "Rollback"},
        {"name": "p99-latency", "preset": "latency-p99", "aboveRatio": "5", "for": "10m", "action": "Pause"},
    ]
    return tuple(HaltRule.model_validate(rule) for rule in raw)


class OnNoData(SpecModel):
    """What happens when the numbers stop coming. Never a pass, never a fail."""

    hold_for: Duration = Field(default=900.0, description="How long the weight is simply held.")
    then: Literal["Pause"] = Field("Pause", description="Pause: reported as Paused; ends by itself when data returns.")


class CanaryRolloutSpec(SpecModel):
    """A rollout: two versions, one router, stages, and what stops it."""

    workload: Workload
    traffic: Traffic
    metrics: Metrics
    stages: tuple[Stage, ...] = Field(default_factory=default_stages, min_length=1, max_length=32)
    halt_rules: tuple[HaltRule, ...] = Field(default_factory=default_halt_rules, max_length=32)
    paused: bool = Field(default=False, description="true: hold the weight where it is until this is false again.")
    on_no_data: OnNoData = Field(default_factory=OnNoData)

    @model_validator(mode="after")
    def _stages_rise_to_all(self) -> Self:
        check_stages(self.stages)
        names = [rule.name for rule in self.halt_rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"halt rules have unique names; found twice: {', '.join(twice)}")
        return self

    @property
    def active_stages(self) -> tuple[Stage, ...]:
        """The stages a rollout goes through: those that are enabled."""
        return tuple(stage for stage in self.stages if stage.enabled)


def check_stages(stages: tuple[Stage, ...]) -> None:
    """Refuse a stage list that does not rise to 100 %.

    Raises:
        ValueError: names the stage and both weights.
    """
    names = [stage.name for stage in stages]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"stages have unique names; found twice: {', '.join(twice)}")
    enabled = [stage for stage in stages if stage.enabled]
    if not enabled or enabled[-1].weight != FULL:
        last = format_weight(enabled[-1].weight) if enabled else "none"
        raise ValueError(f'the last enabled stage has weight "100%", found {last}')
    for before, after in pairwise(stages):
        if after.weight <= before.weight:
            raise ValueError(
                f"stage weights rise: {after.name} ({format_weight(after.weight)}) is not above "
                f"{before.name} ({format_weight(before.weight)})"
            )
    if stages[0].weight == 0:
        raise ValueError(f'stage {stages[0].name} has weight "0%": a stage serves something')


def stages_from_weights(weights: tuple[str, ...], interval: str) -> tuple[Stage, ...]:
    """Stages for ``kubectl canary start --stages 10,25,50,100 --interval 10m``: named by their weight."""
    parse_duration(interval)
    stages = tuple(
        Stage.model_validate(
            {
                "name": f"w{format_weight(parse_weight(weight))[:-1].replace('.', '-')}",
                "weight": weight,
                "hold": interval,
            }
        )
        for weight in weights
    )
    check_stages(stages)
    return stages
