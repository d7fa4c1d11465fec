"""The histograms, with a bounded number of versions: whoever can reach the page can make versions up."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from canary_rollout.vitals.beacon import VITALS, Beacon, BeaconError

MOST_VERSIONS: Final = 16
"""Versions of one app that are told apart at a time."""

HALF_LIFE: Final = 600.0
"""Seconds in which a version's beacons count half as much when it is about which one goes."""


class Counts:
    """What has been measured. A new version takes the place of the one that is seen least these minutes.

    So a flood of made-up versions drives out each other, and not those that real pages send all the time.

    Args:
        apps: names that count; others are refused.
        clock: seconds.
    """

    def __init__(self, apps: frozenset[str], clock: Callable[[], float]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves this one untyped
        self.registry = CollectorRegistry(auto_describe=True)
        self._apps = apps
        self._clock = clock
        self._seen: dict[str, dict[str, tuple[float, float]]] = {}
        self._histograms = {
            name: Histogram(vital.series, vital.help, ("app", "version"), buckets=vital.buckets, registry=self.registry)
            for name, vital in VITALS.items()
        }
        self._refused = Counter(
            "web_vitals_beacons_refused_total", "Beacons that were not counted.", ("reason",), registry=self.registry
        )

    def take(self, beacon: Beacon) -> None:
        """Count a beacon.

        Raises:
            BeaconError: nobody asked for that app's numbers.
        """
        if beacon.app not in self._apps:
            raise BeaconError("app", "this collector does not count for that app: name it in --apps")
        self._make_room(beacon.app, beacon.version)
        for name, value in beacon.values:
            self._histograms[name].labels(beacon.app, beacon.version).observe(value)

    def refuse(self, reason: str) -> None:
        """Count a beacon that is not counted."""
        self._refused.labels(reason).inc()

    def _make_room(self, app: str, version: str) -> None:
        now = self._clock()
        seen = self._seen.setdefault(app, {})
        at, weight = seen.get(version, (now, 0.0))
        if version not in seen and len(seen) >= MOST_VERSIONS:
            least = min(seen, key=lambda known: _faded(*seen[known], now))
            del seen[least]
            for histogram in self._histograms.values():
                if (app, least) in histogram._metrics:  # noqa: SLF001 - remove() raises for labels that never were
                    histogram.remove(app, least)
        seen[version] = (now, _faded(at, weight, now) + 1.0)


def _faded(at: float, weight: float, now: float) -> float:
    return float(weight * 0.5 ** ((now - at) / HALF_LIFE))
