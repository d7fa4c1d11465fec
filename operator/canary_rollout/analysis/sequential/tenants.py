"""Sticky stages: what the tenants that are now the canary's did on stable before.

Half a per cent of two thousand tenants is ten, and one broken tenant among them looks like a broken release. So the share
of the errors that these tenants' buckets had on stable before the rollout is what a healthy canary is expected to have.
"""

from typing import Any, Final

from canary_rollout.analysis.sequential.counts import TENANT_BUCKET, PodCounts, Tick

MOST_BUCKETS: Final = 64
_MOST_SHARE: Final = 0.999


class Tenants:
    """Errors per bucket of tenants on stable, before the rollout."""

    def __init__(self) -> None:
        self._errors: dict[str, float] = {}
        self._all = 0.0
        self._requests = 0.0

    @property
    def known(self) -> bool:
        """Whether the buckets have a past."""
        return self._requests > 0

    def learn(self, tick: Tick) -> None:
        """Take in a tick of stable's past."""
        for pod in tick.stable:
            if counted(pod):
                self._requests += pod.requests
                if pod.errors:
                    self._errors[pod.pod] = self._errors.get(pod.pod, 0.0) + pod.errors
                    self._all += pod.errors

    def odds(self, tick: Tick, tolerance: float) -> float:
        """Return the odds that an error is the canary's, if its tenants fail as on stable before; 0 when unknown."""
        if not self._all:
            return 0.0
        own = sum(self._errors.get(pod.pod, 0.0) for pod in tick.canary)
        share = min(own / self._all, _MOST_SHARE)
        return round(tolerance * share / (1.0 - share), 6)

    def state(self) -> list[Any]:
        """Return the state as JSON: the buckets with most errors."""
        worst = sorted(self._errors.items(), key=lambda item: (-item[1], item[0]))[:MOST_BUCKETS]
        self._errors = {name: round(errors, 1) for name, errors in worst}
        self._all, self._requests = round(self._all, 1), round(self._requests)
        names = {name.removeprefix(TENANT_BUCKET): errors for name, errors in self._errors.items()}
        return [self._all, self._requests, names]

    @classmethod
    def restore(cls, raw: Any) -> "Tenants":
        """Return what :meth:`state` wrote."""
        made = cls()
        made._all, made._requests = float(raw[0]), float(raw[1])
        made._errors = {TENANT_BUCKET + name: float(errors) for name, errors in raw[2].items()}
        return made


def counted(pod: PodCounts) -> bool:
    """Return whether these are a bucket's counts and not a pod's."""
    return pod.pod.startswith(TENANT_BUCKET)
