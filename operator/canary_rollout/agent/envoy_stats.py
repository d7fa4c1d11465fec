"""Requests by version from Envoy's own counters, under the names the nginx agent gives them.

Each arm and version has clusters of its own, named with the revision. What Envoy counted is added up here, so that a
restart of Envoy, or clusters that are made anew, look like nothing at all. Tenants are not told apart by Envoy: there
are no buckets.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from canary_rollout.agent.envoy import Admin
from canary_rollout.agent.errors import ControlError, NotRunningError
from canary_rollout.agent.request_metrics import Key, request_metrics
from canary_rollout.traffic.envoy.resources import LATENCY_BUCKETS, checked_name, stat_name
from canary_rollout.traffic.envoy.routes import ARMS, CHOSEN, EVERYBODY
from canary_rollout.traffic.nginx.document import RouteDocument
from canary_rollout.traffic.nginx.validate import EVERYONE, MIRROR

COUNT_EVERY: Final = 1.0
MOST_SERIES: Final = 60
_FILTER: Final = r"^cluster\.(stable|canary|leased|checked_chosen)_.*\.upstream_rq_(time|[1-5]xx)$|^server\.uptime$"

_log: structlog.stdlib.BoundLogger = structlog.get_logger("envoy")


@dataclass(slots=True)
class _Series:
    requests: float = 0.0
    errors: float = 0.0
    seconds: float = 0.0
    buckets: dict[float, float] = field(default_factory=lambda: dict.fromkeys((*LATENCY_BUCKETS, float("inf")), 0.0))
    """Requests up to each bound, milliseconds."""

    def cumulative(self) -> list[tuple[float, float]]:
        """The same in seconds."""
        return [(edge / 1000, count) for edge, count in self.buckets.items()]


class EnvoyCounting(Collector):
    """``canary_requests_total``, ``canary_errors_total`` and ``canary_latency_seconds`` (:class:`agent.driver.Counting`)."""

    def __init__(self, admin: Admin, held: Callable[[], bool]) -> None:
        self.rollout = ""
        self._admin = admin
        self._held = held
        self._uptime = 0.0
        self._of: dict[str, tuple[Key, Key]] = {}
        self._series: dict[Key, _Series] = {}
        self._seen: dict[tuple[str, str, str], float] = {}

    def begin(self, document: RouteDocument) -> None:
        """Show a document's series from zero on."""
        self.rollout = document.rollout
        for version, revision in (("stable", document.stable_revision), ("canary", document.revision)):
            for arm in ARMS:
                key = (EVERYONE if arm == EVERYBODY else arm, version, revision or "-")
                self._of[stat_name(version, arm, revision)] = (key, key)
                if version == "canary":
                    over = (key[0], "stable", document.stable_revision or "-")
                    self._of[stat_name("leased", arm, revision)] = (key, over)
            if version == "canary":
                # Only copies are sent there directly.
                copied = (MIRROR, version, revision or "-")
                self._of[checked_name(CHOSEN, revision)] = (copied, copied)
            self._series.setdefault((EVERYONE, version, revision or "-"), _Series())
        while len(self._of) > MOST_SERIES:
            oldest = next(iter(self._of))
            for key in self._of.pop(oldest):
                self._series.pop(key, None)
            self._seen = {seen: value for seen, value in self._seen.items() if seen[1] != oldest}

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            await self.now()
            await asyncio.sleep(COUNT_EVERY)

    async def now(self) -> None:
        """Take in what Envoy has counted so far; nothing while it is away."""
        try:
            text = await self._admin.get("/stats/prometheus", filter=_FILTER)
        except (NotRunningError, ControlError) as error:
            _log.debug("not counted", reason=f"{error}")
            return
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        uptime = next((sample.value for sample in samples if sample.name == "envoy_server_uptime"), self._uptime)
        if uptime < self._uptime:
            self._seen.clear()  # another Envoy, which counts from zero
        self._uptime = uptime
        for sample in samples:
            self._add(sample.name, sample.labels, sample.value)

    def _add(self, name: str, labels: dict[str, str], value: float) -> None:
        keys = self._of.get(labels.get("envoy_cluster_name", ""))
        if keys is None:
            return
        # What is leased is stable's as soon as the lease is over.
        key = keys[0] if self._held() else keys[1]
        part = labels.get("le") or labels.get("envoy_response_code_class", "")
        last = self._seen.get((name, labels["envoy_cluster_name"], part), 0.0)
        more = value - last if value >= last else value  # begun anew: all of it is new
        self._seen[name, labels["envoy_cluster_name"], part] = value
        if not more:
            return
        series = self._series.setdefault(key, _Series())
        if name.startswith("envoy_cluster_upstream_rq_xx"):
            series.requests += more
            series.errors += more if part == "5" else 0
        elif name == "envoy_cluster_upstream_rq_time_bucket" and float(part) in series.buckets:
            series.buckets[float(part)] += more
        elif name == "envoy_cluster_upstream_rq_time_sum":
            series.seconds += more / 1000

    def collect(self) -> Iterator[Metric]:
        """The three metrics."""
        rows = [
            (key, one.requests, one.errors, one.cumulative(), one.seconds) for key, one in list(self._series.items())
        ]
        return iter(request_metrics(self.rollout, rows))
