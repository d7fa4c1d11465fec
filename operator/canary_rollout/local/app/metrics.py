"""The app's own metrics in Prometheus's text format, as an ordinary client library would name them."""

from bisect import bisect_left

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class AppMetrics:
    """Requests by method and status, and how long they took."""

    def __init__(self, version: str) -> None:
        self._version = version
        # Both exist from the start: a series whose first sample is already 1 hides that first error from rate().
        self._requests: dict[tuple[str, int], int] = {("GET", 200): 0, ("GET", 500): 0}
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def observe(self, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = (method, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def total(self, status: int | None = None) -> int:
        """Requests answered so far, all or those with one status."""
        return sum(count for (_, code), count in self._requests.items() if status in {None, code})

    def render(self) -> str:
        """The exposition."""
        lines = ["# HELP http_requests_total Requests answered.", "# TYPE http_requests_total counter"]
        lines += [
            f'http_requests_total{{method="{method}",status="{status}"}} {count}'
            for (method, status), count in sorted(self._requests.items())
        ]
        name = "http_request_duration_seconds"
        lines += [f"# HELP {name} Time from a request's first byte to its answer.", f"# TYPE {name} histogram"]
        below = 0
        for edge, count in zip((*map(repr, BUCKETS), "+Inf"), self._buckets, strict=True):
            below += count
            lines.append(f'{name}_bucket{{le="{edge}"}} {below}')
        lines += [f"{name}_sum {self._seconds!r}", f"{name}_count {below}"]
        lines += ["# HELP app_info Version of the app.", "# TYPE app_info gauge"]
        escaped = self._version.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        lines.append(f'app_info{{version="{escaped}"}} 1')
        return "\n".join(lines) + "\n"
