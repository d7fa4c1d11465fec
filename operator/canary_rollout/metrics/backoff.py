"""When to ask again after a failure."""

import random
from dataclasses import dataclass, field
from typing import Final

SHORTEST: Final = 0.5
LONGEST: Final = 8.0
LARGEST_EXPONENT: Final = 10


@dataclass(slots=True)
class Backoff:
    """Doubles from half a second to eight, with jitter; one success ends it.

    Attributes:
        failures: failures without a success between them.
        until: monotonic seconds before which nothing is asked.
        reason: the latest failure, in words.
        jitter: source of randomness.
    """

    failures: int = 0
    until: float = 0.0
    reason: str = ""
    jitter: random.Random = field(default_factory=random.Random, repr=False)

    def failed(self, now: float, reason: str) -> None:
        """Note a failure."""
        if now < self.until:
            return  # queries that were under way together fail together, and count as one
        pause = min(LONGEST, SHORTEST * 2 ** min(self.failures, LARGEST_EXPONENT))
        self.failures += 1
        self.until = now + pause * self.jitter.uniform(0.5, 1.0)
        self.reason = reason

    def succeeded(self) -> None:
        """Note a success."""
        self.failures, self.until, self.reason = 0, 0.0, ""

    def holds(self, now: float) -> bool:
        """Return whether it is too early to ask."""
        return now < self.until
