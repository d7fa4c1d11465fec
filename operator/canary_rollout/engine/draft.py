"""The working copy of one decision. Every step of the engine reads it and changes it through these few verbs."""

from math import ceil
from typing import Any, Final, Literal

from canary_rollout.analysis.verdict import Assessment
from canary_rollout.engine.decision import Action, Decision, Note
from canary_rollout.engine.observation import Observation
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import CanaryRolloutSpec, Cohort, Stage
from canary_rollout.model.status import (
    MAX_HALTS,
    CommandStatus,
    Halt,
    HistoryEntry,
    Lowering,
    Pause,
    RolloutState,
    StageClock,
)
from canary_rollout.model.units import FULL

RESTING = frozenset({Phase.IDLE, Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.HALTED})
HOLDING = frozenset({Phase.PROGRESSING, Phase.PAUSED, Phase.AWAITING_APPROVAL})
ENDING = frozenset({Phase.PROMOTING, Phase.AWAITING_PROMOTION, Phase.RETURNING, Phase.ROLLING_BACK})
HALTED_BY_ROUTE = frozenset({Reason.ROUTE_LOWERED, Reason.SHARE_EXCEEDED})
LONGEST_CAUSE: Final = 300
"""Characters of a cause that is remembered (halt, pause); what comes after is cut, so that a status stays small."""
LONGEST_OLD_CAUSE: Final = 100
"""Characters of a cause once it is history."""


def stages_of(spec: CanaryRolloutSpec, state: RolloutState) -> tuple[Stage, ...]:
    """The stages of the revision under way: those given at its start, else those of the spec that are enabled."""
    return state.override or spec.active_stages


def stage_of(spec: CanaryRolloutSpec, state: RolloutState) -> Stage:
    """The stage whose hold counts now; when it was edited away, the last one not above the present weight."""
    stages = stages_of(spec, state)
    return next((stage for stage in stages if stage.name == state.stage), stage_at(stages, state.wanted))


def stage_at(stages: tuple[Stage, ...], weight: int) -> Stage:
    """The last stage not above ``weight``, else the first."""
    return ([stage for stage in stages if stage.weight <= weight] or stages[:1])[-1]


def with_halt(halts: tuple[Halt, ...], halt: Halt) -> tuple[Halt, ...]:
    """The latches with one more, newest first; what older ones say is shortened."""
    others = tuple(
        old.model_copy(update={"message": cut(old.message, LONGEST_OLD_CAUSE)})
        for old in halts
        if old.revision != halt.revision
    )
    return (halt, *others)[:MAX_HALTS]


def cut(text: str, longest: int = LONGEST_CAUSE) -> str:
    """A text as it is remembered: bounded, in characters and (where they are not ASCII) in bytes of UTF-8."""
    if text.isascii():
        return text if len(text) <= longest else text[: longest - 1] + "…"
    raw = text.encode(errors="replace")
    return text if len(raw) <= longest else raw[: longest - 1].decode(errors="ignore") + "…"


