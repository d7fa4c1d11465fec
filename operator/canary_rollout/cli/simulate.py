"""The operator in virtual time: the very engine, analysis and comparison, with a data plane that has every weight at once."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from canary_rollout.analysis.comparing import Compared, policy_of
from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.readings import CounterReadings
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.verdict import Assessment, Outcome
from canary_rollout.cli.errors import CliError
from canary_rollout.cli.history import Past
from canary_rollout.cli.instant import Instant, at_rest
from canary_rollout.controller.running import Running, begin
from canary_rollout.engine.decide import decide
from canary_rollout.engine.decision import Decision
from canary_rollout.engine.draft import stages_of
from canary_rollout.engine.observation import Observation, VersionView
from canary_rollout.model.commands import Command, Verb
from canary_rollout.model.conditions import Phase
from canary_rollout.model.presets import TRAFFIC_SHARE
from canary_rollout.model.spec import CanaryRolloutSpec, Stage
from canary_rollout.model.status import RolloutState
from canary_rollout.model.units import format_weight

STABLE = "5ab1e00000"
CANARY = "ca4a40000f"
MOST_DECISIONS = 50
"""Decisions at one moment; the real one comes to rest after a handful."""
OVER = frozenset(
    {Phase.PROMOTING, Phase.AWAITING_PROMOTION, Phase.SUCCEEDED, Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.HALTED}
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that would have happened.

    Attributes:
        at: POSIX seconds.
        kind: ``weight``, ``note`` or ``verdict``.
        stage: the stage it would have been in.
        weight: basis points wanted from then on.
        message: for people.
        rule: the rule it is about; empty for none.
        warning: whether somebody would have been told.
    """

    at: float
    kind: str
    stage: str
    weight: int
    message: str
    rule: str = ""
    warning: bool = False


