"""What is measured and what follows: halt rules, and the gates at the two ends of a stage.

The shape, for those who build on it:

- :class:`Measure` says *what*: exactly one of ``preset`` (name), ``query`` (PromQL) and ``alert`` (selector of firing alerts); plus
  ``source`` (whose series the preset reads; default ``metrics.source``), ``server`` (one of ``metrics.servers``), ``window``,
  ``min_requests`` and ``baseline`` (what ratios and sigmas are held against: ``Stable``, ``BeforeRollout``, ``SameHour``, ``Fixed``).
- :class:`HaltRule` adds one bound (``above | below | above_ratio | below_ratio | above_sigma``; none with ``alert``), ``for_``, ``action``,
  ``unless_stable_too``, ``dry_run``, ``enabled``. :class:`Gate` adds one bound (``max | min | max_ratio | min_ratio | max_sigma``) and ``for_``.
- A halt rule *as written* may be partial: one that has the name of a standard rule and leaves out the measure or the bound changes
  only the fields it names. Whole rules come from ``CanaryRolloutSpec.rules_for(stage)``, never from ``spec.halt_rules``.
- ``Stage`` has ``entry`` and ``exit`` (gates) and ``halt_rules`` of its own, merged by name over the rollout's.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StrictInt, WithJsonSchema, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import DnsLabel, PromQL, SpecModel, Text
from canary_rollout.model.metrics import SourceName
from canary_rollout.model.presets import Preset
from canary_rollout.model.standard_rules import STANDARD_NAMES, STANDARD_RULES
from canary_rollout.model.units import Duration, Number, SecondOrMore


class Action(StrEnum):
    """What a failing halt rule does; the worst wins (Rollback > Pause > Alert)."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"
    ALERT = "Alert"


class BaselineFrom(StrEnum):
    """What a ratio or a sigma is held against."""

    STABLE = "Stable"
    BEFORE_ROLLOUT = "BeforeRollout"
    SAME_HOUR = "SameHour"
    FIXED = "Fixed"


