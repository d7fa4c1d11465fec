"""Stages: the weights a rollout goes through, and what must hold at the end of each."""

from itertools import pairwise
from typing import Any, Final, Literal, Self

from pydantic import ConfigDict, Field, StrictBool, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.fields import DnsLabel, SpecModel
from canary_rollout.model.halt_rules import HaltRule
from canary_rollout.model.measures import Gate
from canary_rollout.model.units import (
    DURATION_PATTERN,
    FULL,
    WEIGHT_PATTERN,
    Duration,
    Weight,
    duration_expression,
    format_duration,
    format_weight,
    parse_duration,
    parse_weight,
)

_NOT_ZERO: Final = 'a stage serves something: write "0.01%" or more, or mirror with a share for requests to be copied'
_MIRROR_AT_ZERO: Final = 'mirror copies requests before anybody is served: it needs weight "0%"'
_MAX_HOLD_RULE: Final = Rule(
    "!has(self.maxHold) "
    f"|| !self.hold.matches({cel.literal(DURATION_PATTERN)}) || !self.maxHold.matches({cel.literal(DURATION_PATTERN)}) "
    f"|| {duration_expression('self.maxHold')} >= {duration_expression('self.hold')}",
    "maxHold is how far hold may be extended: write a duration that is not below hold, or leave it out (three times hold)",
    "'maxHold ' + self.maxHold + ' is below hold ' + self.hold + ': write a duration that is not below hold, "
    "or leave it out (three times hold)'",
    ".maxHold",
)


