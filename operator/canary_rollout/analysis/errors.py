"""Errors of this room."""

from canary_rollout.errors import CanaryRolloutError


class EvidenceError(CanaryRolloutError, ValueError):
    """Persisted evidence that cannot be read; the message names the field and its value."""
