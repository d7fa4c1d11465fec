"""Metrics whose truth is known exactly: straight lines, written with their timestamps, so nothing depends on when.

One scrape delivers ten minutes of history (Prometheus takes explicit timestamps), so a test waits for one scrape only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

STEP = 10
HISTORY = 600
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0)

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Traffic:
    """What one pod serves: requests and failed requests per second, and its latencies.

    ``latencies`` are shares of the requests up to each of ``BOUNDS`` and beyond (six numbers that sum to 1).
    ``failed`` is ``None`` where no series of failed requests exists.
    """

    rate: float
    failed: float | None = None
    latencies: Sequence[float] = (0.2, 0.3, 0.3, 0.1, 0.1, 0.0)
    mean: float = 0.2


def quantile(q: float, latencies: Sequence[float]) -> float:
    """What Prometheus' bucket interpolation gives for a quantile."""
    below = 0.0
    for (low, high), share in zip(pairwise((0.0, *BOUNDS)), latencies, strict=False):
        if below + share >= q:
            return low + (high - low) * (q - below) / share
        below += share
    return BOUNDS[-1]


def line(name: str, labels: Labels, per_second: float, end: int, base: float = 1_000_000.0) -> Iterator[str]:
    """A counter's samples, rising evenly; far from zero, so that nothing is bent by the extrapolation to zero."""
    text = ",".join(f'{key}="{value}"' for key, value in labels.items())
    for age in range(HISTORY, -1, -STEP):
        yield f"{name}{{{text}}} {base + per_second * (HISTORY - age):.6f} {(end - age) * 1000}"


def app(labels: Labels, traffic: Traffic, end: int, status_label: str = "status") -> Iterator[str]:
    """Plain app metrics of one pod."""
    good = traffic.rate - (traffic.failed or 0.0)
    yield from line("http_requests_total", {**labels, status_label: "200"}, good, end)
    if traffic.failed is not None:
        yield from line("http_requests_total", {**labels, status_label: "503"}, traffic.failed, end)
    yield from histogram("http_request_duration_seconds", labels, traffic, end)


def agent(labels: Labels, traffic: Traffic, end: int) -> Iterator[str]:
    """The agent's metrics for one version and cohort."""
    yield from line("canary_requests_total", labels, traffic.rate, end)
    if traffic.failed is not None:
        yield from line("canary_errors_total", labels, traffic.failed, end)
    yield from histogram("canary_latency_seconds", labels, traffic, end)


def level(name: str, labels: Labels, value: float, end: int) -> Iterator[str]:
    """A gauge that never moves."""
    text = ",".join(f'{key}="{value}"' for key, value in labels.items())
    for age in range(HISTORY, -1, -STEP):
        yield f"{name}{{{text}}} {value} {(end - age) * 1000}"


def histogram(name: str, labels: Labels, traffic: Traffic, end: int, scale: int = 1) -> Iterator[str]:
    """A histogram with its sum and count; ``scale`` of its units are a second."""
    below = 0.0
    for bound, share in zip((*(f"{bound * scale:g}" for bound in BOUNDS), "+Inf"), traffic.latencies, strict=True):
        below += share
        yield from line(f"{name}_bucket", {**labels, "le": bound}, traffic.rate * below, end)
    yield from line(f"{name}_sum", labels, traffic.rate * traffic.mean * scale, end)
    yield from line(f"{name}_count", labels, traffic.rate, end)
