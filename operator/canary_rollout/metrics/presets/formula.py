"""Formulas into PromQL: pure text.

Rules behind it, all tested on a real Prometheus (tests/metrics):

- An error rate counts failed requests of a version that had none as 0, not as missing: ``or 0 * all``. A naive quotient
  is empty while no 5xx series exists, and a healthy canary would look like one without data.
- ``> 0`` and ``>= 0`` turn NaN (idle) into an empty answer: no traffic has no error rate and no latency.
- Gauges are summed per pod first: containers of a pod are one thing, pods are many.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from canary_rollout.metrics.pod_names import ARM_LABEL, PREFIX_PATTERN
from canary_rollout.metrics.presets.schema import Formula, parse_series
from canary_rollout.model.units import format_duration

VERSION_LABEL: Final = "cr_version"
"""Label that holds the version a pod reports, in the answers of ``otherVersion``."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a formula is rendered for.

    Attributes:
        where: matchers without braces, such as ``namespace="shop"``; values already escaped.
        labels: labels that tell the versions apart; :data:`~canary_rollout.metrics.pods.ARM_LABEL` is derived from ``pod``.
        window: range of the rates, seconds.
        pod: the source's label of a pod's name.
        status_label: label that holds the HTTP status; ``$status`` in matchers.
    """

    where: str
    labels: tuple[str, ...]
    window: float = 0.0
    pod: str = "pod"
    status_label: str = "status"

    def selector(self, series: str) -> str:
        """Return a series with all matchers, in braces."""
        name, matchers = parse_series(series)
        matchers = matchers.replace("$status=", f"{self.status_label}=").replace("$status!", f"{self.status_label}!")
        return f"{name}{{{','.join(part for part in (self.where, matchers) if part)}}}"

    def by(self, *more: str) -> str:
        """Return the grouping by version and ``more``."""
        return f"({', '.join(dict.fromkeys((*self.labels, *more)))})"

    def by_pod(self, *more: str) -> str:
        """Return the grouping by version, pod and ``more``."""
        labels = (label for label in self.labels if label != ARM_LABEL)
        return f"({', '.join(dict.fromkeys((*labels, self.pod, *more)))})"

    def named(self, inner: str) -> str:
        """Return series with the version's label derived from the pod's name, where versions are told apart by it."""
        if ARM_LABEL not in self.labels:
            return inner
        return f'label_replace({inner}, "{ARM_LABEL}", "$1", "{self.pod}", "{PREFIX_PATTERN}")'

    def total(self, function: str, series: str, *more: str) -> str:
        """Return the sum per version of ``rate`` or ``increase`` of a counter."""
        return f"sum by {self.by(*more)} ({self.named(f'{function}({self.selector(series)}[{format_duration(self.window)}])')})"

    def rate(self, series: str, *more: str) -> str:
        """Return a counter's rate per version."""
        return self.total("rate", series, *more)


def render(formula: Formula, query: Query) -> str:
    """Return the PromQL of a formula, one series per version (for ``otherVersion``: per version and reported version)."""
    if formula.any_of is not None:
        return " or ".join(f"({render(part, query)})" for part in formula.any_of)
    return _RENDERERS[formula.kind](formula, query)


def raw_counters(requests: str, failed: str, query: Query) -> tuple[str, str]:
    """Return the queries of the cumulative requests and failed requests per version and pod; failed is 0 where unseen."""
    by = query.by_pod()
    total = f"sum by {by} ({query.selector(requests)})"
    return total, f"sum by {by} ({query.selector(failed)}) or 0 * {total}"


def raw_buckets(latency: str, query: Query) -> str:
    """Return the query of the cumulative buckets of a histogram per version, pod and ``le``."""
    return f"sum by {query.by_pod('le')} ({query.selector(with_suffix(latency, '_bucket'))})"


