"""Counts requests per version from nginx's log.

A buffered file loses nothing up to 25,000 requests a second and costs under 2 microseconds a request to count; syslog
sockets lose silently under load, and counters in njs's shared memory would cost several locked writes per request on
nginx's own core and know no latency (njs has no hook after the answer). Lines hold nothing that a client can choose.
"""

import asyncio
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import IO, Final

import structlog
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from canary_rollout.agent.errors import NotRunningError
from canary_rollout.agent.request_metrics import Key, request_metrics
from canary_rollout.traffic.nginx.document import RouteDocument
from canary_rollout.traffic.nginx.validate import EVERYONE

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram, seconds."""
MOST_SERIES: Final = 600
"""Sets of labels kept; beyond that the oldest revision's go (a new revision brings at most 210)."""
TENANT_BUCKETS: Final = 1000
"""Buckets of tenants: ten places of the hash in each."""
COUNT_EVERY: Final = 1.0
LARGEST_LOG: Final = 32 * 1024 * 1024
_BUCKET_LABELS: Final = ("rollout", "version", "revision", "bucket")

_log: structlog.stdlib.BoundLogger = structlog.get_logger("accesslog")


class _Series:
    __slots__ = ("buckets", "errors", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def cumulative(self) -> list[tuple[float, float]]:
        """Requests up to each bound."""
        return list(zip((*BUCKETS, float("inf")), accumulate(self.buckets), strict=True))


class TenantCounter:
    """Requests and errors by bucket of tenants, for the revision whose hash orders them now: 1000 buckets a version at most."""

    def __init__(self) -> None:
        self.order = ""
        self._counts: dict[tuple[str, str], tuple[list[int], list[int]]] = {}

    def begin(self, order: str) -> None:
        """Another revision orders the tenants anew: what was counted belongs to other ones."""
        if order != self.order:
            self.order = order
            self._counts.clear()

    def count(self, version: str, revision: str, place: str, *, failed: bool) -> None:
        """One request of the tenant at ``place`` (``0000`` to ``9999``)."""
        counts = self._counts.get((version, revision))
        if counts is None:
            for older in [key for key in self._counts if key[0] == version][:-1]:
                del self._counts[older]
            counts = self._counts[version, revision] = ([0] * TENANT_BUCKETS, [0] * TENANT_BUCKETS)
        bucket = int(place) // 10
        counts[0][bucket] += 1
        counts[1][bucket] += failed

    def collect(self, rollout: str) -> Iterator[Metric]:
        """Both metrics, of buckets that were ever seen."""
        requests = CounterMetricFamily(
            "canary_bucket_requests", "Requests answered, by bucket of tenants.", labels=_BUCKET_LABELS
        )
        errors = CounterMetricFamily(
            "canary_bucket_errors", "Requests answered with a status of 500 or above, by bucket.", labels=_BUCKET_LABELS
        )
        for (version, revision), (seen, failed) in list(self._counts.items()):
            for bucket in range(TENANT_BUCKETS):
                if seen[bucket]:
                    labels = (rollout, version, revision, f"{bucket}")
                    requests.add_metric(labels, seen[bucket])
                    errors.add_metric(labels, failed[bucket])
        return iter((requests, errors))


class RequestCounter(Collector):
    """``canary_requests_total``, ``canary_errors_total`` and ``canary_latency_seconds`` by cohort, version and revision."""

    def __init__(self) -> None:
        self.rollout = ""
        self.malformed = 0
        self.tenants = TenantCounter()
        self._series: dict[Key, _Series] = {}

    def prepare(self, cohort: str, version: str, revision: str) -> None:
        """Show a set of labels from zero on, so that its first request is seen as an increase."""
        self._get((cohort, version, revision or "-"))

    def _get(self, key: Key) -> _Series:
        series = self._series.get(key)
        if series is None:
            while len(self._series) >= MOST_SERIES:
                del self._series[next(iter(self._series))]
            series = self._series[key] = _Series()
        return series

    def count(self, lines: bytes) -> None:
        """Take in whole log lines: ``<version> <cohort> <revision> <status> <seconds> <order> <place>``.

        ``order`` is the revision whose hash orders the tenants, ``place`` this one's place in it, ``-`` for none.
        """
        for line in lines.decode("ascii", errors="replace").splitlines():
            try:
                version, cohort, revision, status, took, order, place = line.split(" ")
                seconds = float(took)
                failed = int(status) >= 500
                if not (place == "-" or (len(place) == 4 and place.isdigit())):
                    raise ValueError(place)  # noqa: TRY301 - one line among others that do not parse
            except ValueError:
                self.malformed += 1
                continue
            if version not in {"stable", "canary"}:
                # Refused before a version was chosen (a bad request): nobody's.
                continue
            series = self._get((cohort, version, revision))
            series.requests += 1
            series.errors += failed
            series.seconds += seconds
            series.buckets[bisect_left(BUCKETS, seconds)] += 1
            if place != "-" and cohort == EVERYONE and order == self.tenants.order:
                self.tenants.count(version, revision, place, failed=failed)

    def collect(self) -> Iterator[Metric]:
        """The metrics of the arms, then those of the tenants' buckets."""
        rows = [
            (key, one.requests, one.errors, one.cumulative(), one.seconds) for key, one in list(self._series.items())
        ]
        malformed = CounterMetricFamily("canary_agent_malformed_lines", "Lines of nginx's log that do not parse.")
        malformed.add_metric((), self.malformed)
        return iter((*request_metrics(self.rollout, rows), malformed, *self.tenants.collect(self.rollout)))


class Tail:
    """Reads a growing file, over renames, without losing a line."""

    def __init__(self, path: Path, chunk: int = 1 << 18) -> None:
        self._path = path
        self._chunk = chunk
        self._file: IO[bytes] | None = None
        self._rest = b""

    def read(self) -> bytes:
        """The next whole lines, at most ``chunk`` bytes of them; empty when there is nothing new."""
        if self._file is None:
            try:
                self._file = self._path.open("rb", buffering=0)
            except FileNotFoundError:
                return b""
        data = self._file.read(self._chunk) or b""
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest
        return whole + newline

    def skip(self) -> None:
        """Begin at the end: what an earlier run has counted is not counted twice."""
        self.read()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)
            self._rest = b""

    @property
    def size(self) -> int:
        """Bytes of the file being read."""
        return os.fstat(self._file.fileno()).st_size if self._file is not None else 0

    def rename(self) -> Path:
        """Move the file aside (the writer goes on there until it reopens); its new name."""
        aside = self._path.with_suffix(".log.1")
        self._path.replace(aside)
        return aside

    def next_file(self, aside: Path) -> None:
        """Go on with the file of the original name, after the last line of the renamed one was read."""
        self.close()
        aside.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; the next read opens it anew, from its beginning."""
        if self._file is not None:
            self._file.close()
        self._file, self._rest = None, b""


class LogCounting:
    """Counts what nginx logs, and begins the log anew when it has grown."""

    def __init__(self, path: Path, reopen: Callable[[], None]) -> None:
        self.counter = RequestCounter()
        self._reopen = reopen
        self._tail = Tail(path)

    def begin(self, document: RouteDocument) -> None:
        """Show a document's series from zero on; another revision orders the tenants anew."""
        self.counter.rollout = document.rollout
        self.counter.tenants.begin(document.revision)
        self.counter.prepare(EVERYONE, "stable", document.stable_revision)
        self.counter.prepare(EVERYONE, "canary", document.revision)

    async def run(self) -> None:
        """Count until cancelled."""
        self._tail.skip()
        try:
            while True:
                await self.now()
                if self._tail.size > LARGEST_LOG:
                    await self._rotate()
                await asyncio.sleep(COUNT_EVERY)
        finally:
            self._tail.close()

    async def now(self) -> None:
        """Take in what nginx has logged so far, in pieces, so that nothing else waits for long."""
        while lines := self._tail.read():
            self.counter.count(lines)
            await asyncio.sleep(0)

    async def _rotate(self) -> None:
        """Begin a new log; the workers write to the renamed one until they have reopened."""
        aside = self._tail.rename()
        try:
            self._reopen()
        except NotRunningError as error:
            _log.info("log renamed while nginx is away", reason=f"{error}")
        await asyncio.sleep(2 * COUNT_EVERY)
        await self.now()
        self._tail.next_file(aside)
