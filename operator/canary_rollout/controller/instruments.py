"""The operator's Prometheus metrics: one object that every part reports to, and that knows no part."""

import re
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from canary_rollout import __version__
from canary_rollout.controller.metrics_table import OPERATOR_ROWS, Row
from canary_rollout.controller.queue import Key, Outcome
from canary_rollout.engine.decision import Decision
from canary_rollout.engine.draft import RESTING
from canary_rollout.kube.cache import Sweep
from canary_rollout.kube.port import Resource
from canary_rollout.model.status import CanaryRolloutStatus

_PLACE: Final = re.compile(r"\((\d+)/")


class Instruments:
    """All metrics, on a registry of their own. Implements the observers of the client, the watches and the sampler."""

    def __init__(self) -> None:
        # Twice as many series for nobody's use.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves this one untyped
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self._metrics = {row.name: self._make(row) for row in OPERATOR_ROWS}
        self._shown: dict[Key, _Shown] = {}
        self._calls: dict[tuple[str, str, int], Any] = {}
        ticks = self["canary_rollout_comparison_ticks_total"]
        self._ticks = {False: ticks.labels("live"), True: ticks.labels("replayed")}
        self._ticking = self["canary_rollout_comparison_seconds"]
        self["canary_rollout_build_info"].labels(__version__).set(1)

    def __getitem__(self, name: str) -> Any:
        """The metric of that name in the table (gauges, counters and histograms share no useful type)."""
        return self._metrics[name]

    # Kubernetes API

    def call(self, verb: str, resource: Resource, code: int, seconds: float) -> None:
        """Count one call."""
        key = (verb, resource.plural, code)
        if (child := self._calls.get(key)) is None:
            child = self._calls[key] = self["canary_rollout_api_requests_total"].labels(verb, resource.plural, code)
        child.inc()
        if verb != "watch":
            self["canary_rollout_api_request_seconds"].labels(verb).observe(seconds)

    # Watches

    def watch_restarted(self, what: str, reason: str) -> None:
        """Count a watch that broke."""
        self["canary_rollout_watch_restarts_total"].labels(what, reason).inc()

    def swept(self, resource: Resource, sweep: Sweep, *, first: bool) -> None:
        """Count what a watch had missed; the first list is how everything becomes known."""
        if not first:
            missed = len(sweep.changed) + len(sweep.vanished)
            self["canary_rollout_sweep_corrections_total"].labels(resource.plural).inc(missed)

    # Prometheus

    def query_finished(self, server: str, outcome: str, seconds: float) -> None:
        """Count a query."""
        self["canary_rollout_prometheus_queries_total"].labels(server, outcome).inc()
        self["canary_rollout_prometheus_query_seconds"].labels(server).observe(seconds)

    def query_held_back(self, server: str) -> None:
        """Count a query that was not sent."""
        self["canary_rollout_prometheus_queries_total"].labels(server, "held_back").inc()

    # Comparisons

    def ticked(self, seconds: float, *, replayed: bool) -> None:
        """Count a tick of a comparison."""
        self._ticks[replayed].inc()
        self._ticking.observe(seconds)

    # Rollouts

    def decided(self, key: Key, status: CanaryRolloutStatus, decision: Decision) -> None:
        """Show where a rollout is."""
        state = decision.state
        shown = _Shown(
            wanted=state.wanted / 100,
            confirmed=state.confirmed / 100,
            active=state.phase not in RESTING,
            stalled=decision.stalled,
            phase=str(state.phase),
            stage=_stage(status),
            verdicts=tuple((verdict.rule, verdict.verdict) for verdict in status.verdicts),
        )
        before = self._shown.get(key)
        if before != shown:
            self._show(key, before, shown)
        if decision.latch and (halt := state.halt_of(state.revision)) is not None:
            self["canary_rollout_rollbacks_total"].labels(str(halt.reason)).inc()
        if decision.ended is not None and decision.ended.result == "Succeeded":
            self["canary_rollout_promotions_total"].inc()

    def forgot(self, key: Key) -> None:
        """Remove every series of a rollout that is gone."""
        if (shown := self._shown.pop(key, None)) is None:
            return
        for name in _PER_ROLLOUT:
            self[name].remove(*key)
        self["canary_rollout_phase"].remove(*key, shown.phase)
        self["canary_rollout_stage"].remove(*key, shown.stage[0])

    def _show(self, key: Key, before: "_Shown | None", shown: "_Shown") -> None:
        self._shown[key] = shown
        values = (shown.wanted, shown.confirmed, shown.active, shown.stalled)
        for name, value in zip(_PER_ROLLOUT, values, strict=True):
            self[name].labels(*key).set(value)
        if before is not None and before.phase != shown.phase:
            self["canary_rollout_phase"].remove(*key, before.phase)
        if before is not None and before.stage[0] != shown.stage[0]:
            self["canary_rollout_stage"].remove(*key, before.stage[0])
        self["canary_rollout_phase"].labels(*key, shown.phase).set(1)
        self["canary_rollout_stage"].labels(*key, shown.stage[0]).set(shown.stage[1])
        for rule, outcome in set(shown.verdicts) - set(before.verdicts if before is not None else ()):
            self["canary_rollout_verdicts_total"].labels(rule, outcome).inc()

    def _make(self, row: Row) -> Any:
        match row.kind:
            case "gauge":
                return Gauge(row.name, row.help, row.labels, registry=self.registry)
            case "counter":
                return Counter(row.name, row.help, row.labels, registry=self.registry)
            case "histogram":
                return Histogram(row.name, row.help, row.labels, buckets=row.buckets, registry=self.registry)


_PER_ROLLOUT: Final = (
    "canary_rollout_percentage",
    "canary_rollout_confirmed_percentage",
    "canary_rollout_active",
    "canary_rollout_stalled",
)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the series of one rollout say."""

    wanted: float
    confirmed: float
    active: bool
    stalled: bool
    phase: str
    stage: tuple[str, int]
    verdicts: tuple[tuple[str, str], ...]


class QueueInstruments:
    """:class:`controller.queue.QueueObserver` of one queue (``reconcile``, ``check``)."""

    def __init__(self, instruments: Instruments, queue: str) -> None:
        self._late = instruments["canary_rollout_queue_lateness_seconds"].labels(queue)
        self._retries = instruments["canary_rollout_retries_total"].labels(queue)
        durations = instruments["canary_rollout_reconcile_seconds"] if queue == "reconcile" else None
        self._took = {outcome: durations.labels(outcome) for outcome in Outcome} if durations is not None else {}

    def started(self, key: Key, late: float) -> None:  # noqa: ARG002 - a series per rollout would be too many
        """A run begins."""
        self._late.observe(late)

    def ended(self, key: Key, outcome: Outcome, seconds: float) -> None:  # noqa: ARG002
        """A run has ended."""
        if outcome in self._took:
            self._took[outcome].observe(seconds)

    def retrying(self, key: Key, error: BaseException, delay: float) -> None:  # noqa: ARG002
        """A run failed and will be repeated."""
        self._retries.inc()


def _stage(status: CanaryRolloutStatus) -> tuple[str, int]:
    """Name and place out of ``friendly (2/4)``; ("", 0) between rollouts."""
    place = _PLACE.search(status.stage)
    return status.stage.split(" (", 1)[0], int(place[1]) if place else 0
