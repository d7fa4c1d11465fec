"""``status`` of a CanaryRollout: what people read, and the engine's whole memory (nothing else is remembered anywhere)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Stage
from canary_rollout.model.units import WEIGHT_PATTERN, Instant, format_weight, parse_weight

MAX_HALTS = 10
MAX_HISTORY = 10

Weight = Annotated[
    int,
    # Inside, weights are basis points already; outside they are strings as in the spec.
    BeforeValidator(lambda value: value if type(value) is int else parse_weight(value)),
    PlainSerializer(format_weight, return_type=str),
    WithJsonSchema({"type": "string", "pattern": WEIGHT_PATTERN, "maxLength": 7}),
]


class StatusModel(BaseModel):
    """Base of every part of the status: camelCase outside; unknown fields (of a newer version) are dropped."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class ConditionStatus(StatusModel):
    """One entry of ``status.conditions`` as kstatus, Argo CD and ``kubectl wait`` read it."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    last_transition_time: Instant
    observed_generation: int = 0


class VerdictStatus(StatusModel):
    """The last word of one rule or gate, refreshed when its outcome changes and every five minutes."""

    rule: str
    verdict: Literal["pass", "fail", "none"]
    reason: str = Field("", description="Why there is no verdict: NoData, NotEnough or NotApplicable.")
    message: str = ""
    breached_since: Instant | None = Field(None, description="First sample of the present unbroken breach.")


class Halt(StatusModel):
    """The latch: why a revision is kept at weight 0 until somebody says retry."""

    revision: str
    reason: Reason
    rule: str = Field("", description="Halt rule, or empty when none was the cause.")
    message: str = Field(description="One sentence with the numbers.")
    stage: str = ""
    weight: Weight = Field(0, description="Weight the canary served at when it was stopped.")
    at: Instant


class Pause(StatusModel):
    """Why the weight is held until a person says resume."""

    reason: Reason
    rule: str = ""
    message: str
    at: Instant


class Lowering(StatusModel):
    """Why the weight was lowered although nothing failed; recorded before the route is written."""

    reason: Reason
    to: Weight
    at: Instant


class StageClock(StatusModel):
    """Time the present weight has been held: ``held_ms`` up to ``since``, and running while ``since`` is set."""

    held_ms: int = 0
    since: Instant | None = None

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

    stage: str
    at: Instant


class RolloutState(StatusModel):
    """One revision's journey as the engine remembers it.

    ``wanted`` is the intent (persisted before a raise is written), ``confirmed`` the last weight the data plane proved.
    """

    phase: Phase = Phase.IDLE
    revision: str = ""
    stable_revision: str = Field("", description="What stable was when this rollout began.")
    stage: str = Field("", description="Name of the stage whose hold is running, empty before the first.")
    wanted: Weight = 0
    confirmed: Weight = 0
    clock: StageClock = Field(default_factory=StageClock)
    began_at: Instant | None = Field(None, description="When this revision was first seen.")
    serving_since: Instant | None = Field(None, description="When this revision first got a weight above 0.")
    pause: Pause | None = None
    lowering: Lowering | None = None
    approval: Approval | None = None
    no_data_since: Instant | None = None
    drain_until: Instant | None = None
    fresh_after: Instant | None = Field(None, description="Verdicts rest only on samples taken after this.")
    pin: Weight | None = Field(
        None, description="Weight of `kubectl canary start --weight`, to go to first and pause at."
    )
    override: tuple[Stage, ...] = Field((), max_length=32, description="Stages of `kubectl canary start --stages`.")
    halts: tuple[Halt, ...] = Field((), max_length=MAX_HALTS, description="Condemned revisions, newest first.")

    def halt_of(self, revision: str) -> Halt | None:
        """The latch on ``revision``, if there is one."""
        return next((halt for halt in self.halts if halt.revision == revision), None)


class CommandStatus(StatusModel):
    """The last command that was consumed, and what became of it."""

    id: str
    command: str
    at: Instant
    by: str = ""
    accepted: bool
    message: str = ""


class HistoryEntry(StatusModel):
    """How one earlier revision ended."""

    revision: str
    result: Literal["Succeeded", "RolledBack", "Halted", "Superseded"]
    reason: str = ""
    message: str = ""
    began_at: Instant | None = None
    ended_at: Instant


class CanaryRolloutStatus(StatusModel):
    """Everything the operator says and remembers about one CanaryRollout."""

    observed_generation: int = 0
    phase: Phase = Phase.IDLE
    message: str = Field("", description="Where the rollout is, why, and what happens next, in one sentence.")
    stage: str = Field("", description="Stage and its place, such as friendly (2/4).")
    weight: str = Field("0%", description="The canary's share of the traffic that is wanted now.")
    revision: str = Field("", description="Revision being rolled out, or the last one that was.")
    router: str = Field("", description="Router and how it serves, such as nginx (njs).")
    next_change: Instant | None = Field(None, description="When something changes next if nothing goes wrong.")
    conditions: tuple[ConditionStatus, ...] = Field((), max_length=8)
    verdicts: tuple[VerdictStatus, ...] = Field((), max_length=64)
    halt: Halt | None = Field(None, description="Why this revision was stopped.")
    history: tuple[HistoryEntry, ...] = Field((), max_length=MAX_HISTORY)
    last_command: CommandStatus | None = None
    consumed: dict[str, str] = Field(default_factory=dict, description="Id of the last consumed command, by command.")
    evaluated_through: Instant | None = Field(None, description="The evidence below includes samples up to this time.")
    evidence: dict[str, Any] = Field(default_factory=dict, description="Persisted state of the rules.")
    rollout: RolloutState = Field(default_factory=RolloutState, description="The engine's memory.")

    def to_dict(self) -> dict[str, Any]:
        """The status as the API server stores it; absent instead of null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
