"""The metrics of requests by version that both agents show, under the same names."""

from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

_LABELS: Final = ("rollout", "cohort", "version", "revision")

Key = tuple[str, str, str]
"""Cohort, version and revision."""
Row = tuple[Key, float, float, Sequence[tuple[float, float]], float]
"""Of one key: requests, errors, ``(upper bound in seconds, requests up to it)`` with infinity last, seconds in all."""


def request_metrics(rollout: str, rows: Iterable[Row]) -> tuple[Metric, Metric, Metric]:
    """``canary_requests_total``, ``canary_errors_total`` and ``canary_latency_seconds``."""
    requests = CounterMetricFamily("canary_requests", "Requests answered, by version.", labels=_LABELS)
    errors = CounterMetricFamily("canary_errors", "Requests answered with a status of 500 or above.", labels=_LABELS)
    latency = HistogramMetricFamily(
        "canary_latency_seconds", "Time from a request's first byte to its answer's last.", labels=_LABELS
    )
    for key, answered, failed, buckets, seconds in rows:
        labels = (rollout, *key)
        requests.add_metric(labels, answered)
        errors.add_metric(labels, failed)
        bounds = [("+Inf" if bound == float("inf") else f"{bound}", count) for bound, count in buckets]
        latency.add_metric(labels, bounds, seconds)
    return requests, errors, latency
