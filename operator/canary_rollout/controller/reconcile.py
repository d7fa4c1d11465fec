"""reconcile(key): gather, decide, execute, persist. The only place where the four meet."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from canary_rollout.analysis.evidence import Evidence
from canary_rollout.controller.execute import Executor, RouteRejectedError
from canary_rollout.controller.farewell import farewell
from canary_rollout.controller.gather import Gatherer
from canary_rollout.controller.memory import Memory
from canary_rollout.controller.persist import key_of, set_finalizer, write_status
from canary_rollout.controller.queue import Key
from canary_rollout.engine.decide import decide
from canary_rollout.engine.decision import Action, Decision, Lower, Note
from canary_rollout.engine.draft import RESTING
from canary_rollout.engine.observation import Observation
from canary_rollout.engine.report import Facts, report, worth_writing
from canary_rollout.kube.cache import Cache
from canary_rollout.kube.port import CANARY_ROLLOUTS, DEPLOYMENTS, Clock, KubeApi, Object
from canary_rollout.model.conditions import Condition, Reason
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import CanaryRolloutStatus, ConditionStatus, RolloutState
from canary_rollout.traffic.port import Router, RouterContext, Watched
from canary_rollout.workloads.deployments import WorkloadError, Workloads

log = structlog.get_logger(__name__)

_UNPRIMED = 0.2
"""Seconds until a rollout whose objects are not listed yet is looked at again."""
_REFUSED = 10.0
"""Seconds until something that was refused is tried again."""


class Needs(Protocol):
    """The informers, as far as a reconcile asks them."""

    def need(self, key: Key, watched: Iterable[Watched]) -> None:
        """Cache what ``key`` reads and wake it when that changes."""
        ...

    def drop(self, key: Key) -> None:
        """``key`` is gone."""
        ...

    def missing(self, watched: Iterable[Watched]) -> list[str]:
        """What is not completely known yet."""
        ...


class Telemetry(Protocol):
    """Told what became of a rollout, for metrics and Events. Must not block."""

    def decided(self, rollout: Object, status: CanaryRolloutStatus, decision: Decision) -> None:
        """A decision was carried out and persisted."""
        ...

    def note(self, rollout: Object, note: Note) -> None:
        """Something worth an Event."""
        ...

    def forgot(self, key: Key) -> None:
        """The rollout is gone."""
        ...


class Evaluations(Protocol):
    """Starts and stops the evaluation of a rollout's rules at every interval."""

    def follow(self, key: Key, memory: Memory) -> None:
        """``memory.evaluating`` may have changed."""
        ...


@dataclass(frozen=True, slots=True)
class Shell:
    """What a reconcile works with.

    Attributes:
        api: writes, and the few reads (answers go into the cache).
        cache: everything that is read.
        clock: wall time.
        gatherer: builds Observations.
        needs: the informers.
        telemetry: metrics and Events.
        evaluations: the ticker that asks Prometheus.
        router_for: builds the router of a rollout.
        term: number of the present Lease term.
    """

    api: KubeApi
    cache: Cache
    clock: Clock
    gatherer: Gatherer
    needs: Needs
    telemetry: Telemetry
    evaluations: Evaluations
    router_for: Callable[[RouterContext], Router]
    term: Callable[[], int]


