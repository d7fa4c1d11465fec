"""The fewest queries that answer all rollouts of one Prometheus. Pure: text in, text out.

Rollouts that measure the same thing in the same way (one :class:`Shape`) are answered by one query that is grouped by
the labels that tell versions apart, so the number of queries depends on what is measured, not on who measures it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from canary_rollout.analysis.readings import MeasureKey
from canary_rollout.metrics.own_query import render_own
from canary_rollout.metrics.pods import ARM_LABEL, arm_value, pod_pattern
from canary_rollout.metrics.presets import load
from canary_rollout.metrics.request import MetricRequest, VersionArm

LONGEST_NAMESPACES: Final = 4096
"""Characters of a query's namespace matcher; above it, the namespaces are spread over several queries."""

ArmKey = tuple[str, ...]
"""Values of a shape's labels, the namespace first: one version's place in an answer."""


class Shape(NamedTuple):
    """What one batched query measures, for all rollouts alike.

    Attributes:
        source: the preset file.
        measure: the formula in it.
        window: range of the rates, seconds.
        labels: labels that tell the versions apart, ``namespace`` first.
        status_label: label of the HTTP status, empty where the formula has none.
        weighted_only: leave cohort members out.
    """

    source: str
    measure: str
    window: float
    labels: tuple[str, ...]
    status_label: str
    weighted_only: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """One query for many rollouts.

    Attributes:
        text: the PromQL.
        namespaces: whose series it answers with.
        labels: labels of the answer's series that make up an :data:`ArmKey`.
    """

    text: str
    namespaces: frozenset[str]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InBatch:
    """One version's value is in a shape's answer, under the first of ``keys`` that is there."""

    shape: Shape
    namespace: str
    keys: tuple[ArmKey, ...]


@dataclass(frozen=True, slots=True)
class Alone:
    """One version's value is the one sample that a query of its own answers with."""

    text: str


@dataclass(frozen=True, slots=True)
class Nowhere:
    """There is nothing to ask. ``message`` says why; empty: there simply is no data (no pods yet)."""

    message: str


Place = InBatch | Alone | Nowhere


class Lookup(NamedTuple):
    """Where the two values of one measure are found."""

    key: MeasureKey
    stable: Place
    canary: Place


class Plan:
    """The queries of all rollouts that ask one Prometheus. Adding and removing costs the same however many there are."""

    def __init__(self) -> None:
        self._lookups: dict[str, tuple[Lookup, ...]] = {}
        self._namespaces: dict[Shape, Counter[str]] = {}
        self._batches: dict[Shape, Mapping[str, Batch]] = {}

    def __len__(self) -> int:
        return len(self._lookups)

    def add(self, request: MetricRequest) -> tuple[Lookup, ...]:
        """Add a rollout, or replace what it asked before; return where its values will be."""
        self.remove(request.key)
        lookups = tuple(locate(request))
        self._lookups[request.key] = lookups
        for place in _batched(lookups):
            counter = self._namespaces.setdefault(place.shape, Counter())
            counter[place.namespace] += 1
            if counter[place.namespace] == 1:
                self._batches.pop(place.shape, None)
        return lookups

    def remove(self, key: str) -> None:
        """Remove a rollout; one that is not there is no error."""
        for place in _batched(self._lookups.pop(key, ())):
            counter = self._namespaces[place.shape]
            counter[place.namespace] -= 1
            if counter[place.namespace] == 0:
                del counter[place.namespace]
                self._batches.pop(place.shape, None)
                if not counter:
                    del self._namespaces[place.shape]

    def batch(self, shape: Shape, namespace: str) -> Batch:
        """Return the query whose answer has the series of ``shape`` in ``namespace``."""
        batches = self._batches.get(shape)
        if batches is None:
            batches = {}
            for chunk in chunks(self._namespaces[shape]):
                batch = render_batch(shape, chunk)
                batches.update(dict.fromkeys(chunk, batch))
            self._batches[shape] = batches
        return batches[namespace]

    def texts(self) -> frozenset[str]:
        """Return every query that one evaluation of all rollouts takes."""
        places = [place for lookups in self._lookups.values() for lookup in lookups for place in lookup[1:]]
        return frozenset(
            self.batch(place.shape, place.namespace).text if isinstance(place, InBatch) else place.text
            for place in places
            if not isinstance(place, Nowhere)
        )


