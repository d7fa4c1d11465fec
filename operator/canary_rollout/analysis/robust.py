"""Robust statistics in pure Python: medians and what goes with them. Half of the values may be wild without effect."""

from collections.abc import Sequence
from typing import Final

TO_SIGMA: Final = 1.4826
"""Median absolute deviation times this is the standard deviation, for a normal distribution."""


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two middle ones.

    Args:
        values: at least one number, in any order and unit.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("the median of no values is asked for: give at least one")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Sequence[float], centre: float | None = None) -> float:
    """Return the standard deviation as the median absolute deviation from the centre tells it, in the values' unit.

    Args:
        values: at least one number.
        centre: what to measure from; the median when not given.

    Raises:
        ValueError: there are no values.

    Source: Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation", JASA 88 (1993), section 1.
    """
    middle = median(values) if centre is None else centre
    return TO_SIGMA * median([abs(value - middle) for value in values])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the Theil-Sen slope: the median of the slopes between all pairs of points, in y per x.

    Args:
        points: (x, y) with at least two different x. The cost is quadratic: meant for some tens of points.

    Raises:
        ValueError: there are no two points with different x.

    Source: Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau", JASA 63 (1968).
    """
    slopes = [
        (other[1] - point[1]) / (other[0] - point[0])
        for number, point in enumerate(points)
        for other in points[number + 1 :]
        if other[0] != point[0]
    ]
    if not slopes:
        raise ValueError(f"a slope through {len(points)} points is asked for: give two with different x at least")
    return median(slopes)
