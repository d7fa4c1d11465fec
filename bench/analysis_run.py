"""One simulated rollout through the product's comparison and through the peers' rules."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from analysis_peers import RULES
from analysis_scenarios import Scenario
from analysis_scrapes import Weight, simulate

from canary_rollout.analysis.gauges import GaugeTest
from canary_rollout.analysis.history import HistoryTest
from canary_rollout.analysis.sequential import Comparison, Policy, Test, TestVerdict, Tick
from canary_rollout.analysis.sequential.replay import Change, Replay
from canary_rollout.analysis.verdict import Outcome
from canary_rollout.model.measures import Action

OURS = "CanaryRollout"


@dataclass(slots=True)
class Result:
    """What came of one rollout: by rule the second of the rollback (None: none), and what the canary broke until then."""

    scenario: str
    seed: int
    number: int
    rollbacks: dict[str, float | None] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    fails: dict[str, float] = field(default_factory=dict)
    """First fail of each of the product's tests, whatever it does."""
    held: float | None = None
    """When a gauge was first suspected."""
    promote: bool | None = None
    message: str = ""
    ticks: int = 0
    cpu: float = 0.0
    slowest: float = 0.0


class Timed(Comparison):
    """The comparison, with the CPU of each evaluation counted."""

    ticks = 0
    cpu = 0.0
    slowest = 0.0

    def step(self, tick: Tick) -> tuple[TestVerdict, ...]:
        begin = time.thread_time()
        verdicts = super().step(tick)
        spent = time.thread_time() - begin
        self.ticks += 1
        self.cpu += spent
        self.slowest = max(self.slowest, spent)
        return verdicts


class Listener:
    """Notes what changes, until the product would have rolled back."""

    def __init__(self, result: Result, policy: Policy) -> None:
        self.result = result
        self.policy = policy
        self.over = False

    def take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if "grows by" in change.message and self.result.held is None:
                self.result.held = change.ts
            if self.over or change.outcome is not Outcome.FAIL:
                continue
            self.result.fails.setdefault(str(change.rule), change.ts)
            if self.policy.action(Test(change.rule.partition(":")[0])) is Action.ROLLBACK:
                self.result.rollbacks[OURS], self.result.message = change.ts, change.message
                self.over = True


def run(scenario: Scenario, seed: int, number: int = 0, tick: float = 15.0, policy: Policy | None = None) -> Result:
    """Simulate one rollout and judge it until the product rolls it back, or to the end."""
    policy = policy or Policy(interval=tick)
    scrapes = simulate(scenario, seed, number)
    result = Result(scenario.name, seed, number, {OURS: None})
    comparison = Timed(policy, (GaugeTest(policy), HistoryTest(policy)))
    replay = Replay(comparison, tick, warm_up=policy.warm_up)
    listener = Listener(result, policy)
    for event in scrapes.events():
        if isinstance(event, Weight):
            listener.take(replay.until(event.ts))
            replay.weight(event.ts, event.weight)
        else:
            listener.take(replay.until(event.ts if event.arrival is None else event.arrival))
            replay.add(event)
        if listener.over:
            break
    if not listener.over:
        listener.take(replay.finish())
        result.promote = replay.gate().promote
    result.ticks, result.cpu, result.slowest = comparison.ticks, comparison.cpu, comparison.slowest
    seen = scrapes.seen()
    result.rollbacks |= {name: rule(seen, scenario.stages) for name, rule in RULES.items()}
    for name, at in result.rollbacks.items():
        result.errors[name] = scrapes.errors_served(scenario.length if at is None else at)
    return result
