"""What the engine answers: the new state, what to do, what to say, when to look again."""

from dataclasses import dataclass

from canary_rollout.model.conditions import Reason
from canary_rollout.model.route import Route
from canary_rollout.model.status import CommandStatus, HistoryEntry, RolloutState


@dataclass(frozen=True, slots=True)
class Lower:
    """Write the route without waiting for anything: not above what is served now.

    Attributes:
        route: what to write.
        fence: resourceVersion the route must still have; ``None``: whatever it has. Taking everything away needs none. A
            lowering to more than nothing has one, since landed late, after a verdict, it would be a raise.
    """

    route: Route
    fence: str | None = None


@dataclass(frozen=True, slots=True)
class Raise:
    """Write the route; refused by the API server unless the object is still at ``fence``."""

    route: Route
    fence: str


@dataclass(frozen=True, slots=True)
class HoldPause:
    """Set ``spec.paused`` on the canary's Deployment, so that a new template makes no pods."""


@dataclass(frozen=True, slots=True)
class ReleasePause:
    """Give ``spec.paused`` of the canary's Deployment back."""


@dataclass(frozen=True, slots=True)
class ScaleCanary:
    """Give the canary's Deployment this many replicas."""

    replicas: int


@dataclass(frozen=True, slots=True)
class CopyTemplate:
    """Bring stable's pod template to the canary's ``revision``."""

    revision: str


@dataclass(frozen=True, slots=True)
class RestoreStable:
    """Bring stable's pod template back to ``revision``, which it had before a promotion that failed half-way."""

    revision: str


Action = Lower | Raise | HoldPause | ReleasePause | ScaleCanary | CopyTemplate | RestoreStable


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a Kubernetes Event and a log line."""

    reason: Reason
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of one :func:`canary_rollout.engine.decide.decide`.

    Attributes:
        state: the engine's memory from now on.
        actions: what to do, in this order; each is idempotent.
        latch: the state holds a new halt: send it by itself, together with the lowering, neither waiting for the other.
        notes: events.
        ended: how a revision ended just now, for the history.
        command: the command consumed just now and what became of it.
        restart_evidence: rules start afresh (their memory is dropped).
        wake_at: POSIX seconds of the next look if nothing happens; ``None``: only when something happens. The same time
            as ``now`` means: right after this decision is persisted.
        next_change: POSIX seconds when the weight changes if all goes well, for people.
        reason: the one word for where the rollout is.
        message: the one sentence for where the rollout is, why, and what happens next; holds no number that changes by itself;
            ``None``: reason, message and next change stay as they were.
        stalled: whether nothing will move without a person mending something.
        evaluating: whether the rollout wants its rules evaluated at every interval.
    """

    state: RolloutState
    actions: tuple[Action, ...]
    latch: bool
    notes: tuple[Note, ...]
    ended: HistoryEntry | None
    command: CommandStatus | None
    restart_evidence: bool
    wake_at: float | None
    next_change: float | None
    reason: Reason
    message: str | None
    stalled: bool
    evaluating: bool
