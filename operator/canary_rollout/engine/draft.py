"""The working copy of one decision. Every step of the engine reads it and changes it through these few verbs."""

from typing import Any, Literal

from canary_rollout.engine.decision import Action, Decision, Note
from canary_rollout.engine.observation import Observation
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import CanaryRolloutSpec, Stage
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


def stages_of(spec: CanaryRolloutSpec, state: RolloutState) -> tuple[Stage, ...]:
    """The stages of the revision under way: those given at its start, else those of the spec that are enabled."""
    return state.override or spec.active_stages


def stage_of(spec: CanaryRolloutSpec, state: RolloutState) -> Stage:
    """The stage whose hold counts now; when it was edited away, the last one not above the present weight."""
    stages = stages_of(spec, state)
    named = [stage for stage in stages if stage.name == state.stage]
    below = [stage for stage in stages if stage.weight <= state.wanted]
    return (named or below[-1:] or list(stages[:1]))[0]


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
        """The first stage above the weight that is wanted now; ``None`` at 100 %."""
        return next((stage for stage in self.stages if stage.weight > self.state.wanted), None)

    @property
    def route_weight(self) -> int:
        """Basis points the data plane is told now."""
        return self.seen.route.weight if self.seen.route is not None else 0

    @property
    def may_serve(self) -> bool:
        """Whether the canary may have traffic now, by what is written or by what is wanted."""
        return max(self.route_weight, self.state.wanted, self.state.confirmed) > 0

    @property
    def at_zero(self) -> bool:
        """Whether the data plane is proved to serve stable only."""
        route = self.seen.route
        return route is not None and route.weight == 0 and route.cohort is None and route.confirmed

    @property
    def serves_as_wanted(self) -> bool:
        """Whether the data plane is proved to serve the wanted weight for this revision."""
        route = self.seen.route
        return (
            route is not None
            and route.confirmed
            and route.weight == self.state.wanted
            and route.revision == self.state.revision
        )

    # -- changing --------------------------------------------------------------------------------------------------

    def change(self, **fields: Any) -> None:
        """Set fields of the state."""
        self.state = self.state.model_copy(update=fields)

    def say(self, reason: Reason, message: str, *, stalled: bool = False) -> None:
        """Where the rollout is, in one word and one sentence."""
        self.reason, self.message, self.stalled = reason, message, stalled

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
        self.change(
            wanted=weight,
            stage=stage,
            clock=StageClock(),
            lowering=None,
            approval=None,
            pin=None,
            serving_since=self.state.serving_since or self.now,
        )

    def pause(self, reason: Reason, message: str, rule: str = "") -> None:
        """Hold the weight until a person says resume; tells it once."""
        if self.state.pause is None:
            self.change(pause=Pause(reason=reason, rule=rule, message=message, at=self.now))
            self.note(reason, message, warning=reason is not Reason.PAUSED_BY_COMMAND)

    def halt(self, reason: Reason, message: str, rule: str = "") -> None:
        """Condemn the revision: weight 0 at once, and no rise again without ``retry``."""
        served = max(self.state.wanted, self.state.confirmed)
        halt = Halt(
            revision=self.state.revision,
            reason=reason,
            rule=rule,
            message=message,
            stage=self.state.stage,
            weight=min(served, FULL),
            at=self.now,
        )
        others = tuple(old for old in self.state.halts if old.revision != halt.revision)
        self.change(
            halts=(halt, *others)[:MAX_HALTS],
            phase=Phase.ROLLING_BACK,
            wanted=0,
            clock=StageClock(),
            lowering=Lowering(reason=reason, to=0, at=self.now),
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
            message=message,
            began_at=self.state.began_at,
            ended_at=self.now,
        )

    def decision(self) -> Decision:
        """The finished decision. A changed memory is looked at again as soon as it is persisted."""
        if self.state != self.before:
            self.wake(self.now)
        evaluating = (
            self.state.wanted > 0 and self.state.phase not in RESTING and self.state.phase is not Phase.RETURNING
        )
        return Decision(
            state=self.state,
            actions=tuple(self.actions),
            latch=self.latch,
            notes=tuple(self.notes),
            ended=self.ended,
            command=self.command,
            restart_evidence=self.restart_evidence,
            wake_at=max(self.now, min(self.wakes)) if self.wakes else None,
            next_change=self.next_change,
            reason=self.reason,
            message=None if self.words_kept and not self.stalled else self.message,
            stalled=self.stalled,
            evaluating=evaluating,
        )