class Draft:
    """One decision in the making: the persisted state it began with, the state as it will be, and what else was decided."""

    def __init__(self, spec: CanaryRolloutSpec, state: RolloutState, seen: Observation, now: float) -> None:
        self.spec = spec
        self.before = state
        self.state = state
        self.seen = seen
        self.now = now
        self.actions: list[Action] = []
        self.notes: list[Note] = []
        self.latch = False
        self.ended: HistoryEntry | None = None
        self.command: CommandStatus | None = None
        self.restart_evidence = False
        self.wakes: list[float] = []
        self.next_change: float | None = None
        self.reason = Reason.IDLE
        self.message = ""
        self.stalled = False
        self.words_kept = False

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this revision: those given at its start, else those of the spec that are enabled."""
        return stages_of(self.spec, self.state)

    @property
    def stage(self) -> Stage:
        """The stage whose hold counts now."""
        return stage_of(self.spec, self.state)

    @property
    def next_stage(self) -> Stage | None:
        """The first stage above the weight that is wanted now, a mirroring one before all; ``None`` at 100 %."""
        first = self.stages[0]
        if first.mirrors and not self.state.stage and self.state.wanted == 0:
            return first
        return next((stage for stage in self.stages if stage.weight > self.state.wanted), None)

    @property
    def route_weight(self) -> int:
        """Basis points the data plane is told now."""
        return self.seen.route.weight if self.seen.route is not None else 0

    @property
    def route_mirror(self) -> int:
        """Basis points of the requests that the data plane is told to copy to the canary now."""
        return self.seen.route.mirror if self.seen.route is not None else 0

    @property
    def mirror(self) -> int:
        """Basis points of the requests that are to be copied to the canary: in a mirroring stage, unless told not to."""
        state = self.state
        mirrors = state.wanted == 0 and state.phase in HOLDING and bool(state.stage) and state.lowering is None
        return self.stage.mirror or 0 if mirrors else 0

    @property
    def may_serve(self) -> bool:
        """Whether the canary may have traffic now, by what is written or by what is wanted."""
        return max(self.route_weight, self.state.wanted, self.state.confirmed, self.route_mirror, self.mirror) > 0

    @property
    def served(self) -> bool:
        """Whether this journey, or the one whose place it took, has given the canary traffic."""
        state, lowering = self.state, self.state.lowering
        replaced = lowering is not None and lowering.reason is Reason.NEW_REVISION and lowering.at == state.began_at
        return state.serving_since is not None or replaced

    @property
    def emptied(self) -> bool:
        """Whether the requests that began on the canary have had their time since it got the last one."""
        until = self.state.drain_until
        empty = self.route_weight == 0 and self.route_mirror == 0
        return not self.served or (until is not None and self.now >= until and empty)

    @property
    def assessment(self) -> Assessment | None:
        """The verdicts of this evaluation, unless they rest on samples from before the rules began afresh."""
        seen, fresh_after = self.seen.assessment, self.state.fresh_after
        return None if seen is None or (fresh_after is not None and seen.at < fresh_after) else seen

    @property
    def cohort(self) -> Cohort | None:
        """People who belong to the canary on top of the wanted weight."""
        serving = self.state.wanted > 0 and self.state.phase not in RESTING and self.state.stage
        return self.stage.cohort if serving else None

    @property
    def at_zero(self) -> bool:
        """Whether the data plane is proved to serve stable only."""
        route = self.seen.route
        return route is not None and route.weight == route.mirror == 0 and route.cohort is None and route.confirmed

    @property
    def serves_as_wanted(self) -> bool:
        """Whether the data plane is proved to serve the wanted weight for this revision."""
        route = self.seen.route
        return (
            route is not None
            and route.confirmed
            and route.weight == self.state.wanted
            and route.revision == self.state.revision
            and route.cohort == self.cohort
            and route.mirror == self.mirror
        )

    @property
    def _awaits_entry(self) -> bool:
        """Whether the first stage has gates that are to be asked although the canary serves nothing yet."""
        following = self.next_stage
        return self.state.phase in {*HOLDING, Phase.PREPARING} and following is not None and bool(following.entry)

    # -- changing --------------------------------------------------------------------------------------------------

    def change(self, **fields: Any) -> None:
        """Set fields of the state."""
        self.state = self.state.model_copy(update=fields)

    def say(self, reason: Reason, message: str, *, stalled: bool = False) -> None:
        """Where the rollout is, in one word and one sentence."""
        self.reason, self.message, self.stalled, self.words_kept = reason, message, stalled, False

    def keep_words(self) -> None:
        """Nothing new is known: phase, reason and sentence stay as they were."""
        self.change(phase=self.before.phase)
        self.words_kept = True

    def note(self, reason: Reason, message: str, *, warning: bool = False) -> None:
        """Something worth an Event."""
        self.notes.append(Note(reason, message, warning))

    def act(self, action: Action) -> None:
        """Something to do."""
        self.actions.append(action)

    def wake(self, at: float) -> None:
        """Look again at ``at`` (POSIX seconds) at the latest."""
        self.wakes.append(at)

    def stop_clock(self) -> None:
        """The stage's time stands still from now on."""
        if self.state.clock.since is not None:
            self.change(clock=self.state.clock.stopped(self.now))

    def run_clock(self) -> None:
        """The stage's time runs from now on."""
        if self.state.clock.since is None:
            self.change(clock=self.state.clock.started(self.now))

    def lower(self, reason: Reason, to: int) -> None:
        """Want less traffic on the canary although nothing failed; the route follows once this is persisted."""
        self.change(wanted=to, clock=StageClock(), lowering=Lowering(reason=reason, to=to, at=self.now))

    def want(self, weight: int, stage: str) -> None:
        """Want more (or the same) traffic on the canary: the intent; the route follows once this is persisted."""
        confirmed, lowering = self.state.confirmed, self.state.lowering
        self.change(
            phase=Phase.PROGRESSING,
            wanted=weight,
            # With the lowering goes the reason why the route may be below what was confirmed before it.
            confirmed=confirmed if lowering is None else min(confirmed, lowering.to),
            stage=stage,
            clock=StageClock(),
            lowering=None,
            approval=None,
            pin=None,
            no_data_since=None,
            drain_until=None,
            serving_since=self.state.serving_since or self.now,
        )

    def pause(self, reason: Reason, message: str, rule: str = "") -> None:
        """Hold the weight until a person says resume; tells it once."""
        if self.state.pause is None:
            self.change(pause=Pause(reason=reason, rule=rule, message=cut(message), at=self.now))
            self.note(reason, message, warning=reason is not Reason.PAUSED_BY_COMMAND)

    def stay_here(self) -> None:
        """Take back a raise that was decided and is not written yet: who holds the weight holds the one that is served."""
        state = self.state
        if self.route_weight < state.wanted and state.confirmed < state.wanted:
            self.lower(Reason.STAGE_HELD, state.confirmed)
            self.change(stage=stage_at(self.stages, state.confirmed).name)

    def halt(self, reason: Reason, message: str, rule: str = "") -> None:
        """Condemn the revision: weight 0 at once, and no rise again without ``retry``."""
        served = max(self.state.wanted, self.state.confirmed)
        halt = Halt(
            revision=self.state.revision,
            reason=reason,
            rule=rule,
            message=cut(message),
            stage=self.state.stage,
            weight=min(served, FULL),
            at=self.now,
        )
        self.change(
            halts=with_halt(self.state.halts, halt),
            phase=Phase.ROLLING_BACK,
            wanted=0,
            clock=StageClock(),
            lowering=Lowering(reason=reason, to=0, at=self.now),
            # What the revision before it still has under way drains as well.
            serving_since=self.state.serving_since or (self.now if self.served else None),
            pause=None,
            approval=None,
            pin=None,
            no_data_since=None,
            drain_until=None,
        )
        self.latch = True
        self.note(reason, message, warning=True)

    def end(
        self, result: Literal["Succeeded", "RolledBack", "Halted", "Superseded"], reason: str, message: str
    ) -> None:
        """The revision's journey is over; leave a line in the history."""
        self.ended = HistoryEntry(
            revision=self.state.revision,
            result=result,
            reason=reason,
            message=cut(message, LONGEST_OLD_CAUSE),
            began_at=self.state.began_at,
            ended_at=self.now,
        )

    def decision(self) -> Decision:
        """The finished decision. A changed memory is looked at again as soon as it is persisted."""
        if self.state != self.before:
            self.wake(self.now)
        evaluating = (
            (self.state.wanted > 0 or self.mirror > 0 or self._awaits_entry)
            and self.state.phase not in RESTING
            and self.state.phase is not Phase.RETURNING
        )
        return Decision(
            state=self.state,
            actions=tuple(self.actions),
            latch=self.latch,
            notes=tuple(self.notes),
            ended=self.ended,
            command=self.command,
            restart_evidence=self.restart_evidence,
            # Rounded up: too early by half a millisecond would mean again and again.
            wake_at=max(self.now, ceil(min(self.wakes) * 1000 - 1e-3) / 1000) if self.wakes else None,
            # To the millisecond, as status holds it: a held rollout must not look changed because of a float's last bit.
            next_change=None if self.next_change is None else round(self.next_change, 3),
            reason=self.reason,
            message=None if self.words_kept and not self.stalled else self.message,
            stalled=self.stalled,
            evaluating=evaluating,
        )
