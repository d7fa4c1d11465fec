"""From evidence and counts to verdicts, each with its sentence (the table of the analysis method, section 2.5)."""

from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, sqrt
from typing import Final

from canary_rollout.analysis.sequential import wording
from canary_rollout.analysis.sequential.bounds import upper_error_rate, worse_by
from canary_rollout.analysis.sequential.cells import Totals
from canary_rollout.analysis.sequential.counts import Tick
from canary_rollout.analysis.sequential.eprocess import RatioProcess
from canary_rollout.analysis.sequential.latency import LatencyTest
from canary_rollout.analysis.sequential.limit import LimitProcess
from canary_rollout.analysis.sequential.policy import Policy, Test
from canary_rollout.analysis.sequential.stage import StageCounts
from canary_rollout.analysis.sequential.tenants import Tenants, counted
from canary_rollout.analysis.sequential.verdicts import PromotionGate, State, TestVerdict
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.model.measures import Action
from canary_rollout.model.units import FULL

RECEIVED_SHARE: Final = "received-share"
"""Rule under which a share far from the weight is reported; never a fail, since the tests use the share received."""

_MISSING_INTERVALS: Final = 3.0
_EXPECTED_REQUESTS: Final = 20.0
_MISMATCH: Final = 0.25
_MISMATCH_REQUESTS: Final = 1000.0
_SIGMAS: Final = 5.0
_SETTLED: Final = 180.0
_STAKE: Final = 0.5
_ALONE: Final = 0.05
"""Share of failed requests above which a canary that serves alone is held where nothing is known of stable."""
_ALONE_SIGMAS: Final = 4.0

_Lack = tuple[State, str]


@lru_cache(64)
def _needed(policy: Policy, test: Test) -> float:
    return log(1.0 / policy.alpha(test))


