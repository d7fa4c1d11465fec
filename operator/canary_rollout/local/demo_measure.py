"""What the demo and the benchmark measure beside the operator, with instruments of their own.

The operator is not asked about itself: Prometheus is polled every 50 ms, the route's ConfigMap and the CanaryRollout are
watched, and the load generator says which request was answered by whom. All on one machine, so on one clock.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import aiohttp

from canary_rollout.local.client import KubeClient
from canary_rollout.local.errors import ApiError
from canary_rollout.local.load import Snapshot, VersionCount
from canary_rollout.model.plain import parse_json
from canary_rollout.model.units import UnitError, parse_instant, parse_weight

POLL_SECONDS = 0.05
RETRY_SECONDS = 0.2
ROLLOUT_KIND = ("canaryrollout.dev/v1alpha1", "CanaryRollout")
WRITTEN_AT = "canaryrollout.dev/written-at"
WEIGHTS_KEY = "weights.json"

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Breach:
    """The first time Prometheus answered what a halt rule would call a breach.

    Attributes:
        at: POSIX seconds at which the answer was here.
        asked_at: POSIX seconds at which the query was sent.
        value: the error rate, 0..1.
    """

    at: float
    asked_at: float
    value: float


def breach_query(selector: str, *, above: float, min_requests: int, window: str) -> str:
    """PromQL that answers with the error rate when it is above ``above`` with enough requests, else with nothing."""
    every = f"http_requests_total{{{selector}}}"
    bad = f'http_requests_total{{{selector},status=~"5.."}}'
    rate = f"sum(rate({bad}[{window}])) / sum(rate({every}[{window}]))"
    return f"({rate} > {above:g}) and on () (sum(increase({every}[{window}])) >= {min_requests})"


class BreachPoller:
    """Asks Prometheus again and again until it answers a breach.

    Args:
        url: of Prometheus.
        query: answers with one value when there is a breach, with nothing otherwise.
    """

    def __init__(self, url: str, query: str) -> None:
        self._url = url
        self._query = query
        self.breach: Breach | None = None
        self.asked = 0

    async def run(self) -> Breach:
        """Poll until there is a breach; cancel it to give up."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                asked_at = time.time()
                self.asked += 1
                value = await self._ask(session)
                if value is not None:
                    self.breach = Breach(time.time(), asked_at, value)
                    return self.breach
                await asyncio.sleep(max(0.0, asked_at + POLL_SECONDS - time.time()))

    async def _ask(self, session: aiohttp.ClientSession) -> float | None:
        try:
            async with session.post(f"{self._url}/api/v1/query", data={"query": self._query}) as response:
                answer: dict[str, Any] = await response.json()
        except (aiohttp.ClientError, TimeoutError):
            return None
        result = answer.get("data", {}).get("result") or []
        return float(result[0]["value"][1]) if result else None


@dataclass(frozen=True, slots=True)
class RouteWrite:
    """One write of the route. ``written_at`` is the operator's own word, ``seen_at`` ours; POSIX seconds."""

    weight: int
    revision: str
    written_at: float
    seen_at: float


