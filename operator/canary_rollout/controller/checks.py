"""Asks Prometheus at every interval for every rollout under way, beside the reconciles, so that none ever waits for it."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

import structlog

from canary_rollout.analysis.comparing import Compared, policy_of
from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.readings import REQUESTS
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.sequential import Policy
from canary_rollout.analysis.verdict import Assessment, Outcome
from canary_rollout.controller import comparing
from canary_rollout.controller.access import Access
from canary_rollout.controller.beside import Beside
from canary_rollout.controller.failures import logged
from canary_rollout.controller.gather import Gatherer
from canary_rollout.controller.memory import Asked, Memory
from canary_rollout.controller.queue import Key, QueueObserver, WorkQueue
from canary_rollout.controller.running import Running, TickObserver, begin, restored
from canary_rollout.controller.turns import Turns
from canary_rollout.engine.draft import stage_of
from canary_rollout.kube.port import Clock, Object
from canary_rollout.metrics.errors import UnsafeValueError
from canary_rollout.metrics.port import Sampler
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.model.spec import Action, CanaryRolloutSpec, Stage
from canary_rollout.model.units import parse_instant
from canary_rollout.workloads.view import replica_sets_of

log: Final = structlog.get_logger(__name__)

LISTING: Final = 16
"""Evaluations that list pods at the same time: hundreds that fall due together would leave no connection for anything else."""


class Checks:
    """One small queue of evaluations. ``evaluated`` is called with a key whose memory holds a new assessment."""

    def __init__(  # noqa: PLR0913 - what it is wired from
        self,
        sampler: Sampler,
        gatherer: Gatherer,
        clock: Clock,
        evaluated: Callable[[Key], None],
        memories: Callable[[], Mapping[Key, Memory]],
        *,
        access: Access,
        observer: QueueObserver | None = None,
        ticks: TickObserver | None = None,
    ) -> None:
        """Create it.

        Args:
            sampler: asks Prometheus.
            gatherer: knows the pods.
            clock: wall time.
            evaluated: wakes a rollout.
            memories: what is remembered of each rollout.
            access: reads credentials and preset sets.
            observer: told how late evaluations are.
            ticks: told about every tick of a comparison.
        """
        self._sampler = sampler
        self._gatherer = gatherer
        self._clock = clock
        self._evaluated = evaluated
        self._memories = memories
        self._access = access
        self._ticks = ticks
        self._followed: set[Key] = set()
        self._turns = Turns()
        self._beside = Beside()
        self._listing = asyncio.Semaphore(LISTING)
        self.queue = WorkQueue(logged(self._check, "evaluation"), workers=1024, timeout=60.0, observer=observer)

    async def run(self) -> None:
        """Evaluate until cancelled."""
        try:
            await self.queue.run()
        finally:
            await self._beside.close()

    def follow(self, key: Key, memory: Memory) -> None:
        """Start or stop evaluating, as ``memory.evaluating`` says."""
        if memory.evaluating and key not in self._followed and memory.spec is not None:
            self._followed.add(key)
            self.queue.add_after(key, self._delay(key, memory.spec.metrics.interval))
        elif not memory.evaluating and key in self._followed:
            self._followed.discard(key)
            self.queue.forget(key)
            self._forget(key)
            memory.comparing, memory.asked = None, None  # a checkpoint of the former is in the evidence

    def _delay(self, key: Key, interval: float) -> float:
        """Seconds to the rollout's next place on its grid; places are spread over the sub-ticks of the interval."""
        return interval - (self._clock.now() - comparing.place_of(key, interval)) % interval

    def _forget(self, key: Key) -> None:
        self._beside.drop(key)
        self._sampler.unregister("/".join(key))

    async def _check(self, key: Key) -> float | None:
        try:
            return await self._evaluate(key)
        finally:
            if key not in self._followed:  # it ended meanwhile, and what was asked after that has registered it again
                self._forget(key)

    async def _evaluate(self, key: Key) -> float | None:
        memory = self._memories().get(key)
        if memory is None or key not in self._followed or memory.spec is None:
            self._followed.discard(key)
            return None
        spec, state = memory.spec, memory.state
        stage = stage_of(spec, state) if state.stage else None
        try:
            request, created = await self._request(key, memory, spec, stage)
        except UnsafeValueError as error:
            memory.check_error = f"Prometheus is not asked: {error}"
            self._evaluated(key)
            return self._delay(key, spec.metrics.interval)
        running = self._running(key, memory, spec, request)
        compared: Compared | None = None
        if running is None:
            self._beside.drop(key)
            samples = await self._sampler.sample(request)
        else:
            wanted = comparing.Wanted(request, created, comparing.latest_tick(key, spec, self._clock.now()))
            # Together with the samples: a Prometheus that is slow is waited for once.
            patience = self._beside.begin(key, running, wanted, partial(self._compare, spec, running))
            samples = await self._sampler.sample(request)
            await self._beside.wait(key, patience)
            compared = running.compared(wanted.latest)
        await self._turns.pause()
        if key in self._followed and memory.comparing is running:
            evidence = memory.evidence or Evidence()
            assessment, memory.evidence = assess(spec, stage, samples, evidence, self._clock.now(), compared)
            if memory.assessment is None or not _condemns(memory.assessment):
                memory.assessment = assessment  # a fail that nobody has acted on yet is not lost to a later pass
            self._evaluated(key)
        self._beside.settle(key)
        return self._delay(key, spec.metrics.interval)

    def _compare(
        self, spec: CanaryRolloutSpec, running: Running, wanted: comparing.Wanted
    ) -> Coroutine[Any, Any, None]:
        return comparing.compare(spec, running, self._sampler, wanted, observer=self._ticks, turns=self._turns)

    async def _request(
        self, key: Key, memory: Memory, spec: CanaryRolloutSpec, stage: Stage | None
    ) -> tuple[MetricRequest, dict[str, float]]:
        """What to ask, and by pod name when each was created (POSIX seconds)."""
        pods = await self._gatherer.pods_of_both(key[0], spec, memory, self._listing)
        versions = await self._gatherer.versions_of_both(key[0], spec)
        granted = await self._access.granted(key[0], spec.metrics)
        memory.check_error = granted.problem
        facts = (versions, granted, memory.state.revision, memory.state.began_at)
        if memory.asked is None or not memory.asked.holds(spec, stage, pods, facts):
            stable, canary = pods
            request = MetricRequest.of(
                *key,
                spec,
                stage,
                _replica_sets(stable),
                _replica_sets(canary),
                # Stable's series of all its revisions count: it may be brought up to date while it is compared with.
                revisions=("", memory.state.revision),
                app_versions=versions,
                targets=granted.targets,
                own=granted.own,
                compared=spec.analysis.enabled,
                began=memory.state.began_at,
                phase=comparing.place_of(key, spec.metrics.interval),
            )
            created = {pod["metadata"]["name"]: _created(pod) for pod in (*stable, *canary)}
            memory.asked = Asked(spec, stage, pods, facts, request, created)
        return memory.asked.request, memory.asked.created

    def _running(self, key: Key, memory: Memory, spec: CanaryRolloutSpec, request: MetricRequest) -> Running | None:
        """The comparison that this process has, that status describes, or a new one; ``None``: it is switched off."""
        policy, interval, now = policy_of(spec), spec.metrics.interval, self._clock.now()
        if policy is None or not request.compared:
            memory.comparing = None
            return None
        known = memory.comparing
        if known is None or known.policy != policy or known.interval != interval:
            known = memory.comparing = _taken_up(key, memory, policy, comparing.latest_tick(key, spec, now))
        known.weigh(memory.state, now)
        seen = memory.evidence.seen_canary | memory.evidence.seen_stable if memory.evidence is not None else ()
        known.counted = known.counted or REQUESTS in seen
        return known


