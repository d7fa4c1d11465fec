"""The agent's own metrics; those of the requests it counts are in ``accesslog``."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class Instruments:
    """One set per process (or per test)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.reloads = Counter(
            "canary_agent_reloads", "Times nginx was told to load a new configuration.", registry=registry
        )
        self.applied = Counter("canary_agent_applied", "Documents brought to nginx and proved.", registry=registry)
        self.failures = Counter(
            "canary_agent_failures", "What went wrong, by what was tried.", ["action"], registry=registry
        )
        self.retries = Counter(
            "canary_agent_retries",
            "Repeated calls to the API server and to nginx, by what was tried.",
            ["action"],
            registry=registry,
        )
        self.weight = Gauge(
            "canary_agent_weight_ratio", "Share of the canary that nginx is proved to serve.", registry=registry
        )
        self.lease = Gauge(
            "canary_agent_lease_expires_seconds",
            "POSIX time until which a weight below 100 % is served.",
            registry=registry,
        )
