"""Numbers as they are kept in status: short, and the same for the process that goes on and the one that is restored.

The lists are rounded in place of a call each: hundreds of numbers a minute are a quarter of what an evaluation costs.
"""

from collections.abc import Iterable


def short(value: float, digits: int = 2) -> float:
    """Round; a whole number loses its ``.0`` on the way to JSON."""
    rounded = round(value, digits)
    whole = int(rounded)
    return whole if rounded == whole else rounded


def log_shorts(values: Iterable[float], scale: float) -> list[float]:
    """Round logarithms to two digits after the point, fewer where they are large.

    What is far below zero is lifted to a floor: that adds at most e^-100 to evidence that is compared with 100.

    Args:
        values: the logarithms.
        scale: what they will be divided by.
    """
    floor = -max(9999.0, 100.0 * scale)
    return [
        whole if (near := round(max(value, floor), 2 if -1000 < value < 1000 else 0)) == (whole := int(near)) else near
        for value in values
    ]


def count_shorts(values: Iterable[float]) -> list[float]:
    """Round counts; fractions (of lost scrapes) matter to small ones only."""
    return [
        whole if (near := round(value, 2 if value < 1000 else 0)) == (whole := int(near)) else near for value in values
    ]


def shorts(values: Iterable[float], digits: int = 2) -> list[float]:
    """Round them all."""
    return [whole if (near := round(value, digits)) == (whole := int(near)) else near for value in values]
