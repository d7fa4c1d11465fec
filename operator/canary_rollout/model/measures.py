"""What is measured, and the gates at the two ends of a stage; halt rules, which are measured alike, are in ``halt_rules``.

The shape, for those who build on it:

- :class:`Measure` says *what*: exactly one of ``preset`` (name), ``query`` (PromQL) and ``alert`` (selector of firing alerts); plus
  ``source`` (whose series the preset reads; default ``metrics.source``), ``server`` (one of ``metrics.servers``), ``window``,
  ``min_requests`` and ``baseline`` (what ratios and sigmas are held against: ``Stable``, ``BeforeRollout``, ``SameHour``, ``Fixed``).
- ``HaltRule`` adds one bound (``above | below | above_ratio | below_ratio | above_sigma``; none with ``alert``), ``for_``, ``action``,
  ``unless_stable_too``, ``dry_run``, ``enabled``. :class:`Gate` adds one bound (``max | min | max_ratio | min_ratio | max_sigma``) and ``for_``.
- A halt rule *as written* may be partial: one that has the name of a standard rule and leaves out the measure or the bound changes
  only the fields it names. Whole rules come from ``CanaryRolloutSpec.rules_for(stage)``, never from ``spec.halt_rules``.
- ``Stage`` has ``entry`` and ``exit`` (gates) and ``halt_rules`` of its own, merged by name over the rollout's.
"""

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StrictInt, WithJsonSchema, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import DnsLabel, PromQL, SpecModel, Text
from canary_rollout.model.metrics import SourceName
from canary_rollout.model.presets import Preset
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


MEASURES: Final = ("preset", "query", "alert")
_ONE_OF_THREE: Final = (
    "name exactly one of preset (a ready-made query), query (PromQL of your own) and alert (firing alerts)"
)
ONE_MEASURE: Final = Rule(
    cel.only_one(*MEASURES),
    "name exactly one of preset, query and alert",
    f"{cel.literal(_ONE_OF_THREE + '; found ')} + {cel.found(*MEASURES)}",
)
_BASELINE_WORDS: Final = (
    "a baseline belongs to a ratio or a sigma, and a sigma needs the baseline SameHour: mend one of the two"
)


def filled(model: SpecModel, names: tuple[str, ...]) -> list[str]:
    """Those of the fields (by their names in YAML) that have a value."""
    aliases = {field.alias: name for name, field in type(model).model_fields.items()}
    return [name for name in names if getattr(model, aliases[name]) is not None]


def no_baseline_without(ratios: tuple[str, ...], sigma: str) -> Rule:
    """The CRD's rule that a baseline is given only beside one of these bounds (their names in YAML)."""
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
        given = filled(self, MEASURES)
        if len(given) != 1:
            raise ValueError(f"{_ONE_OF_THREE}; found {' and '.join(given) or 'none'}")
        if self.baseline is None:
            return
        sigma_of_now = self.sigma is not None and self.baseline.from_ is not BaselineFrom.SAME_HOUR
        if sigma_of_now or (self.ratio is None and self.sigma is None):
            raise ValueError(f"{where}{_BASELINE_WORDS}")

    def _check_bound(self, what: str, names: tuple[str, ...]) -> None:
        given = filled(self, names)
        if self.alert is not None:
            if given:
                raise ValueError(f"{what} with an alert fails while it fires: take {' and '.join(given)} away")
        elif len(given) != 1:
            raise ValueError(f"{what} names exactly one of {listed(names)}; found {' and '.join(given) or 'none'}")


def listed(names: tuple[str, ...]) -> str:
    """The names as a sentence has them: a, b and c."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


GATE_BOUNDS: Final = ("max", "min", "maxRatio", "minRatio", "maxSigma")


class Gate(Measure):
    """A condition that must hold before a stage begins (entry) or ends (exit); it is asked again at the moment of the raise."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            ONE_MEASURE,
            Rule(
                f"has(self.alert) ? {' && '.join(f'!has(self.{name})' for name in GATE_BOUNDS)} : {cel.only_one(*GATE_BOUNDS)}",
                f"a gate names exactly one of {listed(GATE_BOUNDS)}, and one with an alert none",
                f"'a gate names exactly one of {listed(GATE_BOUNDS)}; found ' + " + cel.found(*GATE_BOUNDS),
            ),
            Rule(
                "has(self.name) || has(self.preset)",
                "a gate without a preset needs a name to be spoken of: add one, as in name: slow-checkouts",
            ),
            no_baseline_without(("maxRatio", "minRatio"), "maxSigma"),
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
