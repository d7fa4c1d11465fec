"""What Prometheus answers, read once and kept ready for look-ups."""

from collections.abc import Mapping
from typing import Any

from canary_rollout.analysis.readings import EMPTY, Reading
from canary_rollout.metrics.plan import ArmKey

Values = Mapping[ArmKey, float]


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
