"""Numbers as they are kept in status: short, and the same for the process that goes on and the one that is restored."""

from collections.abc import Iterable


def short(value: float, digits: int = 2) -> float:
    """Round; a whole number loses its ``.0`` on the way to JSON."""
    rounded = round(value, digits)
    return int(rounded) if rounded == int(rounded) else rounded


def shorts(values: Iterable[float], digits: int = 2) -> list[float]:
    """Round them all."""
    return [short(value, digits) for value in values]
