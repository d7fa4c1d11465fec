"""The kubelet's restart back-off: at once, then 10 s, doubling to 5 minutes, forgotten after 10 good minutes."""

from dataclasses import dataclass

INITIAL_SECONDS = 10.0
MAXIMUM_SECONDS = 300.0


@dataclass
class BackOff:
    """Back-off of one container (or one image pull).

    Attributes:
        scale: factor on all durations, so that tests need not wait for real ones.
        first: delay of the first :meth:`next`: 0 for restarts, :data:`INITIAL_SECONDS` for image pulls.
    """

    scale: float = 1.0
    first: float = 0.0
    _upcoming: float | None = None

    def next(self, ran_seconds: float = 0.0) -> float:
        """Return the nominal seconds to wait now, unscaled (messages show them so), and move on.

        Args:
            ran_seconds: how long the container had run before it ended, in real seconds.
        """
        if self._upcoming is None or ran_seconds > 2 * MAXIMUM_SECONDS * self.scale:
            self._upcoming = self.first
        delay = self._upcoming
        self._upcoming = min(max(delay * 2, INITIAL_SECONDS), MAXIMUM_SECONDS)
        return delay
