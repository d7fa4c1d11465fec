"""Halt rules: as written (maybe partial), over the standard ones, and merged by name.

What a rule measures is in ``measures``.
"""

from typing import Any, ClassVar, Final, Self

from pydantic import ConfigDict, Field, StrictBool, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import DnsLabel
from canary_rollout.model.measures import MEASURES, ONE_MEASURE, Action, Measure, filled, listed, no_baseline_without
from canary_rollout.model.standard_rules import STANDARD_NAMES, STANDARD_RULES
from canary_rollout.model.units import Duration, Number

_STANDARD: Final = f"self.name in [{', '.join(map(cel.literal, STANDARD_NAMES))}]"
_OFF: Final = "(has(self.enabled) && !self.enabled)"
RULE_BOUNDS: Final = ("above", "below", "aboveRatio", "belowRatio", "aboveSigma")


class HaltRule(Measure):
    """A condition that stops a rollout when it has held for ``for``.

    As written it may be partial: one with the name of a standard rule that leaves out what is measured or the bound changes only what
    it names, and one that is only switched off (``enabled: false``) needs nothing else.
    """

    PARTIAL: ClassVar[bool] = True
    """Its defaults are not in the CRD: filled in by the API server, they would overwrite the standard rule's own."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                f"{ONE_MEASURE.rule} || (({_STANDARD} || {_OFF}) && {' && '.join(f'!has(self.{name})' for name in MEASURES)})",
                ONE_MEASURE.message,
                ONE_MEASURE.expression,
            ),
            Rule(
                f"has(self.alert) ? {' && '.join(f'!has(self.{name})' for name in RULE_BOUNDS)} : "
                f"{cel.only_one(*RULE_BOUNDS)} || (({_STANDARD} || {_OFF}) && "
                f"{' && '.join(f'!has(self.{name})' for name in RULE_BOUNDS)})",
                f"a halt rule names exactly one of {listed(RULE_BOUNDS)}, and one with an alert none",
                f"'halt rule ' + self.name + ' names exactly one of {listed(RULE_BOUNDS)}; found ' + "
                + cel.found(*RULE_BOUNDS),
            ),
            no_baseline_without(("aboveRatio", "belowRatio"), "aboveSigma"),
        )
    )

    name: DnsLabel = Field(
        description="What the rule is called in status, events and metrics; unique in this list. With the name of a "
        "standard rule and without a measure or a bound, only the fields named here are changed in that one."
    )
    above: Number | None = Field(None, description="Breached while the canary's value is above this.")
    below: Number | None = Field(None, description="Breached while the canary's value is below this.")
    above_ratio: Number | None = Field(
        None, description="Breached while the canary's value is above this many times the baseline."
    )
    below_ratio: Number | None = Field(
        None, description="Breached while the canary's value is below this many times the baseline."
    )
    above_sigma: Number | None = Field(
        None, description="Breached while the canary's value is more than this many spreads above the baseline."
    )
    for_: Duration = Field(
        default=0.0, alias="for", description="How long the breach must last without a break. Default: 0s."
    )
    unless_stable_too: StrictBool = Field(
        default=True,
        description="A threshold that stable breaches too says nothing about the canary: no verdict then. Default: true.",
    )
    action: Action = Field(
        Action.ROLLBACK,
        description="What happens. Rollback: weight 0, and this revision stays there. Pause: the weight is held until "
        "somebody says resume. Alert: it is said, nothing more. Default: Rollback.",
    )
    dry_run: StrictBool = Field(
        default=False, description="true: what the rule would do is said and not done. Default: false."
    )
    enabled: StrictBool = Field(default=True, description="false: the rule is listed but not evaluated. Default: true.")

    @property
    def ratio(self) -> float | None:
        """The bound as a multiple of the baseline, if it is one."""
        return self.above_ratio if self.above_ratio is not None else self.below_ratio

    @property
    def sigma(self) -> float | None:
        """The bound in spreads above the baseline, if it is one."""
        return self.above_sigma

    @property
    def partial(self) -> bool:
        """Whether it says nothing about what is measured, or nothing about the bound."""
        if self.alert is not None:
            return False
        bounds = (self.above, self.below, self.above_ratio, self.below_ratio, self.above_sigma)
        return (self.preset is None and self.query is None) or all(bound is None for bound in bounds)

    @model_validator(mode="after")
    def _whole_or_known(self) -> Self:
        may_be_partial = self.name in STANDARD_NAMES or not self.enabled
        if not may_be_partial or filled(self, MEASURES):
            self._check_measure(f"halt rule {self.name}: ")
        if not may_be_partial or filled(self, RULE_BOUNDS):
            self._check_bound(f"halt rule {self.name}", RULE_BOUNDS)
        return self

    def over(self, base: "HaltRule") -> "HaltRule":
        """``base`` with the fields that this rule names; a measure or a bound replaces the one that was there."""
        named: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        aliases = {field.alias: name for name, field in type(self).model_fields.items()}
        for group in (MEASURES, RULE_BOUNDS):
            if filled(self, group):
                named.update({aliases[name]: getattr(self, aliases[name]) for name in group})
        if filled(self, RULE_BOUNDS) and self.baseline is None:
            named["baseline"] = None
        return base.model_copy(update=named)


def merged(*layers: tuple[HaltRule, ...]) -> tuple[HaltRule, ...]:
    """Rules by name: a partial one changes the one before it (or the standard one), a whole one takes its place."""
    rules: dict[str, HaltRule] = {}
    for layer in layers:
        for rule in layer:
            base = (rules.get(rule.name) or STANDARD.get(rule.name)) if rule.partial else None
            rules[rule.name] = rule if base is None else rule.over(base)
    return tuple(rules.values())


def _standard() -> dict[str, HaltRule]:
    return {raw["name"]: HaltRule.model_validate(raw) for raw in STANDARD_RULES}


STANDARD: Final = _standard()
"""The standard rules by name."""


def default_halt_rules() -> tuple[HaltRule, ...]:
    """What every rollout is watched by unless it says ``defaultHaltRules: false``."""
    return tuple(STANDARD.values())
