"""Every rule, gate and test of one stage evaluated now, with what the operator remembers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog
from pydantic import ValidationError

from canary_rollout.analysis.comparing import Compared, policy_of
from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.rules import assess
from canary_rollout.analysis.verdict import Assessment, Lack, Outcome, Verdict
from canary_rollout.cli.asking import Subject
from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.controller import comparing
from canary_rollout.controller.running import Running, begin, restored
from canary_rollout.engine.draft import stages_of
from canary_rollout.metrics.port import Sampler
from canary_rollout.model.spec import Action, HaltRule, Stage
from canary_rollout.model.status import CanaryRolloutStatus, RolloutState


class Word(StrEnum):
    """What one rule or gate says, in one word."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    BREACHED = "BREACHED"
    """Beyond its bound, not yet for as long as it takes to fail."""
    NONE = "no verdict"
    INACTIVE = "inactive"
    """Says nothing about this app or this stage; holds nothing."""


@dataclass(frozen=True, slots=True)
class Line:
    """One verdict as it is shown.

    Attributes:
        kind: ``test``, ``rule``, ``exit gate``, ``entry gate`` or ``promotion``.
        decides: whether it could stop or hold the rollout; alerts and dry runs only tell.
    """

    kind: str
    verdict: Verdict
    word: Word
    decides: bool

    def to_dict(self) -> dict[str, Any]:
        """For ``-o json``: numbers as in the verdict, absent where there are none."""
        verdict = self.verdict
        numbers = {
            "canary": verdict.value,
            "stable": verdict.stable,
            "bound": verdict.threshold,
            "requests": verdict.requests,
        }
        return {
            "kind": self.kind,
            "name": verdict.rule,
            "verdict": verdict.outcome.value,
            "word": self.word.value,
            "decides": self.decides,
            **({"reason": str(verdict.lack)} if verdict.lack is not None else {}),
            **({"action": verdict.action.value} if verdict.action is not None else {}),
            **{key: value for key, value in numbers.items() if value is not None},
            "message": self.message,
        }

    @property
    def message(self) -> str:
        """The sentence without the rule's name in front."""
        return self.verdict.message.removeprefix(f"{self.verdict.rule}: ")


def stage_named(subject: Subject, name: str | None) -> Stage:
    """The stage that is asked about; default: the present one, else the first.

    Raises:
        CliError: there is no such stage.
    """
    state = state_of(subject)
    stages = stages_of(subject.spec, state)
    present = next((stage for stage in stages if stage.name == state.stage), None)
    if name is None:
        return present or stages[0]
    found = next((stage for stage in (*stages, *subject.spec.active_stages) if stage.name == name), None)
    if found is None:
        raise CliError(f"there is no stage {name}: there are {', '.join(stage.name for stage in stages)}", Exit.USAGE)
    return found


def state_of(subject: Subject) -> RolloutState:
    """What the operator remembers of the rollout; nothing where this program cannot read it."""
    return _status(subject).rollout


def _status(subject: Subject) -> CanaryRolloutStatus:
    try:
        return CanaryRolloutStatus.model_validate(subject.status)
    except ValidationError:
        return CanaryRolloutStatus()  # a newer operator wrote it: everything is asked afresh


@dataclass(slots=True)
class Evaluator:
    """Evaluates one stage again and again; remembers between two looks what the operator would.

    Attributes:
        subject: the rollout.
        stage: the stage.
    """

    subject: Subject
    stage: Stage | None
    evidence: Evidence = field(default_factory=Evidence)
    _running: Running | None = None

    def __post_init__(self) -> None:
        """Take up what the operator remembers, if a rollout is under way."""
        if state_of(self.subject).stage:
            try:
                self.evidence = Evidence.from_dict(_status(self.subject).evidence)
            except EvidenceError:
                self.evidence = Evidence()

    async def now(self, sampler: Sampler, now: float) -> Assessment:
        """Ask Prometheus, and judge (``now``: POSIX seconds)."""
        subject, state = self.subject, state_of(self.subject)
        key, interval = (subject.namespace, subject.name), subject.spec.metrics.interval
        request = subject.request(
            self.stage,
            revisions=("", state.revision),
            compared=subject.spec.analysis.enabled,
            began=state.began_at,
            phase=comparing.place_of(key, interval),
        )
        samples = await sampler.sample(request)
        compared = await self._compared(sampler, request, state, now)
        assessment, self.evidence = assess(subject.spec, self.stage, samples, self.evidence, now, compared)
        return assessment

    async def _compared(self, sampler: Sampler, request: Any, state: RolloutState, now: float) -> Compared | None:
        spec, key = self.subject.spec, (self.subject.namespace, self.subject.name)
        policy = policy_of(spec)
        if policy is None:
            return None
        latest = comparing.latest_tick(key, spec, now)
        if self._running is None:
            self._running = self._taken_up(policy, latest)
        self._running.weigh(state, now)
        with _quiet():
            wanted = comparing.Wanted(request, self.subject.created, latest)
            await comparing.compare(spec, self._running, sampler, wanted)
            return self._running.compared(latest)

    def _taken_up(self, policy: Any, latest: float) -> Running:
        if self.evidence.comparison:
            try:
                return restored(policy, policy.interval, self.evidence.comparison)
            except EvidenceError:
                pass  # somebody else wrote it: the comparison begins anew, which can only delay a verdict
        return begin(policy, policy.interval, latest)

    def lines(self, assessment: Assessment) -> list[Line]:
        """All verdicts, those that stop first."""
        rules = {rule.name: rule for rule in self.subject.spec.rules_for(self.stage)}
        found = [_line("test", verdict, None) for verdict in assessment.tests]
        found += [_line("rule", verdict, rules.get(verdict.rule)) for verdict in assessment.rules]
        found += [_line("exit gate", verdict, None) for verdict in assessment.exits]
        found += [_line(f"entry gate of {assessment.entering}", verdict, None) for verdict in assessment.entries]
        if assessment.promotion is not None:
            found.append(_line("promotion", assessment.promotion, None))
        return found


def _line(kind: str, verdict: Verdict, rule: HaltRule | None) -> Line:
    tells = verdict.action is Action.ALERT or (rule is not None and rule.dry_run)
    return Line(kind, verdict, _word(verdict), decides=not tells)


def _word(verdict: Verdict) -> Word:
    if verdict.outcome is Outcome.PASS:
        return Word.PASS
    if verdict.outcome is Outcome.FAIL:
        return Word.FAIL
    if verdict.breached_since is not None and verdict.lack is Lack.NOT_ENOUGH:
        return Word.BREACHED
    return Word.INACTIVE if verdict.lack is Lack.NOT_APPLICABLE else Word.NONE


def outcome_of(lines: list[Line]) -> str:
    """``fail``, ``none`` or ``pass`` of everything that decides; the worst wins."""
    words = {line.word for line in lines if line.decides}
    if words & {Word.FAIL, Word.BREACHED}:
        return "fail"
    return "none" if Word.NONE in words or not words - {Word.INACTIVE} else "pass"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the operator's log lines off standard output."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)