def raw_gauge(part: str, whole: str | None, query: Query) -> str:
    """Return the query of a gauge per version and pod, as a share of ``whole`` where there is one."""
    by = query.by_pod()
    text = f"sum by {by} ({query.selector(part)})"
    return text if whole is None else f"{text} / (sum by {by} ({query.selector(whole)}) > 0)"


def with_suffix(series: str, suffix: str) -> str:
    """Return ``name{matchers}`` with ``suffix`` after the name."""
    name, matchers = parse_series(series)
    return f"{name}{suffix}{{{matchers}}}" if matchers else f"{name}{suffix}"


def _scaled(text: str, scale: float) -> str:
    return text if scale == 1.0 else f"{text} * {scale:g}"


def _rate(formula: Formula, query: Query) -> str:
    return _scaled(query.rate(formula.rate or ""), formula.scale)


def _increase(formula: Formula, query: Query) -> str:
    return _scaled(query.total("increase", formula.increase or ""), formula.scale)


def _share(formula: Formula, query: Query) -> str:
    assert formula.share is not None  # noqa: S101 - render looked
    part, whole = query.rate(formula.share.part), query.rate(formula.share.whole)
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def _quantile(formula: Formula, query: Query) -> str:
    assert formula.quantile is not None  # noqa: S101 - render looked
    text = f"histogram_quantile({formula.quantile.q:g}, {query.rate(formula.quantile.bucket, 'le')})"
    return f"{_scaled(text, formula.scale)} >= 0"


def _average(formula: Formula, query: Query) -> str:
    assert formula.average is not None  # noqa: S101 - render looked
    text = f"{query.rate(formula.average.sum)} / ({query.rate(formula.average.count)} > 0)"
    return _scaled(text, formula.scale)


def _gauge(formula: Formula, query: Query) -> str:
    assert formula.gauge is not None  # noqa: S101 - render looked
    inner = query.named(raw_gauge(formula.gauge.series, None, query))
    return _scaled(f"{formula.gauge.across} by {query.by()} ({inner})", formula.scale)


def _gauge_share(formula: Formula, query: Query) -> str:
    share = formula.gauge_share
    assert share is not None  # noqa: S101 - render looked
    return f"{share.across} by {query.by()} ({query.named(raw_gauge(share.part, share.whole, query))})"


def _rate_share(formula: Formula, query: Query) -> str:
    assert formula.rate_share is not None  # noqa: S101 - render looked
    whole = f"sum by {query.by()} ({query.named(query.selector(formula.rate_share.whole))})"
    return f"{query.rate(formula.rate_share.part)} / ({whole} > 0)"


def _other_version(formula: Formula, query: Query) -> str:
    other = formula.other_version
    assert other is not None  # noqa: S101 - render looked
    pods = f"group by {query.by_pod(other.label)} ({query.selector(other.series)})"
    named = f'label_replace({query.named(pods)}, "{VERSION_LABEL}", "$1", "{other.label}", "(.*)")'
    return f"count by {query.by(VERSION_LABEL)} ({named})"


def render_other_alone(formula: Formula, query: Query, expected: str) -> str:
    """Return the query of ``otherVersion`` for one version alone: one number, 0 where all pods report ``expected``."""
    other = formula.other_version
    assert other is not None  # noqa: S101 - the caller looked
    pods = f"group by {query.by_pod(other.label)} ({query.selector(other.series)})"
    name, matchers = parse_series(other.series)
    wrong = (
        f"{name}{{{','.join(part for part in (matchers, f'{other.label}!=' + chr(34) + expected + chr(34)) if part)}}}"
    )
    others = f"group by {query.by_pod(other.label)} ({query.selector(wrong)})"
    return f"count by {query.by()} ({others}) or 0 * count by {query.by()} ({pods})"


_RENDERERS: Final[dict[str, Callable[[Formula, Query], str]]] = {
    "rate": _rate,
    "increase": _increase,
    "share": _share,
    "quantile": _quantile,
    "average": _average,
    "gauge": _gauge,
    "gaugeShare": _gauge_share,
    "rateShare": _rate_share,
    "otherVersion": _other_version,
}
