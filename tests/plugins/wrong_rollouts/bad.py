"""A CanaryRollout that is wrong in one way, and the parts the wrong ones are made of."""

from dataclasses import dataclass, field
from typing import Any

from rollouts import GONE, RULE, changed

WEIGHT = "spec.stages[0].weight"
RULE_BOUNDS = "above, below, aboveRatio, belowRatio and aboveSigma"
GATE_BOUNDS = "max, min, maxRatio, minRatio and maxSigma"
CHOICES = "not among the choices"
RELIED_ON: tuple[str, ...] = (
    *(
        "Host",
        "cookie",
        "AUTHORIZATION",
        "Content-Length",
        "Content-Type",
        "Connection",
        "Transfer-Encoding",
        "Upgrade",
    ),
    *("Accept", "User-Agent", "Origin", "Range", "If-None-Match", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP"),
    *("X-Request-ID", "traceparent", "tracestate", "Baggage", "b3", "X-B3-TraceId", "grpc-timeout", "x-envoy-retry-on"),
    *("Set-Cookie", "Location", "Cache-Control", "ETag", "Vary", "WWW-Authenticate", "Access-Control-Allow-Origin"),
    *("Strict-Transport-Security", "Content-Security-Policy", "X-Frame-Options", "X-Accel-Redirect", "Date", "Server"),
)
"""Headers that an app, a client or a proxy relies on: neither version may be told under their names."""


@dataclass(frozen=True)
class Bad:
    """A change that makes a CanaryRollout wrong.

    Attributes:
        says: part of the sentence both must say.
        at: field the sentence is about, as in the YAML.
        changes: by path below ``spec``.
        server_says: where the API server's own schema check speaks instead, part of what it says.
        server_at: where the API server blames another field.
    """

    name: str
    at: str
    says: str
    changes: dict[str, Any] = field(hash=False)
    server_says: str = ""
    server_at: str = ""

    @property
    def manifest(self) -> dict[str, Any]:
        """The wrong CanaryRollout."""
        return changed(self.changes)


def stages(*weights: Any, **first: Any) -> list[dict[str, Any]]:
    made = [{"name": f"s{at}", "weight": weight, "hold": "1h"} for at, weight in enumerate(weights)]
    made[0].update(first)
    return made


def rule(**changes: Any) -> dict[str, Any]:
    merged = {**RULE, **changes}
    return {"haltRules": [{key: value for key, value in merged.items() if value is not GONE}]}


def gate(**asked: Any) -> dict[str, Any]:
    return {"stages": stages("5%", "100%", exit=[asked])}


def cohort(**people: Any) -> dict[str, Any]:
    return {"stages": stages("5%", "100%", cohort=people)}