class Baseline(SpecModel):
    """What a ratio or a sigma is held against."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                "(self.from == 'Fixed') == has(self.value)",
                "a baseline has a value if it is Fixed, and only then: add value, or take it away",
            )
        )
    )

    from_: BaselineFrom = Field(
        alias="from",
        description="Stable: stable's value now. BeforeRollout: stable's value when the rollout began. SameHour: median of "
        "stable's values at this hour of the last seven days. Fixed: value.",
    )
    value: Number | None = Field(None, description="With from: Fixed, the value.")

    @model_validator(mode="after")
    def _value_if_fixed(self) -> Self:
        if (self.from_ is BaselineFrom.FIXED) != (self.value is not None):
            raise ValueError("a baseline has a value if it is Fixed, and only then: add value, or take it away")
        return self


_ALERT_VALUE: Final = Text(
    r"^(\$namespace|\$service|\$deployment|[A-Za-z0-9._-]{1,63}(\|[A-Za-z0-9._-]{1,63}){0,7})$",
    512,
    'a label\'s value: use letters, digits, ".", "_" and "-", "|" between alternatives, as in critical|page, or '
    "$namespace, $service or $deployment",
)
_LONGEST_LABELS: Final = 8


def _label_names(labels: dict[str, str]) -> dict[str, str]:
    name = Text(r"^[a-zA-Z_][a-zA-Z0-9_]*$", 63, 'the name of a label: use letters, digits and "_", as in severity')
    for label in labels:
        name.check(label)
    return labels


AlertLabels = Annotated[
    dict[str, Annotated[str, _ALERT_VALUE]],
    Field(min_length=1, max_length=_LONGEST_LABELS),
    AfterValidator(_label_names),
    WithJsonSchema(
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": _LONGEST_LABELS,
            "additionalProperties": {
                "type": "string",
                "minLength": 1,
                "maxLength": _ALERT_VALUE.longest,
                "pattern": _ALERT_VALUE.pattern,
            },
        }
    ),
]


class AlertSelector(SpecModel):
    """Alerts of Prometheus, by their labels."""

    labels: AlertLabels = Field(
        description='Labels that the alerts have, and their values; "|" stands between alternatives. $namespace, $service '
        "and $deployment are the canary's."
    )
    any_namespace: StrictBool = Field(
        default=False, description="true: alerts of every namespace count, not only those of the rollout's own."
    )


_MEASURES: Final = ("preset", "query", "alert")
_ONE_OF_THREE: Final = (
    "name exactly one of preset (a ready-made query), query (PromQL of your own) and alert (firing alerts)"
)
_STANDARD: Final = f"self.name in [{', '.join(map(cel.literal, STANDARD_NAMES))}]"
_OFF: Final = "(has(self.enabled) && !self.enabled)"
_ONE_MEASURE: Final = Rule(
    cel.only_one(*_MEASURES),
    "name exactly one of preset, query and alert",
    f"{cel.literal(_ONE_OF_THREE + '; found ')} + {cel.found(*_MEASURES)}",
)
_BASELINE_WORDS: Final = (
    "a baseline belongs to a ratio or a sigma, and a sigma needs the baseline SameHour: mend one of the two"
)


def _given(model: SpecModel, names: tuple[str, ...]) -> list[str]:
    """Those of the fields (by their names in YAML) that have a value."""
    aliases = {field.alias: name for name, field in type(model).model_fields.items()}
    return [name for name in names if getattr(model, aliases[name]) is not None]


def _no_baseline_without(ratios: tuple[str, ...], sigma: str) -> Rule:
    compared = " || ".join(f"has(self.{name})" for name in ratios)
    return Rule(
        f"!has(self.baseline) || {compared} || (has(self.{sigma}) && self.baseline.from == 'SameHour')",
        _BASELINE_WORDS,
        field=".baseline",
    )


class Measure(SpecModel):
    """What is measured: a preset, a PromQL query of one's own that answers with one number, or alerts that fire."""

    preset: Preset | None = Field(
        None, description="A ready-made query (kubectl canary presets). Name either this, query or alert."
    )
    query: PromQL | None = Field(
        None,
        description="PromQL that answers with one number for one version. $namespace, $deployment, $service, $pods (a "
        "regex of pod names) and $window are filled in for the version asked. Name either this, preset or alert.",
    )
    alert: AlertSelector | None = Field(
        None,
        description="Alerts that must not fire. Those that fired before the rollout began do not count, unless "
        "unlessStableToo is false. Name either this, preset or query.",
    )
    source: SourceName | None = Field(
        None, description="Whose series the preset reads. Default: metrics.source, or where the preset is found."
    )
    server: DnsLabel | None = Field(None, description="Which of metrics.servers is asked. Default: metrics.prometheus.")
    window: SecondOrMore | None = Field(
        None, description="Time range that rates and quantiles are taken over. Default: metrics.window."
    )
    min_requests: StrictInt = Field(
        100,
        ge=0,
        le=1_000_000_000,
        description="No verdict before the version has had this many requests in the window. Default: 100.",
    )
    baseline: Baseline | None = Field(
        None, description="What a ratio or a sigma is held against. Default: Stable, and SameHour for a sigma."
    )

    @property
    def baseline_from(self) -> BaselineFrom:
        """What a ratio or a sigma is held against, the default filled in."""
        if self.baseline is not None:
            return self.baseline.from_
        return BaselineFrom.SAME_HOUR if self.sigma is not None else BaselineFrom.STABLE

    @property
    def ratio(self) -> float | None:
        """The bound as a multiple of the baseline, if it is one."""
        return None

    @property
    def sigma(self) -> float | None:
        """The bound in spreads above the baseline, if it is one."""
        return None

    def _check_measure(self, where: str) -> None:
        given = _given(self, _MEASURES)
        if len(given) != 1:
            raise ValueError(f"{_ONE_OF_THREE}; found {' and '.join(given) or 'none'}")
        if self.baseline is None:
            return
        sigma_of_now = self.sigma is not None and self.baseline.from_ is not BaselineFrom.SAME_HOUR
        if sigma_of_now or (self.ratio is None and self.sigma is None):
            raise ValueError(f"{where}{_BASELINE_WORDS}")

    def _check_bound(self, what: str, names: tuple[str, ...]) -> None:
        given = _given(self, names)
        if self.alert is not None:
            if given:
                raise ValueError(f"{what} with an alert fails while it fires: take {' and '.join(given)} away")
        elif len(given) != 1:
            raise ValueError(f"{what} names exactly one of {_listed(names)}; found {' and '.join(given) or 'none'}")


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


