"""From a decision to the status people read; and whether a new status says anything that the old one did not."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from canary_rollout.analysis.verdict import Assessment, Lack, Outcome, Verdict
from canary_rollout.engine.decision import Decision
from canary_rollout.engine.draft import LONGEST_CAUSE, RESTING, cut, stages_of
from canary_rollout.model.conditions import Condition, Phase, Reason
from canary_rollout.model.route import RouteView
from canary_rollout.model.spec import Action, CanaryRolloutSpec
from canary_rollout.model.status import (
    MAX_HISTORY,
    MAX_VERDICTS,
    CanaryRolloutStatus,
    ConditionStatus,
    HistoryEntry,
    VerdictStatus,
)
from canary_rollout.model.units import format_weight

CHECKPOINT: Final = 300.0
"""Seconds between two writes of numbers and evidence while nothing else changes."""
LONGEST_MESSAGE: Final = 500
"""Characters of the one sentence; it can hold a cause (``draft.LONGEST_CAUSE``) and a router's own words."""
LONGEST_VERDICTS: Final = 2400
"""Characters of the messages of all verdicts that apply; with eight or fewer each has its full length."""
FEW_VERDICTS: Final = 40
"""Always all written; of more, as many as there is room for."""
LEAST_VERDICTS: Final = 6
"""Written however little room there is."""
LARGEST_ANALYSIS: Final = 18_500
"""Bytes for evidence and verdicts together; the rest of a status never needs more than 14,000."""
VERDICT_OVERHEAD: Final = 120
"""Bytes of a verdict beside its rule's name and its message."""
LONGEST_INACTIVE: Final = 100
"""Characters of the message of a rule that does not apply."""
_FAILED: Final = frozenset({Phase.ROLLED_BACK, Phase.HALTED})


@dataclass(frozen=True, slots=True)
class Facts:
    """What a status says beside the decision.

    Attributes:
        spec: the spec that was decided on.
        generation: its generation.
        route: the route as it was seen.
        assessment: verdicts of this evaluation; ``None``: the old ones stand.
        evidence: the rules' memory as it is to be persisted.
        now: POSIX seconds.
        place: where the spec gives the canary its traffic, remembered while a revision is under way.
    """

    spec: CanaryRolloutSpec
    generation: int
    route: RouteView | None
    assessment: Assessment | None
    evidence: dict[str, Any]
    now: float
    place: dict[str, Any] = field(default_factory=dict)


def report(old: CanaryRolloutStatus, decision: Decision, facts: Facts) -> CanaryRolloutStatus:
    """The status after ``decision``."""
    state, assessment = decision.state, facts.assessment
    kept = decision.message is None
    message = old.message if decision.message is None else cut(decision.message, LONGEST_MESSAGE)
    reason = _reason_of(old) if kept else decision.reason
    consumed = old.consumed
    if decision.command is not None:
        consumed = {**consumed, decision.command.command: decision.command.id}
    return CanaryRolloutStatus(
        observed_generation=facts.generation,
        phase=state.phase,
        message=message,
        stage=_stage(facts.spec, decision),
        weight=format_weight(state.wanted),
        revision=state.revision,
        router=_router(facts.spec, facts.route),
        next_change=old.next_change if kept else decision.next_change,
        conditions=_conditions(old, decision, facts, reason, message),
        verdicts=_verdicts(old, decision, facts),
        inactive_rules=_inactive(old, decision, assessment),
        halt=state.halt_of(state.revision),
        history=_history(old.history, decision.ended),
        last_command=decision.command or old.last_command,
        consumed=consumed,
        evaluated_through=round(assessment.at, 3) if assessment is not None else old.evaluated_through,
        evidence=facts.evidence,
        place=facts.place if state.phase not in RESTING else {},
        rollout=state,
    )


def worth_writing(old: CanaryRolloutStatus, new: CanaryRolloutStatus, now: float) -> bool:
    """Whether ``new`` says something new: anything but fresher numbers, or numbers older than a checkpoint."""
    if _essence(old) != _essence(new):
        return True
    since = old.evaluated_through
    fresher = new.evaluated_through is not None and new.evaluated_through != since
    return fresher and (since is None or now - since >= CHECKPOINT)


def _essence(status: CanaryRolloutStatus) -> tuple[CanaryRolloutStatus, tuple[object, ...]]:
    """The status without what changes at every evaluation, and what of its verdicts is worth a write.

    And without the place: it changes with a generation or a phase, and a CRD from before it drops it at every write.
    """
    said = tuple([_worth_telling(verdict) for verdict in status.verdicts])
    return status.model_copy(update={"verdicts": (), "evidence": {}, "evaluated_through": None, "place": {}}), said


def _worth_telling(verdict: VerdictStatus) -> tuple[object, ...]:
    """Not its words; and not what a rule that only alerts says on its way to a fail."""
    if verdict.action == Action.ALERT and verdict.verdict != "fail":
        return (verdict.rule,)
    return verdict.rule, verdict.verdict, verdict.reason, verdict.breached_since


def _stage(spec: CanaryRolloutSpec, decision: Decision) -> str:
    state, stages = decision.state, stages_of(spec, decision.state)
    places = [place for place, stage in enumerate(stages, 1) if stage.name == state.stage]
    return f"{state.stage} ({places[0]}/{len(stages)})" if places else state.stage


