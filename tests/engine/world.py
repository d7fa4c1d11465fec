"""A small world for the engine: two Deployments, a route, and a status that is persisted or lost."""

from dataclasses import dataclass, field, replace

from canary_rollout.analysis.readings import following
from canary_rollout.analysis.verdict import Assessment, Lack, Outcome, Verdict
from canary_rollout.engine.decide import decide
from canary_rollout.engine.decision import (
    CopyTemplate,
    Decision,
    HoldPause,
    Lower,
    Raise,
    ReleasePause,
    RestoreStable,
    ScaleCanary,
)
from canary_rollout.engine.draft import stage_of
from canary_rollout.engine.observation import Observation, VersionView
from canary_rollout.model.commands import Command, CommandArgs, Verb
from canary_rollout.model.conditions import Phase
from canary_rollout.model.route import RouteView
from canary_rollout.model.spec import Action, CanaryRolloutSpec
from canary_rollout.model.status import HistoryEntry, RolloutState
from canary_rollout.model.units import format_instant

V1, V2, V3 = "a" * 10, "b" * 10, "c" * 10


def stages(*changes):
    """The stages of :func:`spec`, as in the YAML, with what is changed in some: ``("second", {"hold": "30s"})``."""
    raw = [
        {"name": "first", "weight": "0.5%", "hold": "60s"},
        {"name": "second", "weight": "5%", "hold": "60s"},
        {"name": "third", "weight": "25%", "hold": "60s"},
        {"name": "all", "weight": "100%", "hold": "60s"},
    ]
    for name, more in changes:
        next(stage for stage in raw if stage["name"] == name).update(more)
    return raw


def spec(**changes) -> CanaryRolloutSpec:
    raw = {
        "workload": {
            "stable": {"service": "shop", "deployment": "shop"},
            "canary": {"service": "shop-canary", "deployment": "shop-canary"},
            "drain": "30s",
        },
        "traffic": {"nginx": {"service": "proxy"}},
        "metrics": {"prometheus": "http://prometheus:9090", "interval": "10s", "window": "60s"},
        "stages": stages(),
        "haltRules": [{"name": "error-rate", "preset": "error-rate", "above": "1%"}],
    }
    raw.update(changes)
    return CanaryRolloutSpec.model_validate(raw)


def verdict(outcome=Outcome.PASS, *, rule="error-rate", action=Action.ROLLBACK, lack=None, since=None) -> Verdict:
    return Verdict(rule, outcome, action, lack, 0.2, 0.0, 0.01, 240.0, since, f"{rule}: 20 % of 240 requests failed")


PASS = (verdict(),)
FAIL = (verdict(Outcome.FAIL),)
NO_DATA = (verdict(Outcome.NONE, lack=Lack.NO_DATA),)
NOT_ENOUGH = (verdict(Outcome.NONE, lack=Lack.NOT_ENOUGH),)


def ready(revision: str, **changes) -> VersionView:
    return replace(VersionView(True, revision, 2, 2, observed=True, settled=True), **changes)


