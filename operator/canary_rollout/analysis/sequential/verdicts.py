"""What the comparison says, and the protocol of the tests that look at windows."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

from canary_rollout.analysis.sequential.counts import Tick
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.model.measures import Action


class State(StrEnum):
    """Why a test says what it says."""

    OK = "Ok"
    """Enough requests, and nothing speaks against the canary."""
    BAD = "Bad"
    """Worse than stable (or than the limit) beyond the tolerance. Latched."""
    SUSPECT = "Suspect"
    """Something speaks against the canary, not enough to stop it: no promotion meanwhile."""
    NOT_ENOUGH = "NotEnough"
    """Too few canary requests in this stage."""
    NO_DATA = "NoData"
    """No sample for three intervals, or the source did not answer: evidence is frozen."""
    NO_TRAFFIC = "NoTraffic"
    """Stable's traffic says the canary should have had requests, and it had none: routing or scraping is broken."""
    SHARED = "Shared"
    """The limit is broken on both versions: not the canary's fault."""
    NO_CONTROL = "NoControl"
    """Stable gets no requests, so there is nothing to compare with."""
    OFF = "Off"
    """No series for this test, or it is switched off."""
    SPLIT_MISMATCH = "SplitMismatch"
    """The canary's share of the requests is far from the weight. Worth an event; the tests reckon with the share."""


@dataclass(frozen=True, slots=True)
class TestVerdict:
    """One test's word at one tick.

    Attributes:
        rule: the test's name (:class:`~canary_rollout.analysis.sequential.policy.Test`); a gauge's name follows a colon.
        outcome: pass, fail or none. A fail stays.
        state: why.
        action: what a fail does.
        message: one sentence for a person, with the numbers.
        canary: the canary's share (errors, slow requests) or value, ``None`` when there is none.
        stable: stable's.
        worse_by: the canary is at least this many times worse, at the test's false-alarm risk; ``None`` unless it failed.
        requests: canary requests that this rests on.
    """

    __test__: ClassVar[bool] = False  # pytest collects by name

    rule: str
    outcome: Outcome
    state: State
    action: Action
    message: str
    canary: float | None = None
    stable: float | None = None
    worse_by: float | None = None
    requests: float | None = None


@dataclass(frozen=True, slots=True)
class PromotionGate:
    """Whether the evidence lets the rollout go on; stricter than "no test failed".

    Attributes:
        promote: whether it does.
        upper_error_rate: the largest error share of the canary that is not excluded yet, 0..1.
        message: one sentence for a person.
    """

    promote: bool
    upper_error_rate: float
    message: str


class WindowTest(Protocol):
    """A test that remembers nothing but the last minutes (gauges, history).

    After a restart its windows are built again from the same ticks: they are fed from ``lookback`` seconds before the
    point where the evidence goes on, and verdicts of that time are not looked at. A fail is latched by the caller.
    """

    lookback: float
    """Seconds of ticks after which the test's state no longer depends on older ones."""

    def past(self, tick: Tick) -> None:
        """Take in a tick of stable's past, before the rollout; a restarted process is not given these again."""
        ...

    def step(self, tick: Tick) -> tuple[TestVerdict, ...]:
        """Take in a tick (in order of time, each once) and return the verdicts as of it; none when there is no series."""
        ...