def _taken_up(key: Key, memory: Memory, policy: Policy, latest: float) -> Running:
    raw = memory.evidence.comparison if memory.evidence is not None else {}
    if not raw:
        return begin(policy, policy.interval, latest)
    try:
        running = restored(policy, policy.interval, raw)
    except EvidenceError as error:
        # Somebody else wrote it. Starting afresh can only delay a verdict, never make one up.
        log.warning("the comparison begins anew", namespace=key[0], rollout=key[1], error=str(error))
        return begin(policy, policy.interval, latest)
    anew = ", ".join(map(str, raw.get("left", ()))) or "nothing"
    log.info("replaying", namespace=key[0], rollout=key[1], after=running.through, until=latest, begins_anew=anew)
    return running


def _created(pod: Object) -> float:
    return parse_instant(pod["metadata"].get("creationTimestamp") or "1970-01-01T00:00:00Z")


def _condemns(assessment: Assessment) -> bool:
    return any(verdict.outcome is Outcome.FAIL and verdict.action is Action.ROLLBACK for verdict in assessment.stops)


def _replica_sets(pods: tuple[Object, ...]) -> frozenset[str]:
    """Names of the ReplicaSets that own these pods, those being deleted left out."""
    return frozenset(
        owner for pod in pods if not pod["metadata"].get("deletionTimestamp") for owner in replica_sets_of(pod)
    )