@dataclass
class World:
    """Executes decisions the way the shell does, and lets a test interfere anywhere."""

    spec: CanaryRolloutSpec = field(default_factory=spec)
    state: RolloutState = field(default_factory=RolloutState)
    stable: VersionView = field(default_factory=lambda: ready(V1))
    canary: VersionView = field(default_factory=lambda: ready(V1))
    route: RouteView | None = None
    now: float = 1_000_000.0
    rules: tuple[Verdict, ...] | None = PASS
    exits: tuple[Verdict, ...] = ()
    entries: tuple[Verdict, ...] = ()
    tests: tuple[Verdict, ...] = ()
    promotion: Verdict | None = None
    share: tuple[float, float] | None = None
    commands: list[Command] = field(default_factory=list)
    at_start: bool = False
    no_raise: str = ""
    problems: tuple[str, ...] = ()
    reassert_at: float = 0.0
    failing_before: frozenset[str] = frozenset()
    step: int = 1
    confirms: bool = True
    events: list[str] = field(default_factory=list)
    history: list[HistoryEntry] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    consumed: set[str] = field(default_factory=set)
    answers: list[str] = field(default_factory=list)
    scaled: list[int] = field(default_factory=list)
    last: Decision | None = None
    version: int = 1

    def observe(self, *, evaluate: bool = True) -> Observation:
        seen = None
        if evaluate and self.rules is not None:
            share, requests = self.share or (None, 0.0)
            stage = stage_of(self.spec, self.state) if self.state.stage else None
            entering = following(self.spec, stage)
            seen = Assessment(
                self.now,
                self.rules,
                self.exits,
                share,
                requests,
                entering=entering.name if entering is not None else "",
                entries=self.entries,
                tests=self.tests,
                promotion=self.promotion,
            )
        return Observation(
            stable=self.stable,
            canary=self.canary,
            route=self.route,
            assessment=seen,
            commands=tuple(c for c in self.commands if c.id not in self.consumed),
            at_start=self.at_start,
            no_raise=self.no_raise,
            problems=self.problems,
            reassert_at=self.reassert_at,
            failing_before=self.failing_before,
            step=self.step,
        )

    def look(self, *, evaluate: bool = True) -> Decision:
        """One reconcile: decide, carry out, persist."""
        decision = decide(self.spec, self.state, self.observe(evaluate=evaluate), self.now)
        for action in decision.actions:
            self.do(action)
        self.persist(decision)
        self.at_start = False
        return decision

    def persist(self, decision: Decision) -> None:
        self.state = decision.state
        self.last = decision
        self.events += [note.reason for note in decision.notes]
        if decision.ended:
            self.history.insert(0, decision.ended)
        if decision.command:
            self.consumed.add(decision.command.id)
            self.answers.append(decision.command.message)

    def do(self, action) -> None:
        match action:
            case Lower(route, fence) | Raise(route, fence):
                if fence not in {None, str(self.version)}:
                    return
                self.version += 1
                self.route = RouteView(
                    route.weight,
                    route.revision,
                    route.cohort,
                    self.confirms,
                    self.now if self.confirms else None,
                    "" if self.confirms else "1 proxy",
                    route.latch,
                    "",
                    str(self.version),
                    "njs",
                    mirror=route.mirror,
                )
                self.weights.append(route.weight)
            case HoldPause():
                self.canary = replace(self.canary, paused=True, paused_by_us=True)
            case ReleasePause():
                self.canary = replace(self.canary, paused=False, paused_by_us=False, settled=True, available=2)
            case ScaleCanary(replicas):
                self.scaled.append(replicas)
                self.canary = replace(self.canary, replicas=replicas, available=replicas, settled=replicas > 0)
            case CopyTemplate(revision) | RestoreStable(revision):
                self.stable = ready(revision)

    def run(self, seconds: float = 0.0, *, looks: int = 200) -> "World":
        """Look until nothing is due before ``now + seconds``, moving the clock from one due time to the next."""
        end = self.now + seconds
        for _ in range(looks):
            decision = self.look()
            due = self.now if decision.actions else decision.wake_at
            if due is None or due > end:
                break
            self.now = max(self.now, due)
        else:
            raise AssertionError(f"did not come to rest: {self.state.phase} {self.last.message}")
        self.now = end
        return self

    def release(self, revision: str = V2) -> "World":
        """Somebody changes the canary's template; its pods come up at once unless the Deployment is paused."""
        held = self.canary.paused
        self.canary = replace(self.canary, revision=revision, settled=not held)
        return self

    def say(self, verb: Verb, *, revision: str | None = None, at: float | None = None, **args) -> "World":
        number = len(self.commands) + 1
        self.commands.append(
            Command(
                verb=verb,
                id=f"command-{number:04d}",
                revision=revision or self.state.revision,
                at=format_instant(self.now if at is None else at),
                args=CommandArgs(**args),
            )
        )
        return self

    def foreign(self, weight: int) -> "World":
        """Somebody else writes the route."""
        self.version += 1
        self.route = replace(
            self.route, weight=weight, confirmed=False, contested_by="kubectl-edit", resource_version=str(self.version)
        )
        return self

    def confirm(self, yes: bool = True) -> "World":
        """What the data plane says from now on, of this weight too."""
        self.confirms = yes
        self.route = replace(self.route, confirmed=yes, pending="" if yes else "1 proxy")
        return self

    @property
    def message(self) -> str:
        return self.last.message or ""

    @property
    def weight(self) -> int:
        return self.route.weight if self.route else 0


def at_stage(name: str = "second", **changes) -> World:
    """A world in which revision V2 is held at a stage."""
    world = World(**changes).run()
    world.release().run()
    order = [stage.name for stage in world.spec.stages]
    for _ in range(order.index(name)):
        world.run(60.0)
        world.run()
    assert world.state.stage == name, (world.state, world.last.message)
    return world


def preparing(**changes) -> World:
    """V2 has begun and its pods are not ready yet."""
    world = World(**changes).run()
    world.canary = replace(world.canary, revision=V2, settled=False, available=1)
    return world.run()


def rolled_back() -> World:
    world = at_stage("second")
    world.rules = FAIL
    world.run().run(31)
    assert world.state.phase is Phase.ROLLED_BACK
    world.rules = PASS
    return world
