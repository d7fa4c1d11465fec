"""What a preset set is made of: data, checked before use. No templates, so nothing in one can do more than be a query."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, StrictBool, model_validator
from pydantic.alias_generators import to_camel

from canary_rollout.model.fields import DnsLabel, LabelName, PromQL
from canary_rollout.model.presets import Preset

MOST_MEASURES: Final = 64

_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_MATCHER: Final = r'(?:\$status|[a-zA-Z_][a-zA-Z0-9_]*)(?:=~|!~|!=|=)"(?:[^"\\\n\r]|\\["\\])*"'
_MATCHERS: Final = rf"{_MATCHER}(?:,{_MATCHER})*"
_SERIES: Final = re.compile(rf"({_NAME})(?:\{{({_MATCHERS})\}})?")
_KEY_VARIABLES: Final = ("namespace", "rollout", "service", "deployment", "port", "route", "version", "revision", "app")
_KEY: Final = re.compile(rf"(?:[A-Za-z0-9_.@/:-]|\$(?:{'|'.join((*_KEY_VARIABLES, 'appVersion'))})(?![A-Za-z]))*")


class Series(NamedTuple):
    """A series' name and its matchers, without braces."""

    name: str
    matchers: str


@lru_cache(4096)
def parse_series(text: str) -> Series:
    """Take ``name`` or ``name{matchers}`` apart.

    Raises:
        ValueError: it is neither.
    """
    found = _SERIES.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r:.120} is not the name of a series, with matchers in braces or without, "
            'as in http_requests_total{status=~"5.."}; write a whole query under promql'
        )
    return Series(found[1], found[2] or "")


def _series(text: str) -> str:
    parse_series(text)
    return text


def _matchers(text: str) -> str:
    if text and not re.fullmatch(_MATCHERS, text):
        raise ValueError(f'{text!r:.120} is not a list of matchers, as in reporter="source"')
    return text


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise ValueError(
            f"{text!r:.120} does not name a version's label value; use letters, digits, _.@/:- and "
            f"{', '.join(f'${name}' for name in (*_KEY_VARIABLES, 'appVersion'))}"
        )
    return text


SeriesText = Annotated[str, Field(max_length=512), AfterValidator(_series)]
Matchers = Annotated[str, Field(max_length=512), AfterValidator(_matchers)]
KeyText = Annotated[str, Field(max_length=256), AfterValidator(_key)]
Across = Literal["max", "min", "avg", "sum"]


class Part(BaseModel):
    """Base of everything in a preset set."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Share(Part):
    """Rate of some over rate of all; 0 where none of the former were ever counted, nothing where there is no traffic."""

    part: SeriesText
    whole: SeriesText


class Quantile(Part):
    """A quantile of a classic histogram."""

    q: FiniteFloat = Field(gt=0, lt=1)
    bucket: SeriesText


class Average(Part):
    """Rate of a sum over rate of a count."""

    sum: SeriesText
    count: SeriesText


class Gauge(Part):
    """A gauge, summed per pod, then taken across the version's pods."""

    series: SeriesText
    across: Across = "max"


class GaugeShare(Part):
    """A gauge over another one (a limit) pod by pod, then taken across the version's pods."""

    part: SeriesText
    whole: SeriesText
    across: Across = "max"


class RateShare(Part):
    """Rate of a counter over a gauge (a limit), both summed over the version's pods."""

    part: SeriesText
    whole: SeriesText


class OtherVersion(Part):
    """Pods whose ``label`` is not the version that is rolled out."""

    series: SeriesText
    label: LabelName = "version"


