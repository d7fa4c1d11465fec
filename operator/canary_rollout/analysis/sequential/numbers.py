"""Numbers as they are kept in status: short, and the same for the process that goes on and the one that is restored."""

from collections.abc import Iterable


def short(value: float, digits: int = 2) -> float:
    """Round; a whole number loses its ``.0`` on the way to JSON."""
    rounded = round(value, digits)
    return int(rounded) if rounded == int(rounded) else rounded


def log_short(value: float) -> float:
    """Round a logarithm to five digits, of which two after the point; what is far below zero needs no more."""
    size = abs(value)
    return short(value, 2 if size < 1000 else 1 if size < 10_000 else 0)


def log_shorts(values: Iterable[float]) -> list[float]:
    """Round logarithms."""
    return [log_short(value) for value in values]


def shorts(values: Iterable[float], digits: int = 2) -> list[float]:
    """Round them all."""
    return [short(value, digits) for value in values]