class Reconciler:
    """Looks at one rollout at a time; remembers nothing that status does not hold, but for speed."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self.memories: dict[Key, Memory] = {}

    async def reconcile(self, key: Key) -> float | None:
        """One look. Returns seconds until the next one, ``None``: when something changes. Raises to be repeated."""
        shell = self._shell
        rollout = shell.cache.get(CANARY_ROLLOUTS, *key)
        if rollout is None:
            self._forget(key)
            return None
        memory = self.memories.setdefault(key, Memory())
        memory.read(rollout)
        if memory.spec is None:
            return await self._say_invalid(rollout, memory)
        router = shell.router_for(self._context(rollout, memory.spec))
        watched = (*router.watched(), *_deployments(key, memory.spec))
        shell.needs.need(key, watched)
        if shell.needs.missing(watched):
            return _UNPRIMED
        seen = await shell.gatherer.observe(key, memory, memory.spec, router)
        executor = Executor(router, Workloads(shell.api, key[0], memory.spec))
        if rollout["metadata"].get("deletionTimestamp"):
            return await farewell(shell.api, rollout, memory, seen, executor, now=shell.clock.now())
        return await self._decide(rollout, memory, memory.spec, seen, executor)

    async def _decide(
        self, rollout: Object, memory: Memory, spec: CanaryRolloutSpec, seen: Observation, executor: Executor
    ) -> float | None:
        shell, now = self._shell, self._shell.clock.now()
        key = key_of(rollout)
        decision = decide(spec, memory.state, seen, now)
        if decision.restart_evidence and memory.evidence is not None:
            begins = decision.state.began_at != memory.state.began_at
            memory.evidence = _afresh(memory.evidence, spec, new_revision=begins, now=now)
        facts = Facts(
            spec=spec,
            generation=int(rollout["metadata"].get("generation", 0)),
            route=seen.route,
            assessment=None if decision.restart_evidence else seen.assessment,
            evidence=memory.evidence.to_dict() if memory.evidence is not None else {},
            now=now,
        )
        status = report(memory.status, decision, facts)
        try:
            await self._carry_out(rollout, memory, decision, status, executor)
        except (RouteRejectedError, WorkloadError) as error:
            return await self._say_refused(rollout, memory, decision, facts, error)
        current = shell.cache.get(CANARY_ROLLOUTS, *key) or rollout
        await set_finalizer(shell.api, current, wanted=_needs_finalizer(decision.state, seen))
        current = shell.cache.get(CANARY_ROLLOUTS, *key) or current
        if not decision.latch and worth_writing(memory.status, status, now):
            await write_status(shell.api, current, status, fenced=True)
        self._carried_out(rollout, memory, seen, decision, status)
        return None if decision.wake_at is None else max(0.0, decision.wake_at - shell.clock.now())

    async def _carry_out(
        self, rollout: Object, memory: Memory, decision: Decision, status: CanaryRolloutStatus, executor: Executor
    ) -> None:
        """Actions in order; a new halt sends its latch and the lowering together, neither waiting for the other."""
        rest: tuple[Action, ...] = decision.actions
        if decision.latch:
            memory.latched = decision.state
            lowering = [executor.carry_out(action) for action in rest if isinstance(action, Lower)]
            latch = write_status(self._shell.api, rollout, status, fenced=False)
            results = await asyncio.gather(latch, *lowering, return_exceptions=True)
            if isinstance(results[0], bool):
                memory.latched = None
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            rest = tuple(action for action in rest if not isinstance(action, Lower))
        for action in rest:
            log.info("acting", rollout=rollout["metadata"]["name"], action=type(action).__name__)
            await executor.carry_out(action)

    def _carried_out(
        self, rollout: Object, memory: Memory, seen: Observation, decision: Decision, status: CanaryRolloutStatus
    ) -> None:
        """Only now is this look over: what it rested on is used up."""
        shell, key = self._shell, key_of(rollout)
        memory.term = shell.term()
        if memory.assessment is seen.assessment:
            memory.assessment = None
        memory.evaluating = decision.evaluating
        shell.evaluations.follow(key, memory)
        for note in decision.notes:
            shell.telemetry.note(rollout, note)
        shell.telemetry.decided(rollout, status, decision)

    def _context(self, rollout: Object, spec: CanaryRolloutSpec) -> RouterContext:
        shell, metadata = self._shell, rollout["metadata"]
        return RouterContext(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            spec=spec,
            api=shell.api,
            reader=shell.cache,
            clock=shell.clock,
        )

    async def _say_refused(
        self, rollout: Object, memory: Memory, decision: Decision, facts: Facts, error: Exception
    ) -> float:
        """The router or a Deployment said no: tell it, keep the old memory, try again later."""
        reason = Reason.ROUTE_REJECTED if isinstance(error, RouteRejectedError) else Reason.WORKLOAD_NOT_READY
        told = replace(
            decision, state=memory.state, reason=reason, message=str(error), stalled=True, ended=None, command=None
        )
        status = report(memory.status, told, facts)
        if worth_writing(memory.status, status, facts.now):
            await write_status(self._shell.api, rollout, status, fenced=True)
            self._shell.telemetry.note(rollout, Note(reason, str(error), warning=True))
        return _REFUSED

    async def _say_invalid(self, rollout: Object, memory: Memory) -> float | None:
        """The spec does not validate (stored before the CRD's rules): the weight stays, and a person is told."""
        now, old = self._shell.clock.now(), memory.status
        message = f"spec is not valid: {memory.spec_error}"
        conditions = tuple(
            ConditionStatus(
                type=kind,
                status="False" if kind is Condition.READY else "True",
                reason=Reason.INVALID_SPEC,
                message=message,
                last_transition_time=now,
                observed_generation=memory.generation,
            )
            for kind in (Condition.READY, Condition.STALLED)
        )
        if old.message != message or old.observed_generation != memory.generation:
            status = old.model_copy(
                update={"message": message, "conditions": conditions, "observed_generation": memory.generation}
            )
            await write_status(self._shell.api, rollout, status, fenced=True)
            self._shell.telemetry.note(rollout, Note(Reason.INVALID_SPEC, message, warning=True))
        return None

    def _forget(self, key: Key) -> None:
        if (memory := self.memories.pop(key, None)) is not None:
            memory.evaluating = False
            self._shell.evaluations.follow(key, memory)
        self._shell.needs.drop(key)
        self._shell.telemetry.forgot(key)


def _afresh(evidence: Evidence, spec: CanaryRolloutSpec, *, new_revision: bool, now: float) -> Evidence:
    """Evidence for a new beginning. Series by pod begin with their revision; others still hold the one before."""
    if new_revision and spec.metrics.source == "app" and spec.metrics.arms.by == "pod":
        return replace(evidence, breaches={}, fresh_after=None)
    return evidence.restarted(now)


def _deployments(key: Key, spec: CanaryRolloutSpec) -> tuple[Watched, ...]:
    names = (spec.workload.stable.deployment, spec.workload.canary.deployment)
    return tuple(Watched(DEPLOYMENTS, key[0], name) for name in names)


def _needs_finalizer(state: RolloutState, seen: Observation) -> bool:
    """While anything is held that only we can give back: traffic on the canary, its Deployment's pause."""
    return state.phase not in RESTING or state.wanted > 0 or (seen.canary.paused and seen.canary.paused_by_us)
