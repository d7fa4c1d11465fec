"""Many wrong values in one test: a test of its own for each would cost ten times what it looks at."""

from collections.abc import Callable, Iterable
from typing import TypeVar

Value = TypeVar("Value")


def let_through(values: Iterable[Value], attempt: Callable[[Value], object], *errors: type[Exception]) -> list[Value]:
    """Those of ``values`` for which ``attempt`` raises none of ``errors``; to be compared with ``[]``. Other errors are not caught."""
    taken = []
    for value in values:
        try:
            attempt(value)
        except errors:
            continue
        taken.append(value)
    return taken