class Formula(Part):
    """How one measure is computed: exactly one of the kinds."""

    description: str = Field("", max_length=300)
    rate: SeriesText | None = None
    increase: SeriesText | None = None
    share: Share | None = None
    quantile: Quantile | None = None
    average: Average | None = None
    gauge: Gauge | None = None
    gauge_share: GaugeShare | None = None
    rate_share: RateShare | None = None
    other_version: OtherVersion | None = None
    any_of: tuple["Formula", ...] | None = Field(None, min_length=1, max_length=8)
    promql: PromQL | None = None
    scale: FiniteFloat = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a measure names exactly one of {', '.join(to_camel(name) for name in _KINDS)}; "
                f"found {' and '.join(given) or 'none'}"
            )
        alone = ("promql", "other_version", "any_of")
        if any(getattr(part, name) is not None for part in self.any_of or () for name in alone):
            raise ValueError("anyOf takes formulas of series, no promql, otherVersion or anyOf")
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds it is, as YAML spells it."""
        return next(to_camel(name) for name in _KINDS if getattr(self, name) is not None)

    def series(self) -> Iterator[str]:
        """Yield the names of the series that are read, each once; none for ``promql``."""
        seen: dict[str, None] = {}
        for part in self.any_of or ():
            seen.update(dict.fromkeys(part.series()))
        for text in _texts(self.model_dump(exclude_none=True, exclude={"description", "any_of", "promql"})):
            seen[parse_series(text).name] = None
        yield from seen


_KINDS: Final = (
    "rate",
    "increase",
    "share",
    "quantile",
    "average",
    "gauge",
    "gauge_share",
    "rate_share",
    "other_version",
    "any_of",
    "promql",
)
_SERIES_FIELDS: Final = {"rate", "increase", "part", "whole", "bucket", "sum", "count", "series"}


def _texts(raw: Mapping[str, Any]) -> Iterator[str]:
    for name, value in raw.items():
        if isinstance(value, dict):
            yield from _texts(value)
        elif name in _SERIES_FIELDS:
            yield value


class Traffic(Part):
    """Requests of a version. What the comparison with stable counts, and what the usual measures are made from."""

    requests: SeriesText
    failed: SeriesText
    timeouts: SeriesText | None = None
    latency: SeriesText | None = Field(None, description="Of a histogram, without _bucket, _sum and _count.")
    scale: FiniteFloat = Field(1.0, gt=0, description="Seconds in one of the histogram's units: 0.001 for ms.")


class Scope(Part):
    """A matcher that keeps other people's series out of an answer; ``pattern`` is filled in per rollout."""

    label: LabelName
    pattern: KeyText
    suffix: Literal["", ".+"] = ""


class Identity(Part):
    """Series that name their version themselves.

    Attributes:
        labels: labels that tell versions apart.
        stable: stable's values of them; more than one list: the first that has data.
        canary: the canary's.
        optional: labels left away where their value is empty.
        scope: which series a query reads.
    """

    labels: tuple[LabelName, ...] = Field(min_length=1, max_length=6)
    stable: tuple[tuple[KeyText, ...], ...] = Field(min_length=1, max_length=4)
    canary: tuple[tuple[KeyText, ...], ...] = Field(min_length=1, max_length=4)
    optional: tuple[LabelName, ...] = ()
    scope: Scope

    @model_validator(mode="after")
    def _as_many_values_as_labels(self) -> Self:
        if any(len(values) != len(self.labels) for values in (*self.stable, *self.canary)):
            raise ValueError(f"every list of values has one for each of the labels {', '.join(self.labels)}")
        return self


class Labels(Part):
    """What the source calls the usual labels."""

    namespace: LabelName = "namespace"
    pod: LabelName = "pod"
    service: LabelName = "service"


class PresetSet(Part):
    """A file of presets.

    Attributes:
        name: in ``metrics.source`` (its own: ``custom/NAME``), if it has ``traffic``.
        description: whose series these are.
        needs: what must be set up for them to be there.
        extends: a ready-made set; what is not said here is taken from it.
        arms: what tells the versions apart: ``configured`` (``metrics.arms`` does), ``pod`` (always the pods' names), or
            the series' own labels.
        labels: what the source calls the usual labels.
        always: matchers of every series.
        everybody: matchers that leave members of a cohort out.
        traffic: its requests.
        measures: by name.
    """

    name: DnsLabel
    description: str = Field("", max_length=300)
    needs: str = Field("", max_length=600)
    extends: DnsLabel | None = None
    arms: Literal["configured", "pod"] | Identity = "configured"
    labels: Labels = Labels()
    always: Matchers = ""
    everybody: Matchers = ""
    takes_status_label: StrictBool = False
    traffic: Traffic | None = None
    measures: Mapping[Preset, Formula] = Field({}, max_length=MOST_MEASURES)
