"""The halt rules every rollout is watched by unless it says otherwise. Data: each can be changed or switched off by its name.

Actions follow one line: harm to users, money or data rolls back; quality pauses; capacity is told. A rule whose series an app has never
had is inactive, so nothing here asks an app for metrics that it does not have.
"""

from typing import Any, Final

STANDARD_RULES: Final[tuple[dict[str, Any], ...]] = (
    # Harm to users.
    {"name": "error-rate", "preset": "error-rate", "above": "1%", "for": "5m", "action": "Rollback"},
    {"name": "error-rate-vs-stable", "preset": "error-rate", "aboveRatio": "2", "action": "Rollback"},
    # Harm to money and data.
    {"name": "failed-transactions", "preset": "failed-transaction-rate", "above": "0.1%", "for": "5m"},
    {"name": "data-inconsistency", "preset": "data-inconsistencies", "above": "0", "minRequests": 0},
    {"name": "security-alert", "alert": {"labels": {"category": "security"}}},
    {"name": "compliance-violation", "alert": {"labels": {"category": "compliance"}}},
    # Quality.
    {"name": "p99-latency", "preset": "latency-p99", "aboveRatio": "5", "for": "10m", "action": "Pause"},
    {"name": "p99-vs-stable", "preset": "latency-p99", "aboveRatio": "1.5", "for": "10m", "minRequests": 1000, "action": "Pause"},
    {"name": "slow-requests", "preset": "latency-p99", "above": "2", "for": "5m", "action": "Pause"},
    {"name": "p95-latency", "preset": "latency-p95", "aboveRatio": "2", "for": "10m", "action": "Alert"},
    {"name": "average-latency", "preset": "latency-average", "aboveRatio": "2", "for": "10m", "action": "Alert"},
    {"name": "p75-latency", "preset": "latency-p75", "aboveRatio": "1.1", "for": "10m", "minRequests": 1000, "action": "Alert"},
    {"name": "timeouts", "preset": "timeout-rate", "above": "0.5%", "for": "5m", "action": "Pause"},
    {"name": "engine-timeouts", "preset": "engine-timeout-rate", "above": "0.5%", "for": "5m", "action": "Pause"},
    {"name": "lcp", "preset": "lcp-p75", "above": "2.5", "for": "15m", "action": "Pause"},
    {"name": "inp", "preset": "inp-p75", "above": "0.2", "for": "15m", "action": "Pause"},
    {"name": "cls", "preset": "cls-p95", "above": "0.1", "for": "15m", "action": "Pause"},
    {"name": "approval-denials", "preset": "denial-rate", "aboveSigma": "3", "for": "10m", "action": "Pause"},
    # Capacity.
    {"name": "db-connections", "preset": "db-connections", "above": "90%", "for": "5m", "minRequests": 0, "action": "Alert"},
    {"name": "memory", "preset": "memory", "above": "90%", "for": "10m", "minRequests": 0, "action": "Alert"},
    {"name": "cpu", "preset": "cpu", "above": "80%", "for": "10m", "minRequests": 0, "action": "Alert"},
    # Is it what we think it is?
    {"name": "cache-hits", "preset": "cache-hit-ratio", "belowRatio": "0.8", "for": "10m", "action": "Alert"},
    {"name": "error-logs", "preset": "error-logs", "above": "10", "for": "5m", "action": "Alert"},
    {"name": "other-version", "preset": "other-version", "above": "0", "for": "1m", "minRequests": 0, "action": "Pause"},
    {"name": "traffic-share", "preset": "traffic-share", "above": "50%", "for": "5m", "minRequests": 100, "action": "Alert"},
)  # fmt: skip
"""In the order in which they are listed; written as a user would write them."""

STANDARD_NAMES: Final = tuple(rule["name"] for rule in STANDARD_RULES)