def locate(request: MetricRequest) -> Iterator[Lookup]:
    """Yield where a rollout's values are found, one look-up per measure."""
    for key in sorted(request.measures):
        if key.own:
            canary, stable = (render_own(key, request, arm) for arm in (request.canary, request.stable))
            same = canary == stable
            missing = Nowhere("the query does not tell the versions apart; $pods, $service or $deployment do")
            yield Lookup(key, missing if same else Alone(stable), Alone(canary))
        else:
            yield Lookup(key, _place(request, key, "stable"), _place(request, key, "canary"))


def chunks(namespaces: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield the namespaces, sorted, in parts whose matcher stays below :data:`LONGEST_NAMESPACES`."""
    part: list[str] = []
    length = 0
    for namespace in sorted(namespaces):
        if part and length + len(namespace) + 1 > LONGEST_NAMESPACES:
            yield tuple(part)
            part, length = [], 0
        part.append(namespace)
        length += len(namespace) + 1
    if part:
        yield tuple(part)


def render_batch(shape: Shape, namespaces: tuple[str, ...]) -> Batch:
    """Return the query of a shape for some namespaces (Kubernetes names, so nothing in them needs escaping)."""
    one = len(namespaces) == 1
    where = f'namespace="{namespaces[0]}"' if one else f'namespace=~"{"|".join(namespaces)}"'
    text = load(shape.source).render(
        shape.measure,
        window=shape.window,
        where=where,
        labels=shape.labels,
        status_label=shape.status_label,
        weighted_only=shape.weighted_only,
    )
    return Batch(text, frozenset(namespaces), shape.labels)


def _batched(lookups: Iterable[Lookup]) -> Iterator[InBatch]:
    for lookup in lookups:
        for place in (lookup.stable, lookup.canary):
            if isinstance(place, InBatch):
                yield place


def _place(request: MetricRequest, key: MeasureKey, version: str) -> Place:
    arm = request.canary if version == "canary" else request.stable
    namespace, arms = request.namespace, request.arms
    if load(request.source).arms == "version":
        labels: tuple[str, ...] = ("namespace", "rollout", "version")
        keys: tuple[ArmKey, ...] = ((namespace, request.rollout, version),)
        if arm.revision:
            labels, keys = (*labels, "revision"), ((*keys[0], arm.revision),)
    elif arms.by == "service":
        labels, keys = ("namespace", "service"), ((namespace, arm.service),)
    elif arms.by == "label":
        labels, keys = _by_label(request, arm, version)
    elif arm.pods or len(arm.replica_sets) > 1:
        return _explicit(request, key, arm)
    elif not arm.replica_sets:
        return Nowhere("")
    else:
        (replica_set,) = arm.replica_sets
        labels, keys = ("namespace", ARM_LABEL), ((namespace, arm_value(replica_set)),)
    return InBatch(_shape(request, key, labels), namespace, keys)


def _by_label(request: MetricRequest, arm: VersionArm, version: str) -> tuple[tuple[str, ...], tuple[ArmKey, ...]]:
    """Versions told apart by a label of the user's choice.

    Values such as ``v2`` are used by other apps of the namespace as well, so series that also have a ``service`` label
    must name one of this app's two Services: the version's own first, then the other. Series without one are taken last.
    """
    arms = request.arms
    value = (arms.canary if version == "canary" else arms.stable) or ""
    label = arms.label or ""
    if label == "service":
        return ("namespace", "service"), ((request.namespace, value),)
    other = request.stable.service if version == "canary" else request.canary.service
    services = (arm.service, other, "")
    return ("namespace", "service", label), tuple((request.namespace, service, value) for service in services)


def _shape(request: MetricRequest, key: MeasureKey, labels: tuple[str, ...]) -> Shape:
    preset = load(request.source)
    status = request.status_label if preset.arms == "configured" and key.what == "error-rate" else ""
    return Shape(request.source, key.what, key.window, labels, status, key.weighted_only and bool(preset.weighted_only))


def _explicit(request: MetricRequest, key: MeasureKey, arm: VersionArm) -> Alone:
    """Query one version alone, all its pods together: quantiles of several ReplicaSets cannot be added afterwards."""
    shape = _shape(request, key, ("namespace",))
    text = load(shape.source).render(
        shape.measure,
        window=shape.window,
        where=f'namespace="{request.namespace}",pod=~"{pod_pattern(arm)}"',
        labels=shape.labels,
        status_label=shape.status_label,
        weighted_only=shape.weighted_only,
    )
    return Alone(text)
