"""Errors of this room."""

from canary_rollout.errors import CanaryRolloutError


class MetricsError(CanaryRolloutError):
    """Base of what this room raises."""


class UnsafeValueError(MetricsError, ValueError):
    """A name that must not reach a query; the message holds the field and the value."""


class PresetError(MetricsError):
    """A preset file that cannot be used: a mistake of ours, found at start and by the tests."""


class QueryError(MetricsError):
    """A query without an answer; the message is fit for status (short, one line, no secrets)."""


class BadQueryError(QueryError):
    """Prometheus does not accept the query (HTTP 400 ``bad_data``, 422 ``execution``): it stays so until it is mended."""


class SlowQueryError(QueryError):
    """This query took too long; others may do."""


class OutageError(QueryError):
    """Prometheus cannot be reached, refuses, or is not a Prometheus."""