@dataclass(frozen=True, slots=True)
class Ruling:
    """Everything a verdict rests on, as of one tick."""

    policy: Policy
    stage: StageCounts
    errors: RatioProcess
    limit: LimitProcess | None
    latency: LatencyTest
    phi: float
    tenants: Tenants

    def needed(self, test: Test) -> float:
        """Return the evidence, as a logarithm, at which a test fails."""
        return _needed(self.policy, test)

    # -- verdicts ------------------------------------------------------------------------------------------------------

    def verdicts(self, tick: Tick) -> list[TestVerdict]:
        """Return the verdicts of the error test, the limit and the latency test, where they have something to look at."""
        missing = self._missing(tick)
        verdicts = []
        if self.policy.errors is not None:
            verdicts.append(self._of_errors(tick, missing, self.policy.errors))
        if self.limit is not None:
            verdicts.append(self._of_limit(self.limit, missing))
        if self.policy.latency is not None and self.latency.processes:
            verdicts.append(self._of_latency(missing, self.policy.latency))
        return verdicts + self._of_share(tick) if verdicts else verdicts

    def _of_errors(self, tick: Tick, missing: _Lack | None, action: Action) -> TestVerdict:
        needed, log_e = self.needed(Test.ERRORS), self.errors.log_e
        stage = self.stage.stage
        convincing = log_e >= needed and self.errors.totals[1] >= self.policy.min_errors
        if convincing and self._matters() and self._bears(needed):
            start = self.errors.strongest()
            totals = self.errors.since(start)
            ratio = worse_by(totals, self.policy.tolerance, self.phi, needed - log(start.weight * _STAKE))
            text = wording.worse(totals, "failed", self.policy.alpha(Test.ERRORS), ratio)
            if action is Action.ROLLBACK and (why := self._unsafe(tick)):
                action, text = Action.PAUSE, f"{text}; {why}"
            return TestVerdict(
                Test.ERRORS, Outcome.FAIL, State.BAD, action, text, _share(totals), _other(totals), ratio, totals.n1
            )
        if missing is None and not self._control():
            missing = State.NO_CONTROL, "stable gets no requests, so there is nothing to compare with"
        missing = missing or self._too_few(stage.n1, "requests")
        if missing is None and log_e >= needed / 2:
            missing = State.SUSPECT, f"{wording.both(stage, 'failed')}: not clear yet whether the canary is worse"
        return _open(Test.ERRORS, action, missing, f"{wording.both(stage, 'failed')}: no sign that it is worse", stage)

    def _of_limit(self, limit: LimitProcess, missing: _Lack | None) -> TestVerdict:
        share, stage = limit.limit, self.stage.stage
        text = f"canary {wording.count(stage.e1)} of {wording.count(stage.n1)} requests failed, at most {wording.percent(share)} may"
        if limit.confirmed >= self.needed(Test.LIMIT):
            totals = limit.strongest()
            text = (
                f"canary {wording.count(totals.e1)} of {wording.count(totals.n1)} requests failed: at "
                f"{wording.percent(self.policy.alpha(Test.LIMIT))} false-alarm risk more than {wording.percent(share)} do"
            )
            other = _other(totals)
            if other is not None and (other > share or _share(totals) <= self.policy.tolerance * other):
                text += f", but so do stable's ({wording.count(totals.e2)} of {wording.count(totals.n2)})"
                return _open(Test.LIMIT, Action.ROLLBACK, (State.SHARED, text), text, totals)
            if totals.e1 >= self.policy.min_errors and max(_share(stage), _share(self.stage.recent)) > share:
                return TestVerdict(
                    Test.LIMIT, Outcome.FAIL, State.BAD, Action.ROLLBACK, text, _share(totals), other, None, totals.n1
                )
        missing = missing or self._too_few(stage.n1, "requests")
        if missing is None and limit.log_e >= self.needed(Test.LIMIT) / 2:
            missing = State.SUSPECT, text
        return _open(Test.LIMIT, Action.ROLLBACK, missing, text, stage)

    def _of_latency(self, missing: _Lack | None, action: Action) -> TestVerdict:
        needed, log_e = self.needed(Test.LATENCY), self.latency.log_e
        edge, totals, phi, weight = self.latency.worst()
        what = f"took over {wording.edge(edge)}"
        worse = _share(totals) - (_other(totals) or 0.0) >= self.policy.latency_floor
        if log_e >= needed and totals.e1 >= self.policy.min_errors and worse:
            ratio = worse_by(totals, self.policy.tolerance, phi, needed - log(weight * _STAKE))
            text = wording.worse(totals, what, self.policy.alpha(Test.LATENCY), ratio)
            return TestVerdict(
                Test.LATENCY, Outcome.FAIL, State.BAD, action, text, _share(totals), _other(totals), ratio, totals.n1
            )
        if missing is None and not self._control():
            missing = State.NO_CONTROL, "stable gets no requests, so there is nothing to compare with"
        missing = missing or self._too_few(self.latency.stage_requests, "timed requests")
        if missing is None and log_e >= needed / 2:
            missing = State.SUSPECT, f"{wording.both(totals, what)}: not clear yet whether the canary is slower"
        return _open(Test.LATENCY, action, missing, f"{wording.both(totals, what)}: no sign that it is slower", totals)

    def _of_share(self, tick: Tick) -> list[TestVerdict]:
        stage, weight = self.stage.stage, self.stage.weight or 0
        both = stage.n1 + stage.n2
        young = tick.at - self.stage.began < _SETTLED
        if young or not 0 < weight < FULL or both < _MISMATCH_REQUESTS or stage.n1 <= 0:
            return []
        share, wanted = stage.n1 / both, weight / FULL
        by_chance = _SIGMAS * sqrt(both * wanted)
        if abs(share / wanted - 1.0) <= _MISMATCH or abs(stage.n1 - both * wanted) <= by_chance:
            return []
        text = (
            f"canary got {wording.percent(share)} of {wording.count(both)} requests instead of {wording.percent(wanted)}; "
            "the tests reckon with the share received"
        )
        return [
            TestVerdict(
                RECEIVED_SHARE, Outcome.PASS, State.SPLIT_MISMATCH, Action.ALERT, text, share, None, None, stage.n1
            )
        ]

    # -- what is missing -----------------------------------------------------------------------------------------------

    def _missing(self, tick: Tick) -> _Lack | None:
        if tick.at - self.stage.complete_at > 0:
            age = tick.at - self.stage.complete_at
            return State.NO_DATA, f"no new samples for {age:.0f} s; evidence is frozen"
        waited = tick.at - self.stage.canary_at
        if self.stage.expected >= _EXPECTED_REQUESTS and waited >= _MISSING_INTERVALS * self.policy.interval:
            return State.NO_TRAFFIC, (
                f"no canary request for {waited:.0f} s, {self.stage.expected:.0f} were to be expected: routing or "
                "scraping of the canary is broken"
            )
        return None

    def _too_few(self, requests: float, what: str) -> _Lack | None:
        if requests >= self.policy.min_requests:
            return None
        return State.NOT_ENOUGH, (
            f"canary had {wording.count(requests)} of the {wording.count(self.policy.min_requests)} {what} that "
            "promotion needs in this stage"
        )

    def _control(self) -> bool:
        """Return whether stable gets requests to compare with."""
        if (self.stage.weight or 0) >= FULL:
            return False
        recent = self.stage.recent
        return recent.n2 > 0 or recent.n1 == 0

    def _matters(self) -> bool:
        """Return whether the difference of the error shares is large enough, over the stage or the last minutes."""
        floor = self.policy.floor
        return any(
            totals.n1 > 0 and _share(totals) - (_other(totals) or 0.0) >= floor
            for totals in (self.stage.stage, self.stage.recent)
        )

    def _bears(self, needed: float) -> bool:
        """Return whether the counts since a start that carries the evidence are themselves beyond the tolerance.

        Evidence is gained tick by tick. A late or lost scrape in an outage that both versions share puts the canary's
        requests into other ticks than their errors; over the whole time the counts tell that it was shared.
        """
        strong = [start for start in self.errors.starts if start.weight * start.value >= exp(needed)]
        return any(
            totals.n1 > 0 and _share(totals) > self.policy.tolerance * (_other(totals) or 0.0)
            for totals in map(self.errors.since, [self.errors.strongest(), *strong])
        )

    def _unsafe(self, tick: Tick) -> str:
        """Return why a sticky stage must not be rolled back on this; empty when it may."""
        if not tick.sticky or (self.tenants.known and any(counted(pod) for pod in tick.canary)):
            return ""
        return (
            "users stay with a version here and their past on stable is not counted, so one user who always fails would "
            "look the same: paused instead of rolled back"
        )

    # -- the gate ------------------------------------------------------------------------------------------------------

    def gate(self, verdicts: tuple[TestVerdict, ...]) -> PromotionGate:
        """Return whether the rollout may go on."""
        risk = self.policy.false_rollback_rate
        upper = upper_error_rate(self.stage.requests, self.stage.errors, risk)
        excluded = f"error rates above {wording.at_most(upper)} are excluded at {wording.percent(risk)} risk"
        if upper >= 1.0:
            excluded = "no error rate can be excluded"
        for verdict in verdicts:
            if verdict.action is not Action.ALERT and _holds(verdict):
                return PromotionGate(False, upper, f"{verdict.rule}: {verdict.message}; {excluded}")  # noqa: FBT003 - see the docstring
        lack = self._too_few(self.stage.stage.n1, "requests")
        if lack is not None:
            return PromotionGate(False, upper, f"{lack[1]}; {excluded}")  # noqa: FBT003
        if worse := self._worse_alone():
            return PromotionGate(False, upper, f"{worse}; {excluded}")  # noqa: FBT003
        certify = self.policy.certify
        if certify is not None and upper > certify:
            text = f"only {excluded}, and {wording.percent(certify)} is to be certified"
            return PromotionGate(False, upper, text)  # noqa: FBT003
        return PromotionGate(True, upper, f"{wording.both(self.stage.stage, 'failed')}; {excluded}")  # noqa: FBT003

    def _worse_alone(self) -> str:
        """Return why a canary that serves everything is not promoted on what it did in the last minutes; empty if nothing.

        No test speaks here: there is no concurrent stable, only what it did in this rollout before. So this holds and
        never rolls back, and an incident holds it for as long as it lasts.
        """
        recent, before = self.stage.recent, self.errors.totals
        if self._control() or recent.n1 <= 0:
            return ""
        usual = before[3] / before[2] if before[2] > 0 else None
        expected = recent.n1 * (
            _ALONE if usual is None else max(self.policy.tolerance * usual, usual + self.policy.floor)
        )
        excess = recent.e1 - expected
        if excess < self.policy.min_errors or excess < _ALONE_SIGMAS * sqrt(self.phi * expected):
            return ""
        text = f"canary {wording.count(recent.e1)} of {wording.count(recent.n1)} requests failed in the last minutes"
        beside = "nothing is known of stable" if usual is None else f"stable had {wording.percent(usual)} before"
        return f"{text}, and {beside}"


def _holds(verdict: TestVerdict) -> bool:
    return verdict.outcome is Outcome.FAIL or verdict.state in {
        State.NO_DATA,
        State.NO_TRAFFIC,
        State.SHARED,
        State.SUSPECT,
    }


def _open(test: Test, action: Action, missing: _Lack | None, text: str, totals: Totals) -> TestVerdict:
    """A verdict that is no fail: none with its reason, or pass."""
    share = _share(totals) if totals.n1 > 0 else None
    if missing is not None:
        return TestVerdict(test, Outcome.NONE, missing[0], action, missing[1], share, _other(totals), None, totals.n1)
    return TestVerdict(test, Outcome.PASS, State.OK, action, text, share, _other(totals), None, totals.n1)


def _share(totals: Totals) -> float:
    return totals.e1 / totals.n1 if totals.n1 > 0 else 0.0


def _other(totals: Totals) -> float | None:
    return totals.e2 / totals.n2 if totals.n2 > 0 else None