@dataclass(slots=True)
class RouteLog:
    """Every weight that was written into the nginx router's ConfigMap, in order."""

    writes: list[RouteWrite] = field(default_factory=list)

    def take(self, config_map: Manifest) -> None:
        """Add the ConfigMap's weight if it is another than the last."""
        try:
            document = parse_json((config_map.get("data") or {})[WEIGHTS_KEY])
            weight, revision = int(document["weight"]), str(document.get("revision", ""))
        except (KeyError, ValueError, TypeError):
            return  # not written by the operator yet
        notes = config_map["metadata"].get("annotations") or {}
        now = time.time()
        try:
            written = parse_instant(notes.get(WRITTEN_AT))
        except UnitError:
            written = now
        last = self.writes[-1] if self.writes else None
        if last is None or (last.weight, last.revision) != (weight, revision):
            self.writes.append(RouteWrite(weight, revision, written, now))

    def lowered_to_zero(self, after: float) -> RouteWrite | None:
        """The first write after ``after`` (POSIX seconds) that took a weight above 0 down to 0."""
        return next(
            (now for before, now in pairwise(self.writes) if before.weight and not now.weight and now.seen_at > after),
            None,
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """What status said from ``at`` (POSIX seconds) on."""

    at: float
    phase: str
    stage: str
    weight: int
    message: str


@dataclass(slots=True)
class RolloutLog:
    """The CanaryRollout as last seen, and what its status went through."""

    rollout: Manifest = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, rollout: Manifest) -> None:
        """Take over one version of the object."""
        self.rollout = rollout
        status = self.status
        try:
            weight = parse_weight(status.get("weight", "0%"))
        except UnitError:
            weight = 0
        words = (status.get("phase", ""), status.get("stage", ""), weight, status.get("message", ""))
        last = self.moments[-1] if self.moments else None
        if last is None or (last.phase, last.stage, last.weight, last.message) != words:
            self.moments.append(Moment(time.time(), *words))
        self.changed.set()

    @property
    def status(self) -> Manifest:
        """``status``, empty before the operator has written one."""
        status: Manifest = self.rollout.get("status") or {}
        return status

    @property
    def phase(self) -> str:
        """``status.phase``, empty before the operator has written one."""
        return str(self.status.get("phase", ""))

    @property
    def revision(self) -> str:
        """``status.revision``."""
        return str(self.status.get("revision", ""))

    async def wait(self, holds: Callable[["RolloutLog"], bool], seconds: float) -> bool:
        """Whether ``holds`` came true within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while not holds(self):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return False
        return True


async def watch_one(
    client: KubeClient, kind: tuple[str, str], namespace: str, name: str, take: Callable[[Manifest], None]
) -> None:
    """Hand every version of one object (``kind``: apiVersion and kind) to ``take``, for ever; lost connections are made again."""
    while True:
        try:
            async for event in client.stream(*kind, namespace=namespace, field_selector=f"metadata.name={name}"):
                if event.type in {"ADDED", "MODIFIED"}:
                    take(event.object)
        except (aiohttp.ClientError, TimeoutError, ApiError):
            pass  # the API server is away for a moment
        await asyncio.sleep(RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class RollbackTimes:
    """How fast a broken release was taken back; seconds, ``None`` where one of the two ends was not seen.

    Attributes:
        first_failure_to_write: from the canary's first failed answer to weight 0 written.
        breach_to_write: from Prometheus first answering a breach to weight 0 written.
        breach_to_last_request: from there to the last request that the canary served (its answer).
        write_to_last_request: from the operator's write alone to the last request that the canary served.
        failed_answers: failed answers the canary gave in all.
        answers: answers it gave in all.
        breach_value: the error rate at the breach, 0..1.
    """

    first_failure_to_write: float | None
    breach_to_write: float | None
    breach_to_last_request: float | None
    write_to_last_request: float | None
    failed_answers: int
    answers: int
    breach_value: float | None


def rollback_times(
    breach: Breach | None, write: RouteWrite | None, canary: VersionCount | None, clock_offset: float
) -> RollbackTimes:
    """Put the three logs beside each other. The last request counts at the end of its answer, not at its beginning.

    Args:
        breach: from the poller.
        write: the lowering.
        canary: the broken version's answers.
        clock_offset: POSIX seconds minus monotonic seconds.
    """
    last = canary.last_end + clock_offset if canary is not None and canary.last_end else None
    failed = canary.first_error + clock_offset if canary is not None and canary.first_error else None
    written = write.written_at if write is not None else None
    breached = breach.at if breach is not None else None
    return RollbackTimes(
        first_failure_to_write=_between(failed, written),
        breach_to_write=_between(breached, written),
        breach_to_last_request=_between(breached, last),
        write_to_last_request=_between(written, last),
        failed_answers=canary.errors if canary is not None else 0,
        answers=canary.answers if canary is not None else 0,
        breach_value=breach.value if breach is not None else None,
    )


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round(end - begin, 4)


@dataclass(frozen=True, slots=True)
class Rate:
    """One version's requests and errors per second over the last moments, and in all."""

    requests: float
    errors: float
    answers: int
    failed: int


def rates(before: Snapshot, now: Snapshot) -> dict[str, Rate]:
    """Requests per second of each version between two snapshots."""
    seconds = max(now.monotonic - before.monotonic, 1e-3)
    found = {}
    for key, count in now.versions.items():
        earlier = before.versions.get(key, VersionCount())
        found[key] = Rate(
            requests=(count.answers - earlier.answers) / seconds,
            errors=(count.errors - earlier.errors) / seconds,
            answers=count.answers,
            failed=count.errors,
        )
    return found
