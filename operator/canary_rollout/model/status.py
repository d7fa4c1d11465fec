"""``status`` of a CanaryRollout: what people read, and the engine's whole memory (nothing else is remembered anywhere)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Stage
from canary_rollout.model.units import WEIGHT_PATTERN, Instant, format_weight, parse_weight

MAX_HALTS = 10
MAX_HISTORY = 10
MAX_HEARD = 12
MAX_VERDICTS = 112

Weight = Annotated[
    int,
    # Inside, weights are basis points already; outside they are strings as in the spec.
    BeforeValidator(lambda value: value if type(value) is int else parse_weight(value)),
    PlainSerializer(format_weight, return_type=str),
    WithJsonSchema({"type": "string", "pattern": WEIGHT_PATTERN, "maxLength": 7}),
]


def _brief(stages: tuple[Stage, ...]) -> list[dict[str, Any]]:
    """Stages without what is as by default: there can be many."""
    return [stage.model_dump(mode="json", by_alias=True, exclude_defaults=True) for stage in stages]


class StatusModel(BaseModel):
    """Base of every part of the status: camelCase outside; unknown fields (of a newer version) are dropped."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class ConditionStatus(StatusModel):
    """One entry of ``status.conditions`` as kstatus, Argo CD and ``kubectl wait`` read it."""

    type: str = Field(description="Ready, Reconciling, Stalled, RouteContested or ReconcileFailing.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(description="One word for the cause; the Event that tells it has the same.")
    message: str = Field(description="The cause in one sentence.")
    last_transition_time: Instant = Field(description="When status last changed.")
    observed_generation: int = Field(0, description="Generation of the spec this speaks of.")


class VerdictStatus(StatusModel):
    """The last word of one rule or gate, refreshed when its outcome changes and every five minutes."""

    rule: str = Field(description="Name of the halt rule or gate.")
    verdict: Literal["pass", "fail", "none"] = Field(description="pass, fail or none.")
    reason: str = Field("", description="Why there is no verdict: NoData, NotEnough or NotApplicable.")
    message: str = Field("", description="The numbers, in one sentence.")
    breached_since: Instant | None = Field(None, description="First sample of the present unbroken breach.")
    action: str = Field("", description="What a fail does: Rollback, Pause or Alert; empty for gates.")


class Halt(StatusModel):
    """The latch: why a revision is kept at weight 0 until somebody says retry."""

    revision: str = Field(description="The condemned revision.")
    reason: Reason = Field(description="Why it was stopped, in one word.")
    rule: str = Field("", description="Halt rule, or empty when none was the cause.")
    message: str = Field(description="One sentence with the numbers.")
    stage: str = Field("", description="Stage it was stopped in.")
    weight: Weight = Field(0, description="Weight the canary served at when it was stopped.")
    at: Instant = Field(description="When it was stopped.")


class Pause(StatusModel):
    """Why the weight is held until a person says resume."""

    reason: Reason = Field(description="Why, in one word.")
    rule: str = Field("", description="Halt rule that asked for it, or empty.")
    message: str = Field(description="Why, in one sentence.")
    at: Instant = Field(description="Since when.")


class Lowering(StatusModel):
    """Why the weight was lowered although nothing failed; recorded before the route is written."""

    reason: Reason = Field(description="Why, in one word.")
    to: Weight = Field(description="Weight it goes down to.")
    at: Instant = Field(description="Since when.")


class StageClock(StatusModel):
    """Time the present weight has been held: ``held_ms`` up to ``since``, and running while ``since`` is set."""

    held_ms: int = Field(0, description="Milliseconds held up to since.")
    since: Instant | None = Field(None, description="Running since then; absent while it stands still.")

    def elapsed(self, now: float) -> float:
        """Seconds held up to ``now``."""
        running = max(0.0, now - self.since) if self.since is not None else 0.0
        return self.held_ms / 1000 + running

    def stopped(self, now: float) -> "StageClock":
        """The same time, no longer running."""
        return self if self.since is None else StageClock(held_ms=round(self.elapsed(now) * 1000), since=None)

    def started(self, at: float) -> "StageClock":
        """The same time, running from ``at``."""
        return self if self.since is not None else StageClock(held_ms=self.held_ms, since=at)


class Approval(StatusModel):
    """A person's yes to one stage; it expires."""

    stage: str = Field(description="Stage that may begin.")
    at: Instant = Field(description="When the yes was given.")


class RolloutState(StatusModel):
    """One revision's journey as the engine remembers it.

    ``wanted`` is the intent (persisted before a raise is written), ``confirmed`` the last weight the data plane proved.
    """

    phase: Phase = Field(Phase.IDLE, description="Where this revision's journey is.")
    revision: str = Field("", description="Revision being rolled out.")
    stable_revision: str = Field("", description="What stable was when this rollout began.")
    stage: str = Field("", description="Name of the stage whose hold is running, empty before the first.")
    wanted: Weight = Field(0, description="The intent, written down before the route is.")
    confirmed: Weight = Field(0, description="Last weight the data plane proved.")
    clock: StageClock = Field(default_factory=StageClock, description="Time the present weight has been held.")
    began_at: Instant | None = Field(None, description="When this revision was first seen.")
    serving_since: Instant | None = Field(None, description="When this revision first got a weight above 0.")
    pause: Pause | None = Field(None, description="Why the weight is held until somebody says resume.")
    lowering: Lowering | None = Field(None, description="Why the weight was lowered although nothing failed.")
    approval: Approval | None = Field(None, description="A person's yes to the next stage.")
    no_data_since: Instant | None = Field(None, description="Since when there are no numbers.")
    drain_until: Instant | None = Field(
        None, description="Until when requests under way may still end on the version they began on."
    )
    fresh_after: Instant | None = Field(None, description="Verdicts rest only on samples taken after this.")
    pin: Weight | None = Field(
        None, description="Weight of `kubectl canary start --weight`, to go to first and pause at."
    )
    override: Annotated[tuple[Stage, ...], PlainSerializer(_brief)] = Field(
        (), max_length=32, description="Stages of `kubectl canary start --stages`."
    )
    halts: tuple[Halt, ...] = Field((), max_length=MAX_HALTS, description="Condemned revisions, newest first.")
    heard: tuple[str, ...] = Field(
        (), max_length=MAX_HEARD, description="Ids of the latest consumed commands, newest first; a replay is ignored."
    )

    def halt_of(self, revision: str) -> Halt | None:
        """The latch on ``revision``, if there is one."""
        return next((halt for halt in self.halts if halt.revision == revision), None)


class CommandStatus(StatusModel):
    """The last command that was consumed, and what became of it."""

    id: str = Field(description="Id of the command.")
    command: str = Field(description="What was asked for, such as pause.")
    at: Instant = Field(description="When it was given.")
    by: str = Field("", description="Who gave it.")
    accepted: bool = Field(description="Whether it was carried out.")
    message: str = Field("", description="Why not, or what became of it.")


class HistoryEntry(StatusModel):
    """How one earlier revision ended."""

    revision: str = Field(description="The revision.")
    result: Literal["Succeeded", "RolledBack", "Halted", "Superseded"] = Field(
        description="Succeeded, RolledBack, Halted or Superseded."
    )
    reason: str = Field("", description="Why, in one word.")
    message: str = Field("", description="Why, in one sentence.")
    began_at: Instant | None = Field(None, description="When its rollout began.")
    ended_at: Instant = Field(description="When its rollout ended.")


class CanaryRolloutStatus(StatusModel):
    """Everything the operator says and remembers about one CanaryRollout."""

    observed_generation: int = Field(0, description="Generation of the spec this status speaks of.")
    phase: Phase = Field(Phase.IDLE, description="Where the rollout is.")
    message: str = Field("", description="Where the rollout is, why, and what happens next, in one sentence.")
    stage: str = Field("", description="Stage and its place, such as friendly (2/4).")
    weight: str = Field("0%", description="The canary's share of the traffic that is wanted now.")
    revision: str = Field("", description="Revision being rolled out, or the last one that was.")
    router: str = Field("", description="Router and how it serves, such as nginx (njs).")
    next_change: Instant | None = Field(None, description="When something changes next if nothing goes wrong.")
    conditions: tuple[ConditionStatus, ...] = Field(
        (),
        max_length=8,
        description="Ready, Reconciling and Stalled as kstatus means them; others only while they are true.",
    )
    verdicts: tuple[VerdictStatus, ...] = Field(
        (), max_length=MAX_VERDICTS, description="The last word of each rule, gate and test of the comparison."
    )
    inactive_rules: tuple[str, ...] = Field(
        (),
        max_length=MAX_VERDICTS,
        description="Halt rules whose series this app has never had; they ask nothing of it.",
    )
    halt: Halt | None = Field(None, description="Why this revision was stopped.")
    history: tuple[HistoryEntry, ...] = Field(
        (), max_length=MAX_HISTORY, description="How earlier revisions ended, newest first."
    )
    last_command: CommandStatus | None = Field(
        None, description="The last command that was consumed, and what became of it."
    )
    consumed: dict[str, str] = Field(default_factory=dict, description="Id of the last consumed command, by command.")
    evaluated_through: Instant | None = Field(None, description="The evidence below includes samples up to this time.")
    evidence: dict[str, Any] = Field(default_factory=dict, description="Persisted state of the rules.")
    place: dict[str, Any] = Field(
        default_factory=dict,
        description="Workload and router that the canary has its traffic by while a revision is under way; one that is "
        "moved elsewhere is left with all traffic on stable.",
    )
    rollout: RolloutState = Field(default_factory=RolloutState, description="The engine's memory.")

    def to_dict(self) -> dict[str, Any]:
        """The status as the API server stores it; absent instead of null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
