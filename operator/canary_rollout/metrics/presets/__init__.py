"""The presets: formulas as data (``*.yaml``), rendered into PromQL for a set of namespaces.

A *source* (``metrics.source``) says what an app's requests are called; sets under ``common/`` can be asked whatever the source.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import yaml
from pydantic import ValidationError

from canary_rollout.metrics.errors import PresetError
from canary_rollout.metrics.presets.formula import with_suffix
from canary_rollout.metrics.presets.schema import Average, Formula, Identity, PresetSet, Quantile, Share, Traffic
from canary_rollout.model.metrics import SOURCES
from canary_rollout.model.presets import PRESETS, TRAFFIC_SHARE, Unit, unit_of

CUSTOM: Final = "custom/"
"""Begins the name of a source of the user's own."""

COMMON: Final = ("pods", "database", "app-signals", "web-vitals")
"""Sets that can be asked whatever the source."""

_DEEPEST: Final = 16
"""Levels of YAML; a set has seven at most."""

QUANTILES: Final = (50, 75, 90, 95, 99)

_DESCRIPTIONS: Final = {
    "requests": "Requests within the window.",
    "request-rate": "Requests per second.",
    "error-rate": "Share of the requests that failed.",
    "timeout-rate": "Share of the requests that timed out.",
    "latency-average": "Mean latency, seconds.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Presets:
    """One set, ready to be asked. Compared by identity: the same text is loaded once.

    Attributes:
        of: the file.
        measures: by name, those made from ``traffic`` included.
    """

    of: PresetSet
    measures: Mapping[str, Formula]

    @property
    def identity(self) -> Identity | None:
        """How the series name their version themselves, if they do."""
        return self.of.arms if isinstance(self.of.arms, Identity) else None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue.

    Attributes:
        name: what ``preset`` of a rule or gate is.
        set: file it is in.
        source: whether the file is a source (only asked where ``metrics.source`` names it).
        description: what it is.
        unit: of its value.
        kind: how it is computed.
        series: names of the series that are read.
        needs: what must be set up for them to be there.
    """

    name: str
    set: str
    source: bool
    description: str
    unit: Unit
    kind: str
    series: tuple[str, ...]
    needs: str


def prepare(preset_set: PresetSet) -> Presets:
    """Return a set ready to be asked, what it ``extends`` filled in.

    Raises:
        PresetError: it extends something that is not there.
    """
    if preset_set.extends is not None:
        preset_set = _extended(preset_set, preset_set.extends)
    made = _of_traffic(preset_set.traffic) if preset_set.traffic is not None else {}
    return Presets(preset_set, {**made, **preset_set.measures})


@cache
def load(source: str) -> Presets:
    """Return a ready-made set, of a source (``app``, ``istio``) or a common one (``pods``).

    Raises:
        PresetError: there is no such file, or it does not have the shape of one.
    """
    if source not in {*SOURCES, *COMMON}:
        raise PresetError(f"there is no ready-made source {source!r:.80}; there are {', '.join(SOURCES)}")
    folder: Traversable = files(__name__)
    folder = folder if source in SOURCES else folder / "common"
    try:
        found = read((folder / f"{source}.yaml").read_text(encoding="utf-8"), source)
    except OSError as error:
        raise PresetError(f"the presets of source {source!r} cannot be read: {error!r}") from error
    if found.name != source:
        raise PresetError(f"the file of source {source!r} says that its name is {found.name!r}")
    return prepare(found)


class _Plain(yaml.SafeLoader):
    """YAML as a tree, written out.

    Whoever may write a ConfigMap is read here, beside everybody's rollouts, and aliases that name aliases are a few hundred
    bytes to write and hours to check.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node, if it is neither an alias nor too deep."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not taken here: write it out")
        if self._depth >= _DEEPEST:
            raise yaml.YAMLError(f"nested more than {_DEEPEST} deep")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def read(text: str, where: str) -> PresetSet:
    """Return the preset set that a YAML text holds; ``where`` it is from goes into the message.

    Raises:
        PresetError: the text is no YAML, or no preset set.
    """
    try:
        raw = yaml.load(text, _Plain)  # noqa: S506 - a SafeLoader that takes less
    except (yaml.YAMLError, ValueError) as error:  # the latter: a date that no calendar has, a number without end
        raise PresetError(f"presets {where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise PresetError(f"presets {where}: a mapping with name and measures was expected, found {type(raw).__name__}")
    try:
        return PresetSet.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PresetError(f"presets {where}: {place}: {first['msg'].removeprefix('Value error, ')}") from error


def find(measure: str, source: Presets, own: Iterable[Presets] = ()) -> Presets | None:
    """Return the set whose ``measure`` is asked: the user's own first, then the source's, then the common ones."""
    candidates = (*own, source, *(load(name) for name in COMMON))
    return next((presets for presets in candidates if measure in presets.measures), None)


def known_measures(own: Iterable[Presets] = ()) -> frozenset[str]:
    """Return every measure's name of all ready-made sets and of the user's ``own``."""
    ready = (load(name) for name in (*SOURCES, *COMMON))
    return frozenset(name for presets in (*ready, *own) for name in presets.measures) | {TRAFFIC_SHARE}


def catalogue(own: Iterable[Presets] = ()) -> tuple[Entry, ...]:
    """Return all presets there are, the user's ``own`` first, then by source, then the common ones."""
    sets = [(presets, presets.of.traffic is not None) for presets in own]
    sets += [(load(name), True) for name in SOURCES]
    sets += [(load(name), False) for name in COMMON]
    return tuple(entry for presets, source in sets for entry in _entries(presets, source=source))


def _entries(presets: Presets, *, source: bool) -> Iterator[Entry]:
    for name, formula in presets.measures.items():
        yield Entry(
            name=name,
            set=presets.of.name,
            source=source,
            description=formula.description,
            unit=unit_of(name) if name in PRESETS else _unit(name, formula),
            kind=formula.kind,
            series=tuple(formula.series()),
            needs=presets.of.needs,
        )


def _unit(name: str, formula: Formula) -> Unit:
    if name.startswith("latency-"):
        return Unit.SECONDS
    shares = (formula.share, formula.gauge_share, formula.rate_share)
    if any(share is not None for share in shares):
        return Unit.SHARE
    return Unit.COUNT if formula.increase is not None else Unit.PLAIN


def _extended(child: PresetSet, parent: str) -> PresetSet:
    base: dict[str, Any] = load(parent).of.model_dump(exclude_unset=True)
    own: dict[str, Any] = child.model_dump(exclude_unset=True)
    base["measures"] = {**base.get("measures", {}), **own.pop("measures", {})}
    renamed = own.get("labels", {})
    if isinstance(arms := base.get("arms"), dict) and "arms" not in own:
        # A set whose series name their version themselves has its labels there, under the names of the parent's.
        names = {getattr(load(parent).of.labels, field): name for field, name in renamed.items()}
        arms["labels"] = tuple(names.get(label, label) for label in arms["labels"])
        arms["scope"]["label"] = names.get(arms["scope"]["label"], arms["scope"]["label"])
    return PresetSet.model_validate({**base, **own, "extends": None})


def _of_traffic(traffic: Traffic) -> dict[str, Formula]:
    requests = traffic.requests
    made = {
        "requests": Formula(increase=requests),
        "request-rate": Formula(rate=requests),
        "error-rate": Formula(share=Share(part=traffic.failed, whole=requests)),
    }
    if traffic.timeouts is not None:
        made["timeout-rate"] = Formula(share=Share(part=traffic.timeouts, whole=requests))
    if traffic.latency is not None:
        bucket = with_suffix(traffic.latency, "_bucket")
        for q in QUANTILES:
            quantile = Quantile(q=q / 100, bucket=bucket)
            made[f"latency-p{q}"] = Formula(
                description=f"Latency that {q} % of the requests stay below, seconds.",
                quantile=quantile,
                scale=traffic.scale,
            )
        parts = Average(sum=with_suffix(traffic.latency, "_sum"), count=with_suffix(traffic.latency, "_count"))
        made["latency-average"] = Formula(average=parts, scale=traffic.scale)
    return {
        name: formula.model_copy(update={"description": formula.description or _DESCRIPTIONS[name]})
        for name, formula in made.items()
    }
