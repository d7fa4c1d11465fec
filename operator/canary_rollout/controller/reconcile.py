"""reconcile(key): gather, decide, execute, persist. The only place where the four meet."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Final

import structlog

from canary_rollout.controller.execute import Executor, RouteRejectedError
from canary_rollout.controller.failures import with_failure, without_failure
from canary_rollout.controller.farewell import Goodbye, farewell, let_go, spec_of
from canary_rollout.controller.memory import Memory
from canary_rollout.controller.moving import UNPRIMED, cannot_list, leave_old_place, read_by
from canary_rollout.controller.persist import key_of, set_finalizer, write_status
from canary_rollout.controller.place import place_of
from canary_rollout.controller.queue import Key
from canary_rollout.controller.rule_sets import RuleSets, watched_sets
from canary_rollout.controller.shell import Shell
from canary_rollout.engine.decide import decide
from canary_rollout.engine.decision import Action, Decision, Lower, Note
from canary_rollout.engine.draft import RESTING
from canary_rollout.engine.fitting import fitted
from canary_rollout.engine.observation import Observation
from canary_rollout.engine.report import Facts, has_many, report, worth_writing
from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    ApiError,
    ForbiddenError,
    InvalidError,
    Object,
    UnavailableError,
)
from canary_rollout.model.conditions import Condition, Reason
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import CanaryRolloutStatus, ConditionStatus, RolloutState
from canary_rollout.model.units import format_weight
from canary_rollout.traffic.port import RouterError
from canary_rollout.workloads.deployments import WorkloadError, Workloads

log = structlog.get_logger(__name__)

_TELL_AGAIN: Final = 60.0
"""Seconds until a contest of the route that goes on is told again."""
_REFUSED = 10.0
"""Seconds until something that was refused is tried again."""
_ANSWER_WITHIN: Final = 3.0
"""Seconds to wait for the answer to a latch or a lowering before it is sent again."""
_REFUSALS: Final = (RouteRejectedError, WorkloadError, InvalidError, ForbiddenError)
"""Answers that a repeat does not change: a person is told."""


class Reconciler:
    """Looks at one rollout at a time; remembers nothing that status does not hold, but for speed."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._sets = RuleSets(shell.cache)
        self.memories: dict[Key, Memory] = {}

    async def reconcile(self, key: Key) -> float | None:
        """One look. Returns seconds until the next one, ``None``: when something changes. Raises to be repeated."""
        shell = self._shell
        rollout = shell.cache.get(CANARY_ROLLOUTS, *key)
        if rollout is None:
            self._forget(key)
            return None
        memory = self._memory(key, rollout)
        memory.read(rollout)
        deleting = bool(rollout["metadata"].get("deletionTimestamp"))
        spec = memory.spec or (spec_of(rollout) if deleting else None)
        if spec is None:
            why = f"spec is not valid: {memory.spec_error}"
            return await self._cannot(rollout, memory, Reason.INVALID_SPEC, why, deleting=deleting)
        try:
            return await self._look(rollout, memory, spec, deleting=deleting)
        except (RouterError, RouteRejectedError) as error:
            return await self._cannot(rollout, memory, Reason.ROUTE_REJECTED, str(error), deleting=deleting)

    async def _look(self, rollout: Object, memory: Memory, spec: CanaryRolloutSpec, *, deleting: bool) -> float | None:
        shell, key = self._shell, key_of(rollout)
        if (again := await leave_old_place(shell, rollout, memory, spec, write=self._write)) is not None:
            return again
        router = shell.router(rollout, memory, spec)
        watched = read_by(router, key[0], spec)
        shell.needs.need(key, (*watched, *watched_sets(key[0], memory.written)))
        if absent := shell.needs.absent(watched):
            raise RouterError(absent[0])
        if missing := shell.needs.missing(watched):
            return await self._unlisted(rollout, memory, missing, deleting=deleting)
        if not self._sets.take_in(key, memory, shell.needs.missing):
            return UNPRIMED
        spec = memory.spec or spec
        seen = await shell.gatherer.observe(key, memory, spec, router)
        self._tell_unreadable(rollout, memory)
        self._tell_contest(rollout, memory, seen)
        executor = Executor(router, Workloads(shell.api, key[0], spec))
        if deleting:
            goodbye = await farewell(shell.api, rollout, memory, seen, executor, now=shell.clock.now())
            return self._said(rollout, goodbye)
        return await self._decide(rollout, memory, spec, seen, executor)

    async def _unlisted(self, rollout: Object, memory: Memory, missing: list[str], *, deleting: bool) -> float | None:
        """Nothing is decided on a cold cache. A kind that is not there, or not ours to read, is told, not waited for in silence."""
        if not cannot_list(missing):
            return UNPRIMED
        return await self._cannot(rollout, memory, Reason.ROUTE_REJECTED, "; ".join(missing), deleting=deleting)

    async def _decide(
        self, rollout: Object, memory: Memory, spec: CanaryRolloutSpec, seen: Observation, executor: Executor
    ) -> float | None:
        shell, now = self._shell, self._shell.clock.now()
        decision = decide(spec, memory.state, seen, now)
        if decision.restart_evidence and memory.evidence is not None:
            begins = decision.state.began_at != memory.state.began_at
            memory.evidence = memory.evidence.afresh(spec.metrics, new_revision=begins, at=now)
            memory.comparing = None
        facts = Facts(
            spec=spec,
            generation=int(rollout["metadata"].get("generation", 0)),
            route=seen.route,
            assessment=None if decision.restart_evidence else seen.assessment,
            evidence={},
            now=now,
            place=_place(memory, spec),
        )
        status, news = self._report(memory, decision, facts)
        try:
            if decision.latch:
                await self._stop(rollout, memory, decision, status, executor)
            for action in () if _lowers(memory.state, decision) else decision.actions:
                if not (decision.latch and isinstance(action, Lower)):
                    log.info("acting", namespace=executor.workloads.namespace, **_words(rollout, action))
                    await executor.carry_out(action)
        except _REFUSALS as error:
            return await self._say_refused(rollout, memory, decision, facts, error)
        if not decision.latch:
            try:
                await self._persist(rollout, decision, status if news else None, seen)
            except (asyncio.CancelledError, UnavailableError):
                # It may have been written all the same, and then nobody decides this again: told twice rather than never.
                self._tell_notes(rollout, decision)
                raise
        self._carried_out(rollout, memory, seen, decision, status)
        return None if decision.wake_at is None else max(0.0, decision.wake_at - shell.clock.now())

    def _report(self, memory: Memory, decision: Decision, facts: Facts) -> tuple[CanaryRolloutStatus, bool]:
        """The status after a decision, and whether it is to be written. Evidence is written out for one that is, not at every look."""
        if not has_many(facts.assessment):  # else it takes the evidence to tell which verdicts there is room for
            status = report(memory.status, decision, facts)
            if not (decision.latch or memory.latched is not None or worth_writing(memory.status, status, facts.now)):
                return status, False
        status = report(memory.status, decision, _with_evidence(memory, facts))
        return status, memory.latched is not None or worth_writing(memory.status, status, facts.now)

    async def _stop(
        self, rollout: Object, memory: Memory, decision: Decision, status: CanaryRolloutStatus, executor: Executor
    ) -> None:
        """A new halt: its latch and the lowering are sent together, neither waiting for the other.

        From here on the halt counts, whatever becomes of the two (also when this is cancelled by something more urgent):
        ``memory.latched`` is let go only when the status is seen to hold it. What is lost is sent again by the next look.
        """
        memory.latched = decision.state
        self._tell(rollout, status, decision)
        sent = [
            _in_time(self._write(rollout, status, fenced=False)),
            *(_in_time(executor.carry_out(action)) for action in decision.actions if isinstance(action, Lower)),
        ]
        for result in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _persist(
        self, rollout: Object, decision: Decision, status: CanaryRolloutStatus | None, seen: Observation
    ) -> None:
        """One status write (``None``: nothing new), fenced by the very object decided on: a latch or command since then counts."""
        api = self._shell.api
        current = await set_finalizer(api, rollout, wanted=_needs_finalizer(decision.state, seen))
        if status is not None:
            await self._write(current, status, fenced=True)

    async def _write(self, rollout: Object, status: CanaryRolloutStatus, *, fenced: bool) -> None:
        """A status that is never larger than promised; what had to be left out is told."""
        status, left = fitted(status)
        if left:
            self._shell.telemetry.left_out(rollout, left)
        await write_status(self._shell.api, rollout, status, fenced=fenced)

    def _carried_out(
        self, rollout: Object, memory: Memory, seen: Observation, decision: Decision, status: CanaryRolloutStatus
    ) -> None:
        """Only now is this look over: what it rested on is used up."""
        shell, key = self._shell, key_of(rollout)
        memory.term, memory.watched_from = shell.term(), seen.watched_from
        memory.acted_on = memory.spec
        if memory.assessment is seen.assessment:
            memory.assessment = None
        memory.evaluating = decision.evaluating
        shell.evaluations.follow(key, memory)
        if not decision.latch:
            self._tell(rollout, status, decision)

    def _tell_unreadable(self, rollout: Object, memory: Memory) -> None:
        for words in sorted(memory.unreadable - memory.told):
            self._shell.telemetry.note(rollout, Note(Reason.COMMAND_REFUSED, words, warning=True))
        memory.told = memory.unreadable

    def _tell_contest(self, rollout: Object, memory: Memory, seen: Observation) -> None:
        """Somebody else wrote the route: told at once, and then once a minute while it goes on."""
        view, wanted, now = seen.route, memory.state.wanted, self._shell.clock.now()
        if view is None or not view.contested_by or (view.weight == wanted and not view.outdated):
            return
        if now - memory.contest.told_at < _TELL_AGAIN:
            return
        memory.contest.told_at = now
        words = f"{view.contested_by} wrote {format_weight(view.weight)} over the wanted {format_weight(wanted)}"
        self._shell.telemetry.note(rollout, Note(Reason.ROUTE_CONTESTED, words, warning=True))

    def _tell_notes(self, rollout: Object, decision: Decision) -> None:
        for note in decision.notes:
            self._shell.telemetry.note(rollout, note)

    def _tell(self, rollout: Object, status: CanaryRolloutStatus, decision: Decision) -> None:
        self._tell_notes(rollout, decision)
        self._shell.telemetry.decided(rollout, status, decision)

    def _said(self, rollout: Object, goodbye: Goodbye) -> float | None:
        for note in goodbye.notes:
            self._shell.telemetry.note(rollout, note)
        return goodbye.again

    async def _say_refused(
        self, rollout: Object, memory: Memory, decision: Decision, facts: Facts, error: Exception
    ) -> float:
        """Something said no: tell it, keep the old memory, try again later."""
        if decision.latch:
            return 0.0  # the latch is on its way; the next look, on top of it, lowers again and tells what refuses
        reason = Reason.WORKLOAD_NOT_READY if isinstance(error, WorkloadError) else Reason.ROUTE_REJECTED
        told = replace(
            decision, state=memory.state, reason=reason, message=str(error), stalled=True, ended=None, command=None
        )
        status = report(memory.status, told, _with_evidence(memory, facts))
        if memory.latched is not None or worth_writing(memory.status, status, facts.now):
            await self._write(rollout, status, fenced=True)
            self._shell.telemetry.note(rollout, Note(reason, str(error), warning=True))
        return _REFUSED

    async def _cannot(
        self, rollout: Object, memory: Memory, reason: Reason, why: str, *, deleting: bool
    ) -> float | None:
        """There is nothing to decide with."""
        shell = self._shell
        if deleting:
            return self._said(rollout, await let_go(shell.api, rollout, why, now=shell.clock.now()))
        await self._say_stalled(rollout, memory, reason, why)
        return _REFUSED if reason is Reason.ROUTE_REJECTED else None

    async def _say_stalled(self, rollout: Object, memory: Memory, reason: Reason, message: str) -> None:
        """Nothing can be decided: the weight and the memory stay as they are, and a person is told."""
        now, old = round(self._shell.clock.now(), 3), memory.status
        known = old.message == message and old.observed_generation == memory.generation
        if known and without_failure(old) == old.conditions:
            return
        conditions = tuple(
            ConditionStatus(
                type=kind,
                status="False" if kind is Condition.READY else "True",
                reason=reason,
                message=message,
                last_transition_time=now,
                observed_generation=memory.generation,
            )
            for kind in (Condition.READY, Condition.STALLED)
        )
        status = old.model_copy(
            update={"message": message, "conditions": conditions, "observed_generation": memory.generation}
        )
        await self._write(rollout, status, fenced=True)
        self._shell.telemetry.note(rollout, Note(reason, message, warning=True))

    async def say_failing(self, key: Key, error: Exception) -> None:
        """Looks at ``key`` fail again and again: say so in the resource, once for each kind of error."""
        rollout, memory = self._shell.cache.get(CANARY_ROLLOUTS, *key), self.memories.get(key)
        if rollout is None or memory is None:
            return
        memory.read(rollout)
        kind = type(error).__name__
        said = any(item.type == Condition.RECONCILE_FAILING for item in memory.status.conditions)
        if said and memory.failing == kind:
            return
        status, words = with_failure(memory.status, error, memory.generation, self._shell.clock.now())
        memory.failing = kind
        if status == memory.status:
            return  # a process before this one said so
        try:
            await _in_time(self._write(rollout, status, fenced=True))
        except ApiError as refused:
            # It may be the very thing that fails: then there is nowhere to say it but the log and the metrics.
            memory.failing = ""
            log.warning("cannot be said in the status", namespace=key[0], rollout=key[1], error=str(refused))
            return
        self._shell.telemetry.note(rollout, Note(Reason.RECONCILE_FAILED, words, warning=True))

    def _memory(self, key: Key, rollout: Object) -> Memory:
        """What is remembered of this very object; one that was deleted and created again begins anew."""
        uid = rollout["metadata"].get("uid", "")
        known = self.memories.get(key)
        if known is not None and known.uid != uid:
            self._forget(key)
            known = None
        if known is None:
            known = self.memories[key] = Memory(uid=uid)
        return known

    def _forget(self, key: Key) -> None:
        if (memory := self.memories.pop(key, None)) is not None:
            memory.evaluating = False
            self._shell.evaluations.follow(key, memory)
        self._shell.needs.drop(key)
        self._shell.telemetry.forgot(key)


