"""The comparison of one rollout: ticks in, verdicts and the promotion gate out, evidence that survives a restart."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, inf
from typing import Any, Final

from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.sequential.arrivals import Freshness, merged, not_shared
from canary_rollout.analysis.sequential.cells import Totals
from canary_rollout.analysis.sequential.counts import Tick
from canary_rollout.analysis.sequential.dispersion import Dispersion
from canary_rollout.analysis.sequential.eprocess import RESTART_EVERY, RatioProcess
from canary_rollout.analysis.sequential.latency import LatencyTest
from canary_rollout.analysis.sequential.limit import LimitProcess
from canary_rollout.analysis.sequential.policy import Policy, Test
from canary_rollout.analysis.sequential.ruling import Ruling
from canary_rollout.analysis.sequential.stage import StageCounts, totals_of
from canary_rollout.analysis.sequential.tenants import Tenants
from canary_rollout.analysis.sequential.verdicts import PromotionGate, State, TestVerdict, WindowTest
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.model.measures import Action
from canary_rollout.model.units import FULL

BLOCK: Final = 60.0
"""Seconds after which a block of the dispersion ends, and with it what a checkpoint holds."""

LONGEST_BLOCK: Final = 300.0
REBUILD: Final = 300.0
"""Seconds before a checkpoint from which ticks are fed again, so that windows and counters are whole."""

_FORMAT: Final = 1
_AFTER_FULL: Final = 2
_MOST_LATCHED: Final = 32


class Comparison:
    """Compares a canary with stable, tick by tick, at a false-alarm rate that holds however often one looks.

    Feed stable's past with :meth:`history`, then every tick, in order, with :meth:`step`. A fail is final: it is not taken
    back when the evidence falls. After a restart, :meth:`restore` and feed again every tick after :attr:`replay_from`:
    the verdicts are the same.

    Args:
        policy: what the user decided.
        windows: tests that look at windows (gauges, history).
    """

    def __init__(self, policy: Policy, windows: Sequence[WindowTest] = ()) -> None:
        self._policy = policy
        self._windows = tuple(windows)
        self._errors = RatioProcess(policy.tolerance)
        self._limit = LimitProcess(policy.max_error_rate) if policy.max_error_rate is not None else None
        self._latency = LatencyTest(policy.tolerance)
        self._freshness = Freshness()
        self._spread = Dispersion()
        self._tenants = Tenants()
        self._stage = StageCounts()
        self._alone_until = 0
        self._began: float | None = None
        self._block_began: float | None = None
        self._through = -inf
        self._latched: dict[str, TestVerdict] = {}
        self._verdicts: tuple[TestVerdict, ...] = ()
        self._gate: PromotionGate | None = None
        self._sealed: dict[str, Any] = {}
        self._sealed_at = -inf
        self._rebuilding = False
        self._lookback = max([REBUILD, *(window.lookback for window in self._windows)])

    # -- ticks ---------------------------------------------------------------------------------------------------------

    def history(self, tick: Tick) -> None:
        """Take in a tick of stable's past: burst sizes, tails and tenants, no verdicts. ``tick.canary`` is not looked at.

        Leave out times at which a canary was serving; they would become the new normal.
        """
        self._gate = None
        self._tenants.learn(tick)
        for window in self._windows:
            window.past(tick)
        self._learn(tick)

    def step(self, tick: Tick) -> tuple[TestVerdict, ...]:
        """Take in a tick and return the verdicts of all tests that have something to look at.

        Args:
            tick: later than the tick before; an earlier or equal one is ignored, except that after :meth:`restore` ticks
                up to the checkpoint build the windows again.
        """
        if tick.at <= self._through:
            if self._rebuilding:
                for window in self._windows:
                    window.step(tick)
            return self._verdicts
        self._through, self._rebuilding, self._gate = tick.at, False, None
        if self._began is None:
            self._began = tick.at - self._policy.interval
            self._seal(self._began)
        merged_tick = replace(tick, canary=merged(tick.canary), stable=merged(tick.stable))
        if self._stage.take(merged_tick):
            self._latency.stage_requests = 0.0
        if tick.canary or tick.stable:
            self._evidence(merged_tick, self._tenants.odds(tick, self._policy.tolerance))
        self._verdicts = self._judge(tick)
        if tick.canary or tick.stable:
            self._restart(tick.at)
            self._learn(tick)
        return self._verdicts

    def gate(self) -> PromotionGate:
        """Return whether the evidence as of the last tick lets the rollout go on, and what it cannot exclude."""
        if self._gate is None:
            self._gate = self._ruling().gate(self._verdicts)
        return self._gate

    def _evidence(self, tick: Tick, odds_floor: float) -> None:
        index = self._errors.index + 1
        self._freshness.take(index, tick)
        if self._policy.latency is not None:
            self._latency.choose(tick, index - 1)
        phi = self._spread.phi
        if self._limit is not None:
            self._limit.take(totals_of(tick), phi)
        if tick.weight >= FULL:  # stable gets nothing; what it still reports is from before
            self._alone_until = index + _AFTER_FULL
        if index <= self._alone_until:
            tick = replace(tick, canary=(), stable=(), absent=0.0)
        self._errors.block = ceil(BLOCK / self._policy.interval) if self._spread.lasting else 1
        flow = self._freshness.flow(
            [(pod, pod.requests, pod.errors) for pod in tick.canary],
            [(pod, pod.requests, pod.errors) for pod in tick.stable],
            tick.absent,
        )
        self._errors.take(flow, phi, self._freshness.released, odds_floor)
        self._latency.take(tick, self._freshness)
        self._do_not_wait(tick, phi)

    def _do_not_wait(self, tick: Tick, phi: float) -> None:
        """Count errors at once where stable's pods that were scraped later show that they are the canary's own."""
        waiting = (
            frozenset(pod.pod for pod in tick.canary if pod.errors and pod.span == 1 and not pod.behind)
            - self._freshness.early
        )
        if not waiting or sum(pod.errors for pod in tick.canary) < phi:
            return
        previous = self._errors.ring[-2] if len(self._errors.ring) > 1 else None
        before = Totals(n2=previous.n2, e2=previous.e2) if previous is not None else Totals()
        needed = self._ruling().needed(Test.ERRORS)
        errors = not_shared(tick, waiting, before, self._policy.tolerance, phi, needed)
        if errors:
            self._errors.release(errors)

    def _restart(self, at: float) -> None:
        """Begin anew beside what was begun before, once however many restarts were missed: each would push an older one out."""
        if self._began is None or at < self._began + RESTART_EVERY * (self._errors.latest + 1):
            return
        missed = max(int((at - self._began) // RESTART_EVERY) - self._errors.latest, 1)
        self._errors.restart(self._errors.latest + missed)
        self._latency.restart(missed)
        if self._limit is not None:
            self._limit.restart(self._limit.latest + missed)

    def _learn(self, tick: Tick) -> None:
        """Dispersion from stable's pods; a block ends at a calm tick, so that a shared outage is in one block on all."""
        if self._block_began is None:
            self._block_began = tick.at
        self._spread.follow(tick.stable)
        calm = self._spread.add([(pod, pod.requests, pod.errors) for pod in tick.stable])
        if self._policy.latency is not None:
            calm = self._latency.watch(tick) and calm
        age = tick.at - self._block_began
        if age >= LONGEST_BLOCK or (age >= BLOCK and calm):
            self._seal(tick.at)

    def _seal(self, at: float) -> None:
        """End the block and note the state, to which a restart goes back."""
        self._block_began = at
        self._spread.close()
        self._latency.close()
        if self._began is not None:
            self._sealed, self._sealed_at = self._state(at), at

    # -- verdicts ------------------------------------------------------------------------------------------------------

    def _judge(self, tick: Tick) -> tuple[TestVerdict, ...]:
        verdicts = [self._latched.get(verdict.rule, verdict) for verdict in self._ruling().verdicts(tick)]
        for window in self._windows:
            verdicts += (self._latched.get(verdict.rule, verdict) for verdict in window.step(tick))
        for verdict in verdicts:
            if verdict.outcome is Outcome.FAIL and len(self._latched) < _MOST_LATCHED:
                self._latched.setdefault(verdict.rule, verdict)
        return tuple(verdicts)

    def _ruling(self) -> Ruling:
        return Ruling(
            self._policy, self._stage, self._errors, self._limit, self._latency, self._spread.phi, self._tenants
        )

    # -- persistence ---------------------------------------------------------------------------------------------------

    @property
    def replay_from(self) -> float:
        """POSIX seconds: after :meth:`restore`, feed every tick after this again. ``-inf``: from the beginning."""
        return self._sealed_at - self._lookback

    def checkpoint(self) -> dict[str, Any]:
        """Return the evidence as JSON (numbers, strings, lists), as of the end of the last block; under 9 KiB.

        Empty before the first tick; then :meth:`restore` begins anew.
        """
        return self._sealed

    def _state(self, at: float) -> dict[str, Any]:
        return {
            "v": _FORMAT,
            "at": at,
            "began": self._began,
            "alone": self._alone_until,
            "errors": self._errors.state(),
            "limit": self._limit.state() if self._limit is not None else None,
            "latency": self._latency.state(),
            "fresh": self._freshness.state(),
            "spread": self._spread.state(),
            "tenants": self._tenants.state(),
            "stage": self._stage.state(),
            "latched": [_to_json(verdict) for verdict in self._latched.values()],
        }

    @classmethod
    def restore(cls, policy: Policy, raw: Mapping[str, Any], windows: Sequence[WindowTest] = ()) -> "Comparison":
        """Return the comparison that :meth:`checkpoint` described. A limit that was changed since begins anew.

        Args:
            policy: what the user decided.
            raw: from :meth:`checkpoint`; ``{}`` begins anew.
            windows: tests that look at windows.

        Raises:
            EvidenceError: somebody else wrote it.
        """
        made = cls(policy, windows)
        if raw:
            try:
                made._load(raw)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise EvidenceError(
                    f"the comparison's evidence in status does not read ({error!r}); use retry or reset to begin anew"
                ) from error
        return made

    def _load(self, raw: Mapping[str, Any]) -> None:
        if raw["v"] != _FORMAT:
            raise ValueError(f"format {raw['v']}")
        policy = self._policy
        self._began = float(raw["began"])
        self._alone_until = int(raw["alone"])
        self._through = self._sealed_at = self._block_began = float(raw["at"])
        self._errors = RatioProcess.restore(raw["errors"], self._errors)
        if policy.max_error_rate is not None and raw["limit"] is not None:
            self._limit = LimitProcess.restore(raw["limit"], policy.max_error_rate)
        self._latency = LatencyTest.restore(raw["latency"], policy.tolerance)
        self._freshness = Freshness.restore(raw["fresh"])
        self._spread = Dispersion.restore(raw["spread"])
        self._tenants = Tenants.restore(raw["tenants"])
        self._stage = StageCounts.restore(raw["stage"])
        self._latched = {verdict.rule: verdict for verdict in map(_from_json, raw["latched"])}
        self._verdicts = tuple(self._latched.values())  # a fail holds before the first tick, too
        self._sealed, self._rebuilding = dict(raw), True


def _to_json(verdict: TestVerdict) -> list[Any]:
    numbers = [verdict.canary, verdict.stable, verdict.worse_by, verdict.requests]
    return [str(verdict.rule), verdict.state.value, verdict.action.value, verdict.message, *numbers]


def _from_json(raw: Sequence[Any]) -> TestVerdict:
    rule, state, action, message, *numbers = raw
    return TestVerdict(str(rule), Outcome.FAIL, State(state), Action(action), str(message), *numbers)
