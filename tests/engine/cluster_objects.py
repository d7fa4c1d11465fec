"""The objects of a cluster: what people and the data plane do to them, and what must hold when an operator does.

Nothing in here asks the engine what is right.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

from cluster_parts import NO_GATES, Deployment, Effect, Gates, shorter

from canary_rollout.analysis.readings import following
from canary_rollout.analysis.verdict import Assessment, Verdict
from canary_rollout.engine.draft import stage_of
from canary_rollout.engine.observation import Observation
from canary_rollout.model.commands import Command, CommandArgs, Verb
from canary_rollout.model.conditions import Phase
from canary_rollout.model.route import Route, RouteView
from canary_rollout.model.spec import CanaryRolloutSpec, Promotion
from canary_rollout.model.status import CanaryRolloutStatus, RolloutState
from canary_rollout.model.units import format_instant


@dataclass
class Objects:
    """Two Deployments, one route, one status and the commands; beside them the shadow that tells what has happened."""

    spec: CanaryRolloutSpec
    stable: Deployment
    canary: Deployment
    now: float = 1_700_000_000.0
    route: RouteView | None = None
    route_version: int = 1
    status: dict[str, Any] = field(default_factory=dict)
    status_version: int = 1
    commands: dict[Verb, Command] = field(default_factory=dict)
    log: dict[str, Command] = field(default_factory=dict)
    at_start: bool = True
    no_raise: str = ""
    problems: tuple[str, ...] = ()
    reassert_at: float = 0.0
    confirms: bool = True
    frozen: list[Effect] = field(default_factory=list)
    # the shadow: what has happened, told independently of the engine
    condemned: dict[str, float] = field(default_factory=dict)
    held: defaultdict[tuple[str, int], float] = field(default_factory=lambda: defaultdict(float))
    approvals: dict[str, float] = field(default_factory=dict)
    meddled: bool = False
    copied: str = ""
    emptied_at: float | None = None
    used: bool = False

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def known(self) -> CanaryRolloutStatus:
        return CanaryRolloutStatus.model_validate(self.status)

    @property
    def state(self) -> RolloutState:
        return self.known.rollout

    @property
    def weight(self) -> int:
        return self.route.weight if self.route else 0

    @property
    def mirror(self) -> int:
        return self.route.mirror if self.route else 0

    @property
    def copied_share(self) -> int:
        """What the stage that status names says of copies."""
        return next((stage.mirror or 0 for stage in self.stages if stage.name == self.state.stage), 0)

    @property
    def stages(self):
        return self.state.override or tuple(stage for stage in self.spec.stages if stage.enabled)

    def assess(self, rules: tuple[Verdict, ...], gates: Gates) -> Assessment:
        stage = stage_of(self.spec, self.state) if self.state.stage else None
        entering = following(self.spec, stage)
        return Assessment(
            self.now,
            rules,
            gates.exits,
            entering=entering.name if entering is not None else "",
            entries=gates.entries if entering is not None and entering.entry else (),
            tests=gates.tests,
            promotion=gates.promotion,
        )

    def observe(self, rules: tuple[Verdict, ...] | None, gates: Gates = NO_GATES) -> Observation:
        consumed = self.known.consumed
        commands = sorted(self.commands.values(), key=lambda command: (command.at, command.id))
        return Observation(
            stable=self.stable.view(),
            canary=self.canary.view(),
            route=self.route,
            problems=self.problems,
            assessment=None if rules is None else self.assess(rules, gates),
            commands=tuple(command for command in commands if consumed.get(command.verb) != command.id),
            at_start=self.at_start,
            no_raise=self.no_raise,
            reassert_at=self.reassert_at,
        )

    # -- effects, and what must hold at each ---------------------------------------------------------------------------

    def write_route(self, route: Route, fence: str | None, *, late: bool, lowering: bool) -> None:
        before = self.route
        if fence is not None and (before is None or fence != before.resource_version):
            return
        serves = route.weight + route.mirror > 0
        more = route.weight > self.weight or route.mirror > self.mirror
        rises = more or (serves and before and route.revision != before.revision)
        assert not (route.mirror and route.weight), "requests are copied before anybody is served"
        assert not (rises and lowering), f"a lowering raised {self.weight} to {route.weight} (late: {late})"
        if rises:
            assert route.revision not in self.condemned, "a condemned revision rises"
            assert fence is not None
            assert late or (route.weight <= self.state.wanted and route.revision == self.state.revision)
            assert late or route.mirror <= self.copied_share, "requests are copied in a mirroring stage alone"
            if not self.meddled:
                assert self.canary.pods == {route.revision}, "all its pods are of the revision that was judged"
                assert self.canary.paused, "no pods of another template can appear"
        self.set_route(route.weight, route.revision, route.cohort, route.latch, mirror=route.mirror)
        if serves:
            self.used, self.emptied_at = True, None

    def set_route(self, weight, revision, cohort, latch, contested_by: str = "", mirror: int = 0) -> None:
        self.route_version += 1
        confirmed = self.confirms and not contested_by
        view = RouteView(
            weight, revision, cohort, confirmed, None, "", latch, contested_by, str(self.route_version), "njs"
        )
        view = replace(view, mirror=mirror)
        self.route = replace(view, confirmed_at=self.now if confirmed else None, pending="" if confirmed else "1 proxy")
        self._note_emptied()

    def _note_emptied(self) -> None:
        if self.weight == self.mirror == 0 and self.route and self.route.confirmed and self.emptied_at is None:
            self.emptied_at = self.now

    def confirm(self, yes: bool) -> None:
        self.confirms = yes
        if self.route and not self.route.contested_by:
            self.route = replace(self.route, confirmed=yes, pending="" if yes else "1 proxy")
            self._note_emptied()

    def release_pause(self, *, late: bool) -> None:
        if late:
            self.meddled = True
        elif not self.meddled:
            self._lets_go()
        self.canary.go_on()

    def _lets_go(self) -> None:
        assert self.weight == self.mirror == 0, "pods of another template while the canary has weight"
        if self.used:
            assert self.emptied_at is not None, "the data plane has confirmed that it serves stable only"
            assert self.now - self.emptied_at >= shorter(self.spec.workload.drain), "requests under way end first"
            self.used = False

    def scale(self, replicas: int, *, late: bool) -> None:
        if late:
            return
        if replicas < self.canary.replicas:
            assert self.weight == self.mirror == 0
        self.canary.replicas = replicas

    def copy(self, revision: str, *, late: bool) -> None:
        if late:
            return  # an adapter's matter: it names the template it read
        assert self.state.phase is Phase.PROMOTING, "the intent is persisted before stable is touched"
        assert revision not in self.condemned
        assert self.spec.workload.promotion is Promotion.COPY_TEMPLATE
        self.copied = revision
        self.stable.change(revision)

    def restore(self, revision: str, *, late: bool) -> None:
        if not late:
            self.stable.change(revision)

    def check(self) -> None:
        """What must hold between any two effects."""
        agrees = self.weight == 0 or (self.route is not None and self.canary.pods == {self.route.revision})
        if agrees and self.canary.paused:
            self.meddled = False
        if self.weight > 0 and not self.meddled and self.route and self.route.revision:
            assert self.canary.pods == {self.route.revision}, "a new revision never serves at the old one's weight"

    # -- the rest of the world -----------------------------------------------------------------------------------------

    def edit(self, spec: CanaryRolloutSpec) -> None:
        self.spec = spec
        if spec.workload.promotion is Promotion.MANUAL:
            self.copied = ""  # from now on stable's template is somebody else's

    def wait(self, seconds: float) -> None:
        route = self.route
        if route is not None and route.confirmed and route.weight > 0:
            self.held[route.revision, route.weight] += seconds
        self.now = round(self.now + seconds, 3)

    def say(self, verb: Verb, *, revision: str = "", at: float | None = None, **args) -> None:
        command = self.commands[verb] = Command(
            verb=verb,
            id=f"command-{len(self.log):05d}",
            revision=revision or self.state.revision or self.canary.template,
            at=format_instant(self.now if at is None else at),
            args=CommandArgs(**args),
        )
        self.log[command.id] = command

    def of(self, identity: str) -> Command:
        """A command that was ever given."""
        return self.log[identity]

    def foreign_weight(self, weight: int) -> None:
        if self.route is not None:
            route = self.route
            self.set_route(
                weight, route.revision, route.cohort, route.latch, contested_by="kubectl-edit", mirror=route.mirror
            )
            self.meddled = self.meddled or weight > 0
            if not self.status:
                self.used = False  # nobody knows any more that it was

    def lose_status(self) -> None:
        self.status, self.status_version = {}, self.status_version + 1
        self.at_start = True
        latch = self.route.latch if self.route else None
        kept = latch.revision if latch else ""
        self.condemned = {revision: at for revision, at in self.condemned.items() if revision == kept}
        self.approvals.clear()
        self.held.clear()
        self.copied = ""
        self.frozen = []
        if self.weight == 0:
            self.used = False

    def lose_latch(self) -> None:
        if self.route is None or self.route.latch is None or self.state.halt_of(self.route.latch.revision) is None:
            return
        self.route_version += 1
        self.route = replace(self.route, latch=None, resource_version=str(self.route_version))
