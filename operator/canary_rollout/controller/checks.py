"""Asks Prometheus at every interval for every rollout under way, beside the reconciles, so that none ever waits for it."""

import math
import zlib
from collections.abc import Callable, Mapping

from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.verdict import Assessment, Outcome
from canary_rollout.controller.failures import logged
from canary_rollout.controller.gather import Gatherer
from canary_rollout.controller.memory import Memory
from canary_rollout.controller.queue import Key, QueueObserver, WorkQueue
from canary_rollout.engine.draft import stage_of
from canary_rollout.kube.port import Clock, Object
from canary_rollout.metrics.errors import UnsafeValueError
from canary_rollout.metrics.port import Sampler
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.model.spec import Action
from canary_rollout.workloads.view import replica_sets_of

SUB_TICKS = 1.0
"""Evaluations fall on whole multiples of this (seconds) within an interval: those of one sub-tick share their queries."""


class Checks:
    """One small queue of evaluations. ``evaluated`` is called with a key whose memory holds a new assessment."""

    def __init__(
        self,
        sampler: Sampler,
        gatherer: Gatherer,
        clock: Clock,
        evaluated: Callable[[Key], None],
        memories: Callable[[], Mapping[Key, Memory]],
        *,
        observer: QueueObserver | None = None,
    ) -> None:
        """Create it.

        Args:
            sampler: asks Prometheus.
            gatherer: knows the pods.
            clock: wall time.
            evaluated: wakes a rollout.
            memories: what is remembered of each rollout.
            observer: told how late evaluations are.
        """
        self._sampler = sampler
        self._gatherer = gatherer
        self._clock = clock
        self._evaluated = evaluated
        self._memories = memories
        self._followed: set[Key] = set()
        self.queue = WorkQueue(logged(self._check, "evaluation"), workers=1024, timeout=60.0, observer=observer)

    def follow(self, key: Key, memory: Memory) -> None:
        """Start or stop evaluating, as ``memory.evaluating`` says."""
        if memory.evaluating and key not in self._followed and memory.spec is not None:
            self._followed.add(key)
            self.queue.add_after(key, self._delay(key, memory.spec.metrics.interval))
        elif not memory.evaluating and key in self._followed:
            self._followed.discard(key)
            self.queue.forget(key)
            self._sampler.unregister("/".join(key))

    def _delay(self, key: Key, interval: float) -> float:
        """Seconds to the rollout's next place on its grid; places are spread over the sub-ticks of the interval."""
        ticks = max(1, math.floor(interval / SUB_TICKS))
        place = zlib.crc32("/".join(key).encode()) % ticks * SUB_TICKS
        return interval - (self._clock.now() - place) % interval

    async def _check(self, key: Key) -> float | None:
        memory = self._memories().get(key)
        if memory is None or key not in self._followed or memory.spec is None:
            self._followed.discard(key)
            return None
        spec, state = memory.spec, memory.state
        stage = stage_of(spec, state) if state.stage else None
        stable, canary = await self._gatherer.pods_of_both(key[0], spec, memory)
        try:
            # Stable's series of all its revisions count: it may be brought up to date while it is compared with.
            revisions = ("", state.revision)
            request = MetricRequest.of(
                *key, spec, stage, _replica_sets(stable), _replica_sets(canary), revisions=revisions
            )
        except UnsafeValueError as error:
            memory.check_error = f"Prometheus is not asked: {error}"
            self._evaluated(key)
            return self._delay(key, spec.metrics.interval)
        memory.check_error = ""
        samples = await self._sampler.sample(request)
        if key in self._followed:
            evidence = memory.evidence or Evidence()
            assessment, memory.evidence = assess(spec, stage, samples, evidence, self._clock.now())
            if memory.assessment is None or not _condemns(memory.assessment):
                memory.assessment = assessment  # a fail that nobody has acted on yet is not lost to a later pass
            self._evaluated(key)
        return self._delay(key, spec.metrics.interval)


def _condemns(assessment: Assessment) -> bool:
    return any(verdict.outcome is Outcome.FAIL and verdict.action is Action.ROLLBACK for verdict in assessment.stops)


def _replica_sets(pods: tuple[Object, ...]) -> frozenset[str]:
    """Names of the ReplicaSets that own these pods, those being deleted left out."""
    return frozenset(
        owner for pod in pods if not pod["metadata"].get("deletionTimestamp") for owner in replica_sets_of(pod)
    )