def _router(spec: CanaryRolloutSpec, route: RouteView | None) -> str:
    return f"{spec.traffic.router} ({route.mode})" if route is not None and route.mode else spec.traffic.router


def _verdicts(old: CanaryRolloutStatus, decision: Decision, facts: Facts) -> tuple[VerdictStatus, ...]:
    if (assessment := facts.assessment) is not None:
        active = _active(assessment)
        every = _fitting(active, facts.evidence)
        spoken = sum(verdict.lack is not Lack.NOT_APPLICABLE for verdict in every)
        together = LONGEST_VERDICTS if len(every) > LEAST_VERDICTS or every == active else LONGEST_VERDICTS // 4
        longest = min(LONGEST_CAUSE, together // max(1, spoken))
        return tuple(
            _verdict(verdict, LONGEST_INACTIVE if verdict.lack is Lack.NOT_APPLICABLE else longest) for verdict in every
        )
    over = decision.state.phase in RESTING and decision.state.phase not in _FAILED
    return () if over or decision.restart_evidence else old.verdicts


def _active(assessment: Assessment) -> tuple[Verdict, ...]:
    return tuple(verdict for verdict in assessment.every if not verdict.inactive)


def has_many(assessment: Assessment | None) -> bool:
    """Whether there are more verdicts than are always written: then it depends on the size of the evidence which are."""
    return assessment is not None and len(_active(assessment)) > FEW_VERDICTS


def _inactive(old: CanaryRolloutStatus, decision: Decision, assessment: Assessment | None) -> tuple[str, ...]:
    if assessment is not None:
        return tuple(verdict.rule for verdict in assessment.rules if verdict.inactive)[:MAX_VERDICTS]
    over = decision.state.phase in RESTING and decision.state.phase not in _FAILED
    return () if over else old.inactive_rules


def _fitting(every: tuple[Verdict, ...], evidence: dict[str, Any]) -> tuple[Verdict, ...]:
    """The verdicts there is room for beside the evidence. The order stays; what goes first is what says least."""
    if len(every) <= FEW_VERDICTS:
        return every
    room = LARGEST_ANALYSIS - len(json.dumps(evidence, separators=(",", ":")))
    room -= LONGEST_VERDICTS + VERDICT_OVERHEAD
    kept: set[int] = set()
    for place, verdict in sorted(enumerate(every), key=lambda item: (_WORTH[item[1].outcome, item[1].lack], item[0])):
        told = LONGEST_INACTIVE if verdict.lack is Lack.NOT_APPLICABLE else 0
        room -= VERDICT_OVERHEAD + len(verdict.rule) + told
        if (room < 0 and len(kept) >= LEAST_VERDICTS) or len(kept) == MAX_VERDICTS:
            break
        kept.add(place)
    return tuple(verdict for place, verdict in enumerate(every) if place in kept)


_WORTH: Final = {
    (Outcome.FAIL, None): 0,
    (Outcome.NONE, Lack.NO_DATA): 1,
    (Outcome.NONE, Lack.NOT_ENOUGH): 2,
    (Outcome.PASS, None): 3,
    (Outcome.NONE, Lack.NOT_APPLICABLE): 4,
}


def _verdict(verdict: Verdict, longest: int) -> VerdictStatus:
    return VerdictStatus(
        rule=verdict.rule,
        verdict=verdict.outcome.value,
        reason=verdict.lack or "",
        message=cut(verdict.message, longest),
        breached_since=None if verdict.breached_since is None else round(verdict.breached_since, 3),
        action=verdict.action or "",
    )


def _history(old: tuple[HistoryEntry, ...], ended: HistoryEntry | None) -> tuple[HistoryEntry, ...]:
    return (ended, *old)[:MAX_HISTORY] if ended is not None else old


def _reason_of(old: CanaryRolloutStatus) -> Reason:
    ready = next((item for item in old.conditions if item.type == Condition.READY), None)
    known = ready is not None and ready.reason in Reason.__members__.values()
    return Reason(ready.reason) if ready is not None and known else Reason.IDLE


def _conditions(
    old: CanaryRolloutStatus, decision: Decision, facts: Facts, reason: Reason, message: str
) -> tuple[ConditionStatus, ...]:
    """Ready always; Reconciling, Stalled and RouteContested only while they are true (kstatus, GEP-1364)."""
    phase, route = decision.state.phase, facts.route
    failed = phase in _FAILED or decision.stalled
    ready = phase in RESTING and not failed
    found = [(Condition.READY, ready, reason, message)]
    if failed:
        found.append((Condition.STALLED, True, reason, message))
    elif phase not in RESTING:
        found.append((Condition.RECONCILING, True, reason, message))
    if route is not None and route.contested_by and route.weight != decision.state.wanted:
        wanted = format_weight(decision.state.wanted)
        words = f"{route.contested_by} wrote {format_weight(route.weight)} over the wanted {wanted}"
        found.append((Condition.ROUTE_CONTESTED, True, Reason.ROUTE_CONTESTED, words))
    since = {(item.type, item.status): item.last_transition_time for item in old.conditions}
    return tuple(
        ConditionStatus(
            type=kind,
            status="True" if true else "False",
            reason=why,
            message=words,
            last_transition_time=since.get((kind, "True" if true else "False"), round(facts.now, 3)),
            observed_generation=facts.generation,
        )
        for kind, true, why, words in found
    )
