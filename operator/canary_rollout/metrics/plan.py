"""The fewest queries that answer all rollouts of one Prometheus. Pure: text in, text out.

Rollouts that measure the same thing in the same way (one :class:`Shape`) are answered by one query that is grouped by
the labels that tell versions apart, so the number of queries depends on what is measured, not on who measures it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from canary_rollout.metrics.locate import TENANT_LABEL, locate, locate_raw, query_of
from canary_rollout.metrics.places import (
    RAW,
    Alone,
    ArmKey,
    Batch,
    Firing,
    InBatch,
    Lookup,
    Nowhere,
    OtherThan,
    Place,
    RawLookup,
    Shape,
)
from canary_rollout.metrics.presets import load
from canary_rollout.metrics.presets.formula import (
    VERSION_LABEL,
    Query,
    raw_buckets,
    raw_counters,
    raw_gauge,
    render,
)
from canary_rollout.metrics.request import MetricRequest

__all__ = [
    "ALERTS",
    "LONGEST_NAMESPACES",
    "Alone",
    "ArmKey",
    "Batch",
    "Firing",
    "InBatch",
    "Lookup",
    "Nowhere",
    "OtherThan",
    "Place",
    "Plan",
    "RawLookup",
    "Shape",
    "chunks",
    "locate",
    "locate_raw",
    "render_batch",
]

LONGEST_NAMESPACES: Final = 4096
"""Characters of a query's namespace matcher; above it, the namespaces are spread over several queries."""

ALERTS: Final = 'ALERTS{alertstate="firing"}'
"""Every alert that fires; who wants which is looked up in the answer."""


class Plan:
    """The queries of all rollouts that ask one Prometheus. Adding and removing costs the same however many there are."""

    def __init__(self) -> None:
        self._shared: dict[str, tuple[tuple[Shape, str], ...]] = {}
        self._lookups: dict[str, tuple[Lookup, ...]] = {}
        self._scopes: dict[Shape, Counter[str]] = {}
        self._batches: dict[Shape, Mapping[str, Batch]] = {}

    def __len__(self) -> int:
        return len(self._shared)

    def add(self, request: MetricRequest) -> tuple[Lookup, ...]:
        """Add a rollout, or replace what it asked before; return where its values will be."""
        lookups = tuple(locate(request))
        self.put(request.key, lookups, locate_raw(request))
        return lookups

    def put(self, key: str, lookups: Iterable[Lookup], raws: Iterable[RawLookup] = ()) -> None:
        """Add or replace what a rollout asks of this server."""
        self.remove(key)
        self._lookups[key] = tuple(lookups)
        shared = (*_shared(self._lookups[key]), *((raw.shape, raw.scope) for raw in raws))
        self._shared[key] = shared
        for shape, scope in shared:
            counter = self._scopes.setdefault(shape, Counter())
            counter[scope] += 1
            if counter[scope] == 1:
                self._batches.pop(shape, None)

    def remove(self, key: str) -> None:
        """Remove a rollout; one that is not there is no error."""
        self._lookups.pop(key, None)
        for shape, scope in self._shared.pop(key, ()):
            counter = self._scopes[shape]
            counter[scope] -= 1
            if counter[scope] == 0:
                del counter[scope]
                self._batches.pop(shape, None)
                if not counter:
                    del self._scopes[shape]

    def batch(self, shape: Shape, scope: str) -> Batch:
        """Return the query whose answer has the series of ``shape`` in ``scope``."""
        batches = self._batches.get(shape)
        if batches is None:
            batches = {}
            for chunk in chunks(self._scopes[shape]):
                batch = render_batch(shape, chunk)
                batches.update(dict.fromkeys(chunk, batch))
            self._batches[shape] = batches
        return batches[scope]

    def texts(self) -> frozenset[str]:
        """Return every query that one evaluation of all rollouts takes."""
        texts = {self.batch(shape, scope).text for shared in self._shared.values() for shape, scope in shared}
        for lookups in self._lookups.values():
            for place in (place for lookup in lookups for place in lookup[1:]):
                if isinstance(place, Alone):
                    texts.add(place.text)
                elif isinstance(place, Firing):
                    texts.add(ALERTS)
        return frozenset(texts)


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


def render_batch(shape: Shape, scopes: tuple[str, ...]) -> Batch:
    """Return the query of a shape for some scopes (made of Kubernetes names and what a preset set joins them by)."""
    identity = shape.presets.identity
    label, suffix = (identity.scope.label, identity.scope.suffix) if identity is not None else ("", "")
    label = label or shape.presets.of.labels.namespace
    query = query_of(shape, _matcher(label, scopes, suffix))
    if shape.measure.startswith(RAW):
        return Batch(_raw_text(shape, query), frozenset(scopes), shape.labels)
    formula = shape.presets.measures[shape.measure]
    if formula.other_version is not None:
        return Batch(render(formula, query), frozenset(scopes), (*shape.labels, VERSION_LABEL), depth=1)
    return Batch(render(formula, query), frozenset(scopes), shape.labels)


def _matcher(label: str, scopes: tuple[str, ...], suffix: str) -> str:
    if len(scopes) == 1 and not suffix:
        return f'{label}="{scopes[0]}"'
    escaped = "|".join(scope.replace(".", "[.]") for scope in scopes)
    return f'{label}=~"({escaped}){suffix}"' if suffix else f'{label}=~"{escaped}"'


def _raw_text(shape: Shape, query: Query) -> str:
    name = shape.measure.removeprefix(RAW)
    traffic = shape.presets.of.traffic
    if name.startswith("gauge:"):
        return _gauge_text(name.removeprefix("gauge:"), query)
    if name.startswith("tenants:"):
        return f"sum by {query.by(TENANT_LABEL)} ({query.selector(f'canary_bucket_{name[8:]}_total')})"
    assert traffic is not None  # noqa: S101 - locate_raw refused it
    if name == "latency_bucket":
        return raw_buckets(traffic.latency or "", query)
    requests, errors = raw_counters(traffic.requests, traffic.failed, query)
    return requests if name == "requests" else errors


def _gauge_text(name: str, query: Query) -> str:
    pods = load("pods").measures
    if name == "memory":
        share = pods["memory"].gauge_share
        assert share is not None  # noqa: S101 - the file says so, and a test asks
        # Where a container has no limit there is nothing to take a share of: bytes compare as well.
        return f"{raw_gauge(share.part, share.whole, query)} or {raw_gauge(share.part, None, query)}"
    return f"sum by {query.by_pod()} (rate({query.selector(pods['cpu-cores'].rate or '')}[2m]))"


def _shared(lookups: Iterable[Lookup]) -> Iterator[tuple[Shape, str]]:
    for lookup in lookups:
        for place in (lookup.stable, lookup.canary):
            if isinstance(place, InBatch | OtherThan):
                yield place.shape, place.scope