class Stage(SpecModel):
    """One step: a weight, how long it is held, who else is routed, what must hold at its end."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                "has(self.mirror) || type(self.weight) != string || !self.weight.matches('^0{1,2}([.]0{1,2})?%$')",
                _NOT_ZERO,
                f"'stage ' + self.name + ' has weight \"' + self.weight + '\": {_NOT_ZERO}'",
                ".weight",
            ),
            Rule(
                "!has(self.mirror) || type(self.weight) != string || self.weight.matches('^0{1,2}([.]0{1,2})?%$')",
                _MIRROR_AT_ZERO,
                field=".mirror",
            ),
            _MAX_HOLD_RULE,
            *(
                Rule(
                    f"!has(self.{gates}) || self.{gates}.all(a, self.{gates}.exists_one(b, "
                    "(has(a.name) ? a.name : has(a.preset) ? a.preset : '') == "
                    "(has(b.name) ? b.name : has(b.preset) ? b.preset : '')))",
                    "the gates of a stage have unique names (the preset's name where none is given): rename one",
                    field=f".{gates}",
                )
                for gates in ("entry", "exit")
            ),
            Rule(
                "!has(self.haltRules) || self.haltRules.all(a, self.haltRules.exists_one(b, b.name == a.name))",
                "two halt rules of a stage have the same name: rename one",
                field=".haltRules",
            ),
        )
    )

    name: DnsLabel = Field(description="What the stage is called in status, events and commands; unique in this list.")
    weight: Weight = Field(
        description='The canary\'s share of the traffic as a percentage in quotes, with at most two decimals: "0.5%".'
    )
    hold: Duration = Field(
        description="How long the weight is held once the data plane has confirmed it, such as 30m or 24h."
    )
    max_hold: Duration | None = Field(
        None,
        description="How far the hold is extended while there are too few requests for a verdict; then a person is "
        "asked. Default: three times hold.",
    )
    cohort: Cohort | None = Field(None, description="People routed to the canary on top of the weight.")
    mirror: Weight | None = Field(
        None,
        description='Only with weight "0%": the share of the requests that are copied to the canary, whose answers nobody '
        'gets, such as "10%". Copied requests have their effects twice: for versions that only read.',
    )
    entry: tuple[Gate, ...] = Field((), max_length=8, description="Gates that must hold when this stage begins.")
    exit: tuple[Gate, ...] = Field((), max_length=16, description="Gates that must hold before the next stage begins.")
    halt_rules: tuple[HaltRule, ...] = Field(
        (),
        max_length=8,
        description="Conditions that stop the rollout in this stage, on top of the rollout's own; one with the name of such a "
        "rule changes it for this stage.",
    )
    approval: Literal["required"] | None = Field(
        None, description="required: a person must approve before this stage begins (kubectl canary approve)."
    )
    enabled: StrictBool = Field(default=True, description="false: the stage is passed over.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.weight == 0 and not self.mirror:
            raise ValueError(f'stage {self.name} has weight "0%": {_NOT_ZERO}')
        if self.mirror is not None and self.weight > 0:
            raise ValueError(_MIRROR_AT_ZERO)
        if self.max_hold is not None and self.max_hold < self.hold:
            raise ValueError(
                f"maxHold {format_duration(self.max_hold)} is below hold {format_duration(self.hold)}: "
                "write a duration that is not below hold, or leave it out (three times hold)"
            )
        for gates in (self.entry, self.exit):
            if twice := repeated([gate.label for gate in gates]):
                raise ValueError(f"the gates of a stage have unique names; found twice: {twice}: rename one")
        if twice := repeated([rule.name for rule in self.halt_rules]):
            raise ValueError(f"two halt rules of a stage have the same name; found twice: {twice}: rename one")
        return self

    @property
    def mirrors(self) -> bool:
        """Whether requests are copied to the canary instead of being given to it."""
        return bool(self.mirror)

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


def repeated(names: list[str]) -> str:
    """The names that occur more than once, joined; empty when all are unique."""
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))


def check_stages(stages: tuple[Stage, ...]) -> None:
    """Refuse a stage list that does not rise to 100 %.

    Raises:
        ValueError: names the stage and both weights.
    """
    if twice := repeated([stage.name for stage in stages]):
        raise ValueError(f"stages have unique names; found twice: {twice}: rename one")
    enabled = [stage for stage in stages if stage.enabled]
    if not enabled:
        raise ValueError('at least one stage is enabled, the last of them with weight "100%"')
    if enabled[-1].weight != FULL:
        raise ValueError(
            f'the last enabled stage has weight "100%"; {enabled[-1].name} has "{format_weight(enabled[-1].weight)}": '
            "add a stage or raise it"
        )
    for before, after in pairwise(stages):
        if after.weight <= before.weight:
            raise ValueError(
                f'stage weights rise from each stage to the next; {after.name} has "{format_weight(after.weight)}" after '
                f'"{format_weight(before.weight)}" of {before.name}: change one of them or their order'
            )


_READABLE: Final = f"self.all(s, type(s.weight) == string && s.weight.matches({cel.literal(WEIGHT_PATTERN)}))"
_PERCENT: Final = "double({0}.weight.replace('%', ''))"
_ENABLED: Final = "self.filter(s, s.enabled)"
_LAST: Final = f"{_ENABLED}[{_ENABLED}.size() - 1]"
STAGE_LIST_RULES: Final = cel.rules(
    Rule(
        "self.all(a, self.exists_one(b, b.name == a.name))",
        "two stages have the same name, and commands and status speak of stages by name: rename one",
    ),
    Rule(
        f"{_ENABLED}.size() > 0",
        'at least one stage is enabled, the last of them with weight "100%"',
    ),
    Rule(
        f"{_ENABLED}.size() == 0 || {_LAST}.weight in ['100%', '100.0%', '100.00%']",
        'the last enabled stage has a weight below "100%": raise it, or add a stage with weight "100%" after it',
    ),
    Rule(
        # Unreadable weights are refused where they stand; this rule must not fail to evaluate because of them.
        f"!{_READABLE} || (self.map(s, {_PERCENT.format('s')}).isSorted() "
        f"&& self.all(a, self.exists_one(b, {_PERCENT.format('b')} == {_PERCENT.format('a')})))",
        "a stage's weight is not above the one before it, and stage weights rise: change one of them or their order",
    ),
)
"""CEL of the ``stages`` list, the same checks as :func:`check_stages`."""


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
