"""Fifty minutes of the past with a truth that is known exactly, in the text that one scrape delivers.

Namespace ``shop``: stable fails 0.1 % all the time; the canary appears 30 minutes before the end and fails 30 % of its
requests from 15 minutes before the end on. Namespace ``good``: the same, and the canary stays as good as stable.
"""

from collections.abc import Callable, Iterator

STEP = 15
HISTORY = 3000
APPEARS = 1800
TURNS_BAD = 900
STABLE_RATE, CANARY_RATE = 20.0, 10.0
USUAL, BAD = 0.001, 0.3
BOUNDS = (0.1, 0.25, 1.0)
SHARES = (0.5, 0.4, 0.1)

Rate = Callable[[int], float]
"""Per second, by seconds before the end."""


def counter(name: str, labels: dict[str, str], rate: Rate, end: int, since: int = HISTORY) -> Iterator[str]:
    """A counter that rises by ``rate`` from ``since`` seconds before the end on."""
    text = ",".join(f'{key}="{value}"' for key, value in labels.items())
    value = 1000.0
    for age in range(since, -1, -STEP):
        yield f"{name}{{{text}}} {value:.4f} {(end - age) * 1000}"
        value += rate(age) * STEP


def pod(namespace: str, name: str, requests: float, failing: Rate, end: int, since: int = HISTORY) -> Iterator[str]:
    """Plain app metrics of one pod."""
    labels = {"namespace": namespace, "pod": name, "track": "v2" if "canary" in name else "v1"}
    good = {**labels, "status": "200"}
    bad = {**labels, "status": "500"}
    yield from counter("http_requests_total", good, lambda age: requests * (1 - failing(age)), end, since)
    yield from counter("http_requests_total", bad, lambda age: requests * failing(age), end, since)
    below = 0.0
    for bound, share in zip((*BOUNDS, "+Inf"), (*SHARES, 0.0), strict=True):
        below += share
        bucket = {**labels, "le": str(bound)}
        yield from counter(
            "http_request_duration_seconds_bucket", bucket, lambda _, part=below: requests * part, end, since
        )
    yield from counter("http_request_duration_seconds_sum", labels, lambda _: requests * 0.2, end, since)
    yield from counter("http_request_duration_seconds_count", labels, lambda _: requests, end, since)


def world(end: int) -> Iterator[str]:
    """Every sample there is."""
    for namespace, bad in (("shop", BAD), ("good", USUAL)):
        for name in ("aaaaa", "bbbbb", "ccccc"):
            yield from pod(namespace, f"checkout-6b7f9c-{name}", STABLE_RATE, lambda _: USUAL, end)
        failing = lambda age, bad=bad: bad if age <= TURNS_BAD else USUAL  # noqa: E731
        yield from pod(namespace, "checkout-canary-7d8e9f-ddddd", CANARY_RATE, failing, end, APPEARS)