@dataclass(slots=True)
class Simulation:
    """One rollout in virtual time.

    Attributes:
        spec: the effective spec.
        approve: whether a person says yes to every stage that asks.
        resume: whether a person says resume as soon as something pauses.
    """

    spec: CanaryRolloutSpec
    approve: bool = True
    resume: bool = False
    state: RolloutState = field(default_factory=RolloutState)
    evidence: Evidence = field(default_factory=Evidence)
    running: Running | None = None
    events: list[Event] = field(default_factory=list)
    history: tuple[CounterReadings, ...] = ()
    _cluster: Instant = field(default_factory=lambda: Instant("backtest"))
    _appeared: bool = False
    _failing: frozenset[str] = frozenset()
    _message: str = ""

    def __post_init__(self) -> None:
        """Leave out what only the traffic of now can say: history's weights are not the ones wanted here."""
        rules = tuple(rule for rule in self.spec.rules_for(None) if rule.preset != TRAFFIC_SHARE)
        self.spec = self.spec.model_copy(update={"halt_rules": rules, "default_halt_rules": False})

    @property
    def over(self) -> bool:
        """Whether the rollout has come to its end."""
        return self.state.phase in OVER

    @property
    def stage(self) -> Stage | None:
        """The stage the rollout is in."""
        return next((stage for stage in stages_of(self.spec, self.state) if stage.name == self.state.stage), None)

    def begin(self, at: float) -> None:
        """See both versions alike, and then a new revision of the canary."""
        self._settle(at, None)
        self._appeared = True
        self._settle(at, None)

    async def tick(self, past: Past) -> Assessment:
        """Evaluate and decide as the operator would have at this moment; the verdicts."""
        at = past.samples.at
        compared = await self._compared(past.counters)
        assessment, self.evidence = assess(self.spec, self.stage, past.samples, self.evidence, at, compared)
        assessment = _without_share(assessment)
        self._tell_verdicts(at, assessment)
        if not self.over:
            self._settle(at, assessment)
        return assessment

    # -- the comparison ------------------------------------------------------------------------------------------------

    async def _compared(self, reading: CounterReadings | None) -> Compared | None:
        policy = policy_of(self.spec)
        if policy is None or reading is None or not self.state.stage:
            return None
        sticky = self.spec.traffic.sticky is not None
        running = self.running
        if running is None:
            running = self.running = begin(policy, self.spec.metrics.interval, reading.at)
            await running.learn([past for past in self.history if past.complete], sticky=sticky)
        running.weigh(self.state, reading.at)
        if reading.complete:
            await running.feed([reading], sticky=sticky)
        else:
            running.problem = reading.message
        return running.compared(reading.at)

    # -- the engine ----------------------------------------------------------------------------------------------------

    def _settle(self, now: float, assessment: Assessment | None) -> None:
        """Decide until nothing is due any more."""
        for _ in range(MOST_DECISIONS):
            decision = self._decide(now, assessment)
            if decision.restart_evidence:
                assessment = None
            if self.over or at_rest(decision, now):
                return
        raise CliError(f"the engine did not come to rest at {now:.0f}: {self._message}")

    def _decide(self, now: float, assessment: Assessment | None) -> Decision:
        before = self.state
        seen = Observation(
            stable=_version(STABLE),
            canary=replace(
                _version(CANARY if self._appeared else STABLE),
                paused=self._cluster.paused,
                paused_by_us=self._cluster.paused,
            ),
            route=self._cluster.route,
            assessment=assessment,
            commands=tuple(self._commands(now)),
            failing_before=self._failing,
        )
        decision = decide(self.spec, before, seen, now)
        self.state = decision.state
        for action in decision.actions:
            self._cluster.do(action, now)  # scaling and copying: pods were there when they were there
        if decision.restart_evidence:
            begins = decision.state.began_at != before.began_at
            self.evidence = self.evidence.afresh(self.spec.metrics, new_revision=begins, at=now)
            self.running = None
        self._tell(now, before, decision)
        return decision

    def _commands(self, now: float) -> Iterator[Command]:
        """What a person who watches would say."""
        said = [
            verb
            for verb, wanted in (
                (Verb.APPROVE, self.approve and self.state.phase is Phase.AWAITING_APPROVAL),
                (Verb.RESUME, self.resume and self.state.pause is not None),
            )
            if wanted
        ]
        for verb in said:
            yield Command(verb=verb, id=uuid.uuid4().hex, revision=CANARY, at=now, by="backtest")

    # -- telling -------------------------------------------------------------------------------------------------------

    def _tell(self, now: float, before: RolloutState, decision: Decision) -> None:
        state = decision.state
        self._message = decision.message or self._message
        if state.wanted != before.wanted:
            words = f"{format_weight(before.wanted)} -> {format_weight(state.wanted)}"
            self.events.append(Event(now, "weight", state.stage, state.wanted, words))
        halt = state.halts[0] if state.halts and state.halts != before.halts else None
        for note in decision.notes:
            rule = halt.rule if halt is not None else state.pause.rule if state.pause and not before.pause else ""
            self.events.append(
                Event(now, "note", before.stage or state.stage, state.wanted, note.message, rule, note.warning)
            )

    def _tell_verdicts(self, now: float, assessment: Assessment) -> None:
        failing = {verdict.rule: verdict for verdict in assessment.stops if verdict.outcome is Outcome.FAIL}
        for rule in failing.keys() - self._failing:
            message = failing[rule].message.removeprefix(f"{rule}: ")
            self.events.append(Event(now, "verdict", self.state.stage, self.state.wanted, message, rule, warning=True))
        self._failing = frozenset(failing)

    @property
    def message(self) -> str:
        """The sentence the status would have held last."""
        return self._message


def _version(revision: str) -> VersionView:
    """Pods that are all there, as they were when their numbers were taken."""
    return VersionView(exists=True, revision=revision, replicas=1, available=1, observed=True, settled=True)


def _without_share(assessment: Assessment) -> Assessment:
    return replace(assessment, received_share=None, received_requests=0.0)
