"""What this room offers the controller, and what it wants from it."""

from collections.abc import Mapping
from typing import Literal, Protocol

from canary_rollout.analysis.readings import CounterReadings, Samples
from canary_rollout.metrics.request import MetricRequest

Outcome = Literal["ok", "bad_query", "slow", "outage"]


class Sampler(Protocol):
    """Hands every rollout its samples, with as few queries as it takes."""

    def register(self, request: MetricRequest) -> None:
        """Take a rollout into the shared queries, or replace what it asked before. Cheap when nothing changed."""
        ...

    def unregister(self, key: str) -> None:
        """Leave a rollout out from now on; one that is not there is no error."""
        ...

    async def sample(self, request: MetricRequest) -> Samples:
        """Return what is known about a rollout now; registers it if it is not. Never raises for want of data."""
        ...

    async def counters(
        self, request: MetricRequest, at: float, created: Mapping[str, float] | None = None
    ) -> CounterReadings:
        """Return the raw counters of a rollout at ``at``; all who ask for the same time share the queries."""
        ...

    async def counters_between(
        self, request: MetricRequest, start: float, end: float, step: float, created: Mapping[str, float] | None = None
    ) -> tuple[CounterReadings, ...]:
        """Return the same for every ``step`` seconds from ``start`` to ``end``, both included."""
        ...


class QueryObserver(Protocol):
    """Counts queries; the controller turns this into metrics."""

    def query_finished(self, server: str, outcome: Outcome, seconds: float) -> None:
        """One query was answered, refused or given up after ``seconds``."""
        ...

    def query_held_back(self, server: str) -> None:
        """One query was not sent, because the one before it failed a moment ago."""
        ...


class NobodyObserves:
    """Counts nothing."""

    def query_finished(self, server: str, outcome: Outcome, seconds: float) -> None:
        """Ignore it."""

    def query_held_back(self, server: str) -> None:
        """Ignore it."""
