"""Where a value is found: in a shared answer, in one of its own, or nowhere."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from canary_rollout.analysis.readings import MeasureKey
from canary_rollout.metrics.presets import Presets

ArmKey = tuple[str, ...]
"""Values of a shape's labels: one version's place in an answer."""

RAW: Final = "raw:"
"""Begins the name of what is asked for as it is, per pod: ``raw:requests``, ``raw:errors``, ``raw:latency_bucket``,
``raw:gauge:NAME``."""


class Shape(NamedTuple):
    """What one batched query measures, for all rollouts alike.

    Attributes:
        presets: the preset set (compared by identity).
        measure: the formula in it, or one that begins with :data:`RAW`.
        window: range of the rates, seconds.
        labels: labels that tell the versions apart.
        status_label: label of the HTTP status, empty where the set has none.
        weighted_only: leave cohort members out.
        phase: the place in the interval whose rollouts are answered together. Nobody else asks at the same time, so others
            would only make the answer longer.
    """

    presets: Presets
    measure: str
    window: float
    labels: tuple[str, ...]
    status_label: str
    weighted_only: bool
    phase: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """One query for many rollouts.

    Attributes:
        text: the PromQL.
        scopes: whose series it answers with: values of the set's scope, mostly namespaces.
        labels: labels of the answer's series that make up an :data:`ArmKey`.
        depth: labels at the end that only take a value apart (the version that pods report).
    """

    text: str
    scopes: frozenset[str]
    labels: tuple[str, ...]
    depth: int = 0


@dataclass(frozen=True, slots=True)
class InBatch:
    """One version's value is in a shape's answer, under the first of ``keys`` that is there."""

    shape: Shape
    scope: str
    keys: tuple[ArmKey, ...]


@dataclass(frozen=True, slots=True)
class OtherThan:
    """The value is the sum of what a shape's answer has under ``key`` and any last label but ``expected``."""

    shape: Shape
    scope: str
    key: ArmKey
    expected: str


@dataclass(frozen=True, slots=True)
class Alone:
    """One version's value is the one sample that a query of its own answers with."""

    text: str


@dataclass(frozen=True, slots=True)
class Firing:
    """The value is the number of firing alerts with these labels, 0 included; all alerts come in one answer."""

    matchers: str


@dataclass(frozen=True, slots=True)
class Nowhere:
    """There is nothing to ask. ``message`` says why; empty: there simply is no data (no pods yet).

    Attributes:
        message: why.
        mistake: somebody has to mend something.
        inactive: this app has no such thing, as it may well be; else it is missing where it is needed.
    """

    message: str
    mistake: bool = False
    inactive: bool = False


Shared = InBatch | OtherThan
Place = InBatch | OtherThan | Alone | Firing | Nowhere


class Lookup(NamedTuple):
    """Where the two values of one measure are found."""

    key: MeasureKey
    stable: Place
    canary: Place

    @property
    def together(self) -> bool:
        """Whether both values are in the same answer, as nearly all are."""
        stable, canary = self.stable, self.canary
        if not (isinstance(stable, InBatch) and isinstance(canary, InBatch)):
            return False
        return stable.shape is canary.shape and stable.scope == canary.scope


class RawLookup(NamedTuple):
    """Where one raw series of both versions is found, pod by pod.

    Attributes:
        series: as in :class:`~canary_rollout.analysis.readings.CounterSample`.
        shape: its query.
        scope: the rollout's part of the answer.
        stable: stable's keys.
        canary: the canary's.
        together: whether all keys' pods are the version's (its ReplicaSets); else the first key that has any.
    """

    series: str
    shape: Shape
    scope: str
    stable: tuple[ArmKey, ...]
    canary: tuple[ArmKey, ...]
    together: bool
