"""What can go wrong beside nginx. Each message says what was tried, what came back and what stays in force."""

from canary_rollout.errors import CanaryRolloutError


class LoadError(CanaryRolloutError):
    """nginx refused a configuration, or did not take it over; the last good one goes on serving."""


class NotRunningError(CanaryRolloutError):
    """There is no nginx to talk to yet (or any more)."""


class LapsedError(CanaryRolloutError):
    """The proxy runs and serves stable alone: nothing has renewed its lease for too long."""


class ControlError(CanaryRolloutError):
    """nginx's control address did not answer as it should."""
