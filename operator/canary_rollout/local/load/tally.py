"""Counting what became of every request."""

import re
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from canary_rollout.local.load.client import Answer

MAX_SAMPLES = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request and what became of it. Times are ``time.monotonic()``, the same clock in every process of a Linux.

    Attributes:
        tenant: who asked.
        begin: when the request was written.
        end: when its answer was complete, or when it was given up.
        kind: ``ok``, ``app_error``, ``no_app`` or ``transport``.
        detail: the transport error's kind, else empty.
        answer: what came back, ``None`` for a transport error.
    """

    tenant: str
    begin: float
    end: float
    kind: Literal["ok", "app_error", "no_app", "transport"]
    detail: str = ""
    answer: Answer | None = None

    def to_dict(self) -> dict[str, Any]:
        """For a log line."""
        answer = self.answer
        return {
            "tenant": self.tenant,
            "begin": round(self.begin, 6),
            "end": round(self.end, 6),
            "kind": self.kind,
            **({"detail": self.detail} if self.detail else {}),
            **(
                {"status": answer.status, "version": answer.app_version, "pod": answer.pod, "told": answer.told_version}
                if answer is not None
                else {}
            ),
        }


@dataclass(slots=True)
class VersionCount:
    """Answers of one version in one arm (``canary/v2``); times are monotonic, 0 where there was none yet.

    ``last_begin`` is when the last request that this version answered was *sent*: a long request that began before a
    rollback ends after it, and that is as it should be.
    """

    answers: int = 0
    errors: int = 0
    first_end: float = 0.0
    last_begin: float = 0.0
    last_end: float = 0.0
    first_error: float = 0.0
    told: str = ""

    def add(self, outcome: Outcome, answer: Answer) -> None:
        """Count one answer."""
        self.answers += 1
        self.told = answer.told_version
        self.first_end = self.first_end or outcome.end
        self.last_begin = max(self.last_begin, outcome.begin)
        self.last_end = max(self.last_end, outcome.end)
        if outcome.kind == "app_error":
            self.errors += 1
            self.first_error = self.first_error or outcome.end


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything counted since the start. ``clock_offset`` + a monotonic time = POSIX time.

    ``closed_idle`` counts connections that the server ended while nothing was under way on them (no error).
    ``late`` counts requests that were written more than 0.1 s after they were due.
    """

    monotonic: float
    clock_offset: float
    elapsed: float
    sent: int
    answered: int
    ok: int
    app_errors: int
    no_app: int
    transport_errors: int
    not_sent: int
    late: int
    in_flight: int
    connections: int
    closed_idle: int
    tenants: int
    harmed_tenants: int
    transport_kinds: dict[str, int]
    no_app_statuses: dict[str, int]
    versions: dict[str, VersionCount]
    samples: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Snapshot":
        """The inverse of :meth:`to_dict`."""
        versions = {key: VersionCount(**count) for key, count in values["versions"].items()}
        return cls(**{**values, "versions": versions})


@dataclass(slots=True)
class Tally:
    """Adds up outcomes; ``canary`` is the name of the canary's Deployment."""

    canary: str
    sent: int = 0
    not_sent: int = 0
    late: int = 0
    closed_idle: int = 0
    kinds: dict[str, int] = field(default_factory=lambda: {"ok": 0, "app_error": 0, "no_app": 0, "transport": 0})
    transport_kinds: dict[str, int] = field(default_factory=dict)
    no_app_statuses: dict[str, int] = field(default_factory=dict)
    versions: dict[str, VersionCount] = field(default_factory=dict)
    tenants: set[str] = field(default_factory=set)
    harmed: set[str] = field(default_factory=set)
    samples: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))
    _canary_pod: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        # The stable Deployment's name is often a prefix of the canary's, so the whole pod name has to fit.
        self._canary_pod = re.compile(rf"{re.escape(self.canary)}-[a-z0-9]+-[a-z0-9]+")

    def arm(self, pod: str) -> str:
        """``canary`` or ``stable``, by the pod that answered."""
        return "canary" if self._canary_pod.fullmatch(pod) else "stable"

    def judge(self, tenant: str, begin: float, end: float, answer: Answer) -> Outcome:
        """The outcome of an answered request."""
        if not answer.app_version:
            return Outcome(tenant, begin, end, "no_app", answer=answer)
        return Outcome(tenant, begin, end, "app_error" if answer.status >= 500 else "ok", answer=answer)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self.kinds[outcome.kind] += 1
        self.tenants.add(outcome.tenant)
        answer = outcome.answer
        if outcome.kind != "ok":
            self.harmed.add(outcome.tenant)
        if outcome.kind == "transport":
            self.transport_kinds[outcome.detail] = self.transport_kinds.get(outcome.detail, 0) + 1
            self.samples.append(outcome.to_dict())
        elif outcome.kind == "no_app" and answer is not None:
            status = str(answer.status)
            self.no_app_statuses[status] = self.no_app_statuses.get(status, 0) + 1
            self.samples.append({**outcome.to_dict(), "body": answer.body.decode("latin-1")})
        elif answer is not None:
            key = f"{self.arm(answer.pod)}/{answer.app_version}"
            self.versions.setdefault(key, VersionCount()).add(outcome, answer)

    def snapshot(self, *, monotonic: float, clock_offset: float, elapsed: float, connections: int) -> Snapshot:
        """A copy of all counts."""
        done = sum(self.kinds.values())
        return Snapshot(
            monotonic=monotonic,
            clock_offset=clock_offset,
            elapsed=elapsed,
            sent=self.sent,
            answered=done - self.kinds["transport"],
            ok=self.kinds["ok"],
            app_errors=self.kinds["app_error"],
            no_app=self.kinds["no_app"],
            transport_errors=self.kinds["transport"],
            not_sent=self.not_sent,
            late=self.late,
            in_flight=self.sent - done,
            connections=connections,
            closed_idle=self.closed_idle,
            tenants=len(self.tenants),
            harmed_tenants=len(self.harmed),
            transport_kinds=dict(self.transport_kinds),
            no_app_statuses=dict(self.no_app_statuses),
            versions={key: VersionCount(**asdict(count)) for key, count in self.versions.items()},
            samples=list(self.samples),
        )
