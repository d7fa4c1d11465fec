"""What Prometheus answers, read once and kept ready for look-ups."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from canary_rollout.analysis.readings import EMPTY, Reading
from canary_rollout.metrics.locate import ANY, TENANT_LABEL
from canary_rollout.metrics.places import RAW, ArmKey, Shape
from canary_rollout.metrics.pods import POD_SUFFIX

Values = Mapping[ArmKey, float]
Units = Mapping[ArmKey, Mapping[tuple[str, float | None], float]]
"""By version: by pod (and bucket edge), the raw value."""

_MATCHER: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)(=~|=)"([^"]*)"')


def index(result: list[Any], labels: tuple[str, ...]) -> dict[ArmKey, float]:
    """Return the values of a vector by the labels that tell the versions apart.

    Raises:
        ValueError, TypeError, KeyError, IndexError: the answer is not a vector.
    """
    if len(labels) == 2:  # the most frequent shape, spelled out: thousands of series come through here every second
        first, second = labels
        return {
            (metric.get(first, ""), metric.get(second, "")): float(value[1])
            for metric, value in ((series["metric"], series["value"]) for series in result)
        }
    return {
        tuple([metric.get(label, "") for label in labels]): float(value[1])
        for metric, value in ((series["metric"], series["value"]) for series in result)
    }


def index_raw(result: Iterable[tuple[Mapping[str, str], float]], shape: Shape) -> dict[ArmKey, dict[Any, float]]:
    """Return raw values by version, then by pod and bucket edge; also by the version without its optional labels.

    Args:
        result: labels and value of every series.
        shape: what was asked.

    Raises:
        ValueError: a bucket's edge is not a number.
    """
    found: dict[ArmKey, dict[Any, float]] = defaultdict(dict)
    identity, names = shape.presets.identity, shape.presets.of.labels
    by_pod = names.pod in shape.labels
    tenants = shape.measure.startswith(f"{RAW}tenants:")
    buckets = shape.measure == f"{RAW}latency_bucket"
    scale = shape.presets.of.traffic.scale if buckets and shape.presets.of.traffic is not None else 1.0
    optional = [place for place, label in enumerate(shape.labels) if identity and label in identity.optional]
    for metric, value in result:
        pod = metric.get(names.pod, "")
        unit = (f"bucket:{metric.get(TENANT_LABEL, '')}" if tenants else pod, _edge(metric, scale) if buckets else None)
        if by_pod:
            found[metric.get(shape.labels[0], ""), pod[:-POD_SUFFIX]][unit] = value
            continue
        key = tuple([metric.get(label, "") for label in shape.labels])
        found[key][unit] = value
        if optional:
            wide = tuple(ANY if place in optional else part for place, part in enumerate(key))
            found[wide][unit] = found[wide].get(unit, 0.0) + value
    return dict(found)


def _edge(metric: Mapping[str, str], scale: float) -> float:
    # Rounded, so that 250 ms and 0.25 s are the same edge whatever the arithmetic does.
    return round(float(metric["le"]) * scale, 9)


def count_firing(result: list[Any], matchers: str) -> float:
    """Return how many alerts of an answer have these labels.

    Raises:
        ValueError, TypeError, KeyError: the answer is not a vector.
    """
    wanted = _parsed(matchers)
    return float(sum(_has(series["metric"], wanted) for series in result))


@lru_cache(4096)
def _parsed(matchers: str) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (label, re.compile(value) if operator == "=~" else value)
        for label, operator, value in _MATCHER.findall(matchers)
    )


def _has(metric: Mapping[str, str], wanted: tuple[tuple[str, Any], ...]) -> bool:
    return all(
        metric.get(label, "") == value if isinstance(value, str) else value.fullmatch(metric.get(label, "")) is not None
        for label, value in wanted
    )


def one(result: list[Any]) -> Reading:
    """Return the reading of a query that ought to answer with one number.

    Raises:
        ValueError, TypeError, KeyError, IndexError: the answer is neither a scalar nor a vector.
    """
    if not result:
        return EMPTY
    if not isinstance(result[0], dict):  # a scalar: [time, "value"]
        return Reading.of(float(result[1]))
    if "value" not in result[0]:
        return Reading.bad_query("it answers with a range; an instant query answers with one number")
    if len(result) > 1:
        return Reading.bad_query(
            f"it answers with {len(result)} series, not with one number; wrap it in sum() or avg()"
        )
    return Reading.of(float(result[0]["value"][1]))
