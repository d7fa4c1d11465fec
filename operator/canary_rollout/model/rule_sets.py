"""Reusable halt rules: the kinds ``HaltRuleSet`` (one namespace) and ``ClusterHaltRuleSet`` (all of them).

A set is written once and referred to by name. Its texts may hold variables (``${tier}``), which each reference fills in; values
are plain words, so that none can end a string of a query.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from canary_rollout.errors import CanaryRolloutError
from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import DnsLabel, DnsName, PromQL, SpecModel, Text
from canary_rollout.model.halt_rules import HaltRule, merged
from canary_rollout.model.measures import Action, BaselineFrom
from canary_rollout.model.metrics import SourceName
from canary_rollout.model.presets import Preset

NAMESPACED: Final = "HaltRuleSet"
CLUSTER: Final = "ClusterHaltRuleSet"
NAMESPACED_PLURAL: Final = "haltrulesets"
CLUSTER_PLURAL: Final = "clusterhaltrulesets"

RuleSetKind = Literal["HaltRuleSet", "ClusterHaltRuleSet"]

_BUILT_IN: Final = frozenset({"namespace", "deployment", "service", "pods", "window"})
"""What every query may name anyway; filled in for the version asked, never by a reference."""
_VARIABLE: Final = re.compile(r"\$\{([a-z][A-Za-z0-9]*)\}")
_NAME: Final = Text(
    r"^[a-z][A-Za-z0-9]*$", 31, "the name of a variable: use a small letter, then letters and digits, as in tier"
)
_VALUE: Final = Text(
    r"^[A-Za-z0-9 ._:/%|-]*$",
    128,
    'the value of a variable: use letters, digits, " ", ".", "_", ":", "/", "%", "|" and "-"',
    shortest=0,
)
VariableName = Annotated[str, _NAME]
VariableValue = Annotated[str, _VALUE]


class RuleSetError(CanaryRolloutError, ValueError):
    """A set that a reference cannot use: a variable without a value, or a rule that is none once they are filled in."""


def _map_of_values(most: int) -> Any:
    return WithJsonSchema(
        {
            "type": "object",
            "maxProperties": most,
            "additionalProperties": {"type": "string", "maxLength": _VALUE.longest, "pattern": _VALUE.pattern},
        }
    )


def _checked_names(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        _NAME.check(name)
    return values


class RuleSetReference(SpecModel):
    """A set of halt rules to take in."""

    name: DnsName = Field(description="Name of the set.")
    kind: RuleSetKind = Field(
        "HaltRuleSet",
        description="HaltRuleSet: one of the rollout's own namespace. ClusterHaltRuleSet: one for all namespaces.",
    )
    variables: Annotated[
        dict[str, VariableValue], Field(max_length=16), AfterValidator(_checked_names), _map_of_values(16)
    ] = Field(default_factory=dict, description="Values of the set's variables, by name.")


class Variable(SpecModel):
    """Something that each reference fills in."""

    name: VariableName = Field(description="How the rules name it: ${tier} for tier.")
    default: VariableValue | None = Field(None, description="Its value where a reference gives none. Absent: one must.")
    description: Annotated[str, Field(max_length=200)] = Field("", description="What it is, for people.")


def _or_variable(pattern: str, longest: int, wanted: str) -> Any:
    return Text(
        rf"^(\$\{{[a-z][A-Za-z0-9]{{0,30}}\}}|{pattern})$", longest, f"{wanted}, or a variable, as in ${{limit}}"
    )


TemplateNumber = Annotated[str, _or_variable(r"[0-9]{1,9}(\.[0-9]{1,6})?%?", 34, 'a number in quotes, as in "1%"')]
TemplateDuration = Annotated[str, _or_variable(r"([0-9]{1,7}(d|h|m|s|ms)){1,5}", 40, 'a duration, as in "5m"')]
_LABEL: Final = Text(
    r"^[A-Za-z0-9._${}|-]{1,512}$",
    512,
    'a label\'s value: use letters, digits, ".", "_", "-" and variables, "|" between alternatives',
)
TemplateLabel = Annotated[str, _LABEL]


class BaselineTemplate(SpecModel):
    """What a ratio or a sigma is held against."""

    from_: BaselineFrom = Field(alias="from", description="As in a halt rule.")
    value: TemplateNumber | None = Field(None, description="With from: Fixed, the value.")


class AlertTemplate(SpecModel):
    """Alerts of Prometheus, by their labels."""

    labels: Annotated[
        dict[str, TemplateLabel],
        Field(min_length=1, max_length=8),
        WithJsonSchema(
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 8,
                "additionalProperties": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": _LABEL.longest,
                    "pattern": _LABEL.pattern,
                },
            }
        ),
    ] = Field(description="Labels that the alerts have, and their values.")
    any_namespace: StrictBool = Field(default=False, description="As in a halt rule.")


class RuleTemplate(SpecModel):
    """A halt rule; numbers, durations, the query and alert labels may be or hold variables."""

    name: DnsLabel = Field(description="What the rule is called; unique in this list.")
    preset: Preset | None = Field(None, description="A ready-made query.")
    query: PromQL | None = Field(None, description="PromQL, as in a halt rule, with ${variables}.")
    alert: AlertTemplate | None = Field(None, description="Alerts that must not fire.")
    source: SourceName | None = Field(None, description="Whose series the preset reads.")
    server: DnsLabel | None = Field(None, description="Which of metrics.servers is asked.")
    window: TemplateDuration | None = Field(None, description="Time range of rates and quantiles.")
    min_requests: StrictInt | None = Field(
        None, ge=0, le=1_000_000_000, description="No verdict before this many requests."
    )
    baseline: BaselineTemplate | None = Field(None, description="What a ratio or a sigma is held against.")
    above: TemplateNumber | None = Field(None, description="Breached above this.")
    below: TemplateNumber | None = Field(None, description="Breached below this.")
    above_ratio: TemplateNumber | None = Field(None, description="Breached above this many times the baseline.")
    below_ratio: TemplateNumber | None = Field(None, description="Breached below this many times the baseline.")
    above_sigma: TemplateNumber | None = Field(
        None, description="Breached more than this many spreads above the baseline."
    )
    for_: TemplateDuration | None = Field(None, alias="for", description="How long the breach must last.")
    unless_stable_too: StrictBool | None = Field(None, description="As in a halt rule.")
    action: Action | None = Field(None, description="Rollback, Pause or Alert.")
    dry_run: StrictBool | None = Field(None, description="As in a halt rule.")
    enabled: StrictBool | None = Field(None, description="As in a halt rule.")


class HaltRuleSetSpec(SpecModel):
    """Halt rules that many rollouts refer to."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                "self.haltRules.all(a, self.haltRules.exists_one(b, b.name == a.name))",
                "two halt rules have the same name: rename one",
                field=".haltRules",
            ),
        )
    )

    description: Annotated[str, Field(max_length=500)] = Field("", description="What the rules are for, for people.")
    variables: tuple[Variable, ...] = Field((), max_length=16, description="What each reference fills in.")
    halt_rules: tuple[RuleTemplate, ...] = Field(min_length=1, max_length=32, description="The rules.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [rule.name for rule in self.halt_rules]
        if len(set(names)) != len(names):
            raise ValueError("two halt rules have the same name: rename one")
        known = {variable.name for variable in self.variables} | _BUILT_IN
        used = set(_VARIABLE.findall(self.model_dump_json()))
        if unknown := sorted(used - known):
            raise ValueError(
                f"the rules use variables that are not declared: {', '.join(unknown)}; add them to variables"
            )
        if shadowed := sorted({variable.name for variable in self.variables} & _BUILT_IN):
            raise ValueError(f"{', '.join(shadowed)} is filled in by itself in every query: choose another name")
        return self

    def instantiate(self, variables: Mapping[str, str]) -> tuple[HaltRule, ...]:
        """The rules with variables filled in.

        Raises:
            RuleSetError: a variable has no value or is not known, or a rule is not valid.
        """
        values = {variable.name: variable.default for variable in self.variables if variable.default is not None}
        known = {variable.name for variable in self.variables}
        if unknown := sorted(variables.keys() - known):
            raise RuleSetError(f"it has no variable {', '.join(unknown)} (known: {', '.join(sorted(known)) or 'none'})")
        values.update(variables)
        if missing := sorted(known - values.keys()):
            raise RuleSetError(f"variable {', '.join(missing)} has no value: add it to variables")
        rules = []
        for template in self.halt_rules:
            raw = template.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
            try:
                rules.append(HaltRule.model_validate(_filled(raw, values)))
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                where = ".".join(map(str, problem["loc"]))
                words = problem["msg"].removeprefix("Value error, ")
                raise RuleSetError(f"rule {template.name}{f' ({where})' if where else ''}: {words}") from error
        return merged(tuple(rules))


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: values.get(found[1], found[0]), value)
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    return value