def _with_evidence(memory: Memory, facts: Facts) -> Facts:
    return replace(facts, evidence=memory.evidence.to_dict() if memory.evidence is not None else {})


def _place(memory: Memory, spec: CanaryRolloutSpec) -> Object:
    """The place a spec names, worked out once for each spec."""
    if memory.place is None or memory.place[0] is not spec:
        memory.place = (spec, place_of(spec))
    return memory.place[1]


def _needs_finalizer(state: RolloutState, seen: Observation) -> bool:
    """While anything is held that only we can give back: traffic on the canary, its Deployment's pause."""
    return state.phase not in RESTING or state.wanted > 0 or (seen.canary.paused and seen.canary.paused_by_us)


def _lowers(before: RolloutState, decision: Decision) -> bool:
    """Whether less is wanted than before: that is persisted before anything else that may fail or be refused is tried."""
    after = decision.state
    return not decision.latch and (after.wanted < before.wanted or after.revision != before.revision)


def _words(rollout: Object, action: Action) -> dict[str, str]:
    return {"rollout": rollout["metadata"]["name"], "action": type(action).__name__}


async def _in_time(sending: Awaitable[object]) -> None:
    """Send something that must not be held up by a connection that is dead: what got no answer soon is sent again."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            await sending
    except TimeoutError as error:
        raise UnavailableError(f"no answer from the API server within {_ANSWER_WITHIN:g} s; sent again") from error