GATE_BOUNDS: Final = ("max", "min", "maxRatio", "minRatio", "maxSigma")
RULE_BOUNDS: Final = ("above", "below", "aboveRatio", "belowRatio", "aboveSigma")


class Gate(Measure):
    """A condition that must hold before a stage begins (entry) or ends (exit); it is asked again at the moment of the raise."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            _ONE_MEASURE,
            Rule(
                f"has(self.alert) ? {' && '.join(f'!has(self.{name})' for name in GATE_BOUNDS)} : {cel.only_one(*GATE_BOUNDS)}",
                f"a gate names exactly one of {_listed(GATE_BOUNDS)}, and one with an alert none",
                f"'a gate names exactly one of {_listed(GATE_BOUNDS)}; found ' + " + cel.found(*GATE_BOUNDS),
            ),
            Rule(
                "has(self.name) || has(self.preset)",
                "a gate without a preset needs a name to be spoken of: add one, as in name: slow-checkouts",
            ),
            _no_baseline_without(("maxRatio", "minRatio"), "maxSigma"),
        )
    )

    name: DnsLabel | None = Field(
        None, description="What the gate is called in status and events. Default: the preset's name."
    )
    max: Number | None = Field(None, description="The canary's value must not be above this.")
    min: Number | None = Field(None, description="The canary's value must not be below this.")
    max_ratio: Number | None = Field(
        None, description="The canary's value must not be above this many times the baseline."
    )
    min_ratio: Number | None = Field(
        None, description="The canary's value must not be below this many times the baseline."
    )
    max_sigma: Number | None = Field(
        None, description="The canary's value must not be more than this many spreads above the baseline."
    )
    for_: Duration = Field(
        default=0.0,
        alias="for",
        description="How long it must have held without a break when it is asked, as in 24h; time without numbers does "
        "not count.",
    )

    @property
    def ratio(self) -> float | None:
        """The bound as a multiple of the baseline, if it is one."""
        return self.max_ratio if self.max_ratio is not None else self.min_ratio

    @property
    def sigma(self) -> float | None:
        """The bound in spreads above the baseline, if it is one."""
        return self.max_sigma

    @model_validator(mode="after")
    def _whole(self) -> Self:
        self._check_measure("")
        self._check_bound("a gate", GATE_BOUNDS)
        if self.name is None and self.preset is None:
            raise ValueError(
                "a gate without a preset needs a name to be spoken of: add one, as in name: slow-checkouts"
            )
        return self

    @property
    def label(self) -> str:
        """The name shown to people."""
        return self.name or f"{self.preset}"


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
                f"{_ONE_MEASURE.rule} || (({_STANDARD} || {_OFF}) && {' && '.join(f'!has(self.{name})' for name in _MEASURES)})",
                _ONE_MEASURE.message,
                _ONE_MEASURE.expression,
            ),
            Rule(
                f"has(self.alert) ? {' && '.join(f'!has(self.{name})' for name in RULE_BOUNDS)} : "
                f"{cel.only_one(*RULE_BOUNDS)} || (({_STANDARD} || {_OFF}) && "
                f"{' && '.join(f'!has(self.{name})' for name in RULE_BOUNDS)})",
                f"a halt rule names exactly one of {_listed(RULE_BOUNDS)}, and one with an alert none",
                f"'halt rule ' + self.name + ' names exactly one of {_listed(RULE_BOUNDS)}; found ' + "
                + cel.found(*RULE_BOUNDS),
            ),
            _no_baseline_without(("aboveRatio", "belowRatio"), "aboveSigma"),
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
        if not may_be_partial or _given(self, _MEASURES):
            self._check_measure(f"halt rule {self.name}: ")
        if not may_be_partial or _given(self, RULE_BOUNDS):
            self._check_bound(f"halt rule {self.name}", RULE_BOUNDS)
        return self

    def over(self, base: "HaltRule") -> "HaltRule":
        """``base`` with the fields that this rule names; a measure or a bound replaces the one that was there."""
        named: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        aliases = {field.alias: name for name, field in type(self).model_fields.items()}
        for group in (_MEASURES, RULE_BOUNDS):
            if _given(self, group):
                named.update({aliases[name]: getattr(self, aliases[name]) for name in group})
        if _given(self, RULE_BOUNDS) and self.baseline is None:
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
