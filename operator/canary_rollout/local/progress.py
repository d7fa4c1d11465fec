"""How long work reports where it is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report.

    Attributes:
        step: what is being done, stable over its reports (``"build controlplane"``).
        message: one short sentence for a person.
        done: units finished so far.
        total: units in all; 0 when unknown.
    """

    step: str
    message: str
    done: int = 0
    total: int = 0


ProgressCallback = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """Report to nobody."""
