"""A cluster for the state machines: Deployments with pods, one route, one status; and what must hold, written down apart.

Nothing in here asks the engine what is right. Every effect of a decision is a step of its own, so an operator can die or
freeze between any two, and what a frozen one had in flight can land at any later time.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from canary_rollout.analysis.readings import following
from canary_rollout.analysis.verdict import Assessment, Lack, Outcome, Verdict
from canary_rollout.controller.persist import merge_diff
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
from canary_rollout.engine.report import Facts, report, worth_writing
from canary_rollout.model.commands import Command, CommandArgs, Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.route import Route, RouteView
from canary_rollout.model.spec import Action, CanaryRolloutSpec, Promotion
from canary_rollout.model.status import CanaryRolloutStatus, RolloutState
from canary_rollout.model.units import format_instant

SERVING = frozenset(
    {Phase.PROGRESSING, Phase.PAUSED, Phase.AWAITING_APPROVAL, Phase.PROMOTING, Phase.AWAITING_PROMOTION}
)
DAY = 86_400.0


def shorter(exact: float) -> float:
    """Status holds milliseconds; a hold may be short by that much."""
    return exact - 0.002


@dataclass
class Deployment:
    """A Deployment whose controller replaces pods when told to go on, unless it is paused."""

    template: str
    pods: frozenset[str] = frozenset()
    replicas: int = 2
    ready: bool = True
    crash: str = ""
    paused: bool = False
    paused_by_us: bool = False
    exists: bool = True
    observed: bool = True

    def __post_init__(self) -> None:
        self.pods = self.pods or frozenset({self.template})

    def change(self, template: str) -> None:
        self.template = template
        self._replace_some()

    def pause(self, *, by_us: bool) -> None:
        self.paused, self.paused_by_us = True, by_us

    def go_on(self) -> None:
        self.paused = self.paused_by_us = False
        self._replace_some()

    def _replace_some(self) -> None:
        if not self.paused:
            self.pods |= {self.template}

    def replace_all(self) -> None:
        if not self.paused:
            self.pods = frozenset({self.template})

    @property
    def settled(self) -> bool:
        return (
            self.exists
            and self.observed
            and self.ready
            and not self.crash
            and self.replicas > 0
            and self.pods == {self.template}
        )

    def view(self) -> VersionView:
        if not self.exists:
            return VersionView()
        available = 0 if not self.ready else self.replicas - (1 if self.crash else 0)
        return VersionView(
            exists=True,
            revision=self.template,
            replicas=self.replicas,
            available=max(0, available),
            observed=self.observed,
            settled=self.settled,
            paused=self.paused,
            paused_by_us=self.paused_by_us,
            crash=self.crash,
        )


Effect = Callable[["Cluster", bool], None]
"""One API call of a decision: told the cluster and whether it lands late."""


@dataclass(frozen=True)
class Gates:
    """What an evaluation says beside the halt rules."""

    exits: tuple[Verdict, ...] = ()
    entries: tuple[Verdict, ...] = ()
    tests: tuple[Verdict, ...] = ()
    promotion: Verdict | None = None


NO_GATES = Gates()


@dataclass
class Cluster:
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

    # -- the operator --------------------------------------------------------------------------------------------------

    def decide(self, seen: Observation) -> tuple[Decision, CanaryRolloutStatus]:
        before = self.known
        decision = decide(self.spec, before.rollout, seen, self.now)
        again = decide(self.spec, before.rollout, seen, self.now)
        assert decision == again, "decide is a function of its arguments"
        self._judge(before.rollout, seen, decision)
        assessment = None if decision.restart_evidence else seen.assessment
        facts = Facts(self.spec, 1, self.route, assessment, {}, self.now)
        return decision, report(before, decision, facts)

    def effects(self, decision: Decision, status: CanaryRolloutStatus) -> tuple[list[Effect], list[Effect]]:
        """Effects that go out together (of a new halt: latch and lowering), and those that follow in order."""
        write = self._status_write(decision, status)
        actions = [self._action(action) for action in decision.actions]
        if decision.latch:
            return [actions[0], write], actions[1:]
        return [], [*actions, write]

    def look(self, rules=None, gates=NO_GATES) -> Decision:
        """One whole reconcile."""
        decision, status = self.decide(self.observe(rules, gates))
        for effect in [effect for group in self.effects(decision, status) for effect in group]:
            effect(self, False)
        if decision.latch:
            self.condemned.setdefault(decision.state.revision, self.now)
        self.at_start = False
        self.check()
        if decision.latch:
            assert self.weight == self.mirror == 0, "a halt has lowered to 0 when its look is over"
        return decision

    def look_and_stop(self, rules, gates, choose: Callable[[int], int], *, freeze: bool) -> None:
        """A reconcile that stops between any two effects; what was in flight is lost, or lands later."""
        decision, status = self.decide(self.observe(rules, gates))
        together, rest = self.effects(decision, status)
        landed = choose(4) if together else 3
        done = [effect for bit, effect in enumerate(together, 1) if landed & bit]
        left = [effect for effect in together if effect not in done]
        if not left:
            count = choose(len(rest) + 1)
            done, left = done + rest[:count], rest[count:]
        for effect in done:
            effect(self, False)
        if decision.latch and done:
            self.condemned.setdefault(decision.state.revision, self.now)
        self.frozen = left if freeze else []
        self.at_start = True
        self.check()

    def thaw(self) -> None:
        """What an old operator had in flight arrives now."""
        late, self.frozen = self.frozen, []
        for effect in late:
            effect(self, True)
        self.check()

    def settle(self, rules=None, gates=NO_GATES) -> Decision:
        """Look until nothing is left to do now; must come to rest."""
        for _ in range(16):
            before = self.state
            decision = self.look(rules, gates)
            if self.state == before and not decision.actions and decision.command is None:
                assert decision.wake_at is None or decision.wake_at > self.now, (decision.message, decision.wake_at)
                self._rests(decision, rules, gates)
                return decision
        raise AssertionError(f"never comes to rest: {decision.state.phase} {decision.message} {decision.actions}")

    def _rests(self, decision: Decision, rules, gates) -> None:
        """At rest: nothing happens before the next due time, nothing is written, the route is not above the intent."""
        assert self.weight <= self.state.wanted, "somebody's raise is taken back"
        if self.state.revision in self.condemned:
            assert self.weight == self.mirror == 0
        until = decision.wake_at if decision.wake_at is not None else self.now + 300 * DAY
        for later in (self.now + (until - self.now) * 0.5, max(self.now, until - 0.01)):
            seen = self.observe(None)
            then = decide(self.spec, self.state, seen, later)
            now = decide(self.spec, self.state, seen, self.now)
            assert (then.state, then.actions, then.message) == (now.state, now.actions, now.message), "nothing woke it"
        old = self.known
        again, status = self.decide(self.observe(rules, gates))
        assert not worth_writing(old, status, self.now), "the same again is not worth a write"
        assert again.message is None or again.message.strip(), "there is always something to say"

    def _status_write(self, decision: Decision, status: CanaryRolloutStatus) -> Effect:
        base, version = self.status, self.status_version
        difference = merge_diff(base, status.to_dict())
        assert CanaryRolloutStatus.model_validate(status.to_dict()) == status, "a status reads back as it was written"
        needed = decision.latch or worth_writing(self.known, status, self.now)

        def write(cluster: "Cluster", late: bool) -> None:
            if not needed or not difference or (not decision.latch and cluster.status_version != version):
                return
            cluster.persist(difference, decision, late=late)

        return write

    def persist(self, difference: dict[str, Any], decision: Decision, *, late: bool) -> None:
        before = self.state
        self.status = _merge(self.status, difference)
        self.status_version += 1
        command = decision.command
        if command is not None:
            assert late or command.id not in before.heard, "a command counts once"
            if (
                command.accepted and command.command == Verb.RETRY
            ):  # late or not: the write is fenced, so nothing came between
                retried = self._of(command.id)
                condemned_at = self.condemned.pop(retried.revision, 0.0)
                assert retried.at >= condemned_at, "only a retry that came after the verdict counts"
            if command.accepted and command.command == Verb.APPROVE:
                self.approvals[command.message.split()[1]] = self._of(command.id).at
        if (before.wanted, before.revision) != (self.state.wanted, self.state.revision) or self._edited_away(before):
            self.held.clear()
        if not late and decision.ended and decision.ended.result == "RolledBack" and self.copied:
            copied, self.copied = self.copied, ""
            assert self.stable.template != copied or decision.ended.revision != copied, "stable is restored first"

    def _edited_away(self, before: RolloutState) -> bool:
        """Whether the stage whose hold this was is gone, and the operator has seen it."""
        names, weights = {stage.name for stage in self.stages}, {stage.weight for stage in self.stages}
        return before.stage != self.state.stage and before.stage not in names and before.wanted not in weights

    def _of(self, identity: str) -> Command:
        return self.log[identity]

    def _action(self, action) -> Effect:
        def effect(cluster: "Cluster", late: bool) -> None:
            match action:
                case Lower(route, fence) | Raise(route, fence):
                    cluster.write_route(route, fence, late=late, lowering=isinstance(action, Lower))
                case HoldPause():
                    cluster.canary.pause(by_us=True)
                case ReleasePause():
                    cluster.release_pause(late=late)
                case ScaleCanary(replicas):
                    cluster.scale(replicas, late=late)
                case CopyTemplate(revision):
                    cluster.copy(revision, late=late)
                case RestoreStable(revision):
                    cluster.restore(revision, late=late)
                case _:
                    raise AssertionError(action)

        return effect

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

    # -- what must hold of every decision ------------------------------------------------------------------------------

    def _judge(self, before: RolloutState, seen: Observation, decision: Decision) -> None:
        after = decision.state
        if decision.latch:
            first = decision.actions[0]
            assert isinstance(first, Lower), "the lowering comes first"
            assert (first.route.weight, first.route.cohort, first.fence) == (0, None, None)
            assert first.route.latch is not None, "the route's own object carries the verdict"
            assert after.halt_of(after.revision), "the latch is in the state"
            assert self._may_halt(before, seen, decision), "missing data and mere lack of requests condemn nobody"
        self._judge_actions(before, seen, decision)
        missing = seen.assessment is not None and any(
            verdict.lack is Lack.NO_DATA and verdict.action is not Action.ALERT for verdict in seen.assessment.rules
        )
        stale = before.fresh_after is not None and self.now < before.fresh_after
        if missing and not stale and after.wanted > 0 and after.phase in {Phase.PROGRESSING, Phase.PAUSED}:
            assert after.clock.since is None, "the time stands still while there is no data"
        if self._must_halt(before, seen):
            assert decision.latch, f"harm is stopped at once ({before.phase})"
        if after.revision != before.revision:
            assert after.wanted == 0, "a new revision begins at 0"
        elif after.wanted > before.wanted:
            self._may_want(before, seen, decision)
        if after.clock.since is not None and after.phase in {Phase.PROGRESSING, Phase.AWAITING_APPROVAL}:
            route = seen.route
            assert route is not None, "time counts from the moment the data plane has the weight"
            assert route.confirmed, "time counts from the moment the data plane has the weight"
            assert route.weight == after.wanted
        back = after.phase is Phase.RETURNING and before.phase is not Phase.RETURNING
        if back and after.lowering and after.lowering.reason is Reason.PROMOTED:
            assert seen.stable.settled, "traffic goes back only onto a stable that is updated on all pods"
            assert seen.stable.revision == after.revision
        assert len(after.halts) <= 10

    def _judge_actions(self, before: RolloutState, seen: Observation, decision: Decision) -> None:
        for action in decision.actions:
            if isinstance(action, Raise):
                assert self.canary.paused, "no raise while pods of another template can appear"
                assert not self.canary.crash
                assert self.canary.ready
                assert not seen.no_raise
                assert not seen.problems
                route = seen.route
                assert route is not None
                assert not route.contested_by or self.now >= seen.reassert_at
                if decision.state.phase in {Phase.PROGRESSING, Phase.PAUSED, Phase.AWAITING_APPROVAL}:
                    assert self.canary.pods == {action.route.revision}
        if self._serves(before) and self.canary.exists and not self.canary.paused:
            assert HoldPause() in decision.actions, "a template that somebody set free is held again"

    def _serves(self, before: RolloutState) -> bool:
        route = self.route
        return (
            before.phase in SERVING and route is not None and route.weight > 0 and route.revision == before.revision
        ) and before.wanted > 0

    def _must_halt(self, before: RolloutState, seen: Observation) -> bool:
        if not self._serves(before):
            return False
        failed = seen.assessment is not None and any(
            verdict.outcome is Outcome.FAIL and verdict.action is Action.ROLLBACK for verdict in seen.assessment.stops
        )
        stopped = before.fresh_after is not None and seen.assessment and seen.assessment.at < before.fresh_after
        return (failed and not stopped) or bool(self.canary.crash) or not self.canary.ready or not self.canary.exists

    def _may_halt(self, before: RolloutState, seen: Observation, decision: Decision) -> bool:
        failed = seen.assessment is not None and any(v.outcome is Outcome.FAIL for v in seen.assessment.stops)
        broken = bool(self.canary.crash) or not self.canary.ready or not self.canary.exists
        asked = decision.command is not None and decision.command.command == Verb.ROLLBACK
        lost = self.at_start and self.weight < before.confirmed
        told = self.route is not None and self.route.latch is not None
        return failed or broken or asked or lost or told

    def _may_want(self, before: RolloutState, seen: Observation, decision: Decision) -> None:
        """A rise of the intent: an explicit command, or a whole hold with everything in order at this moment."""
        after, command = decision.state, decision.command
        assert after.revision not in self.condemned, "no rise without retry"
        said = self._said(command)
        if said is not None and said.verb in {Verb.PROMOTE, Verb.SET_WEIGHT}:
            assert not self.spec.paused
            return
        stages = after.override or tuple(stage for stage in self.spec.stages if stage.enabled)
        assert not self.spec.paused
        assert not (before.pause and (said is None or said.verb is not Verb.RESUME))
        assert not seen.no_raise
        assert not seen.problems
        assert self.canary.settled
        assert self.canary.paused
        assert self.canary.pods == {after.revision}
        assert self.route is not None
        assert (self.route.weight, self.route.confirmed) == (before.wanted, True)
        pin = before.pin if said is None or said.verb is not Verb.START else after.wanted
        if before.wanted == 0 and before.phase is Phase.PREPARING and pin is not None:
            return
        following = next(stage for stage in stages if stage.weight > before.wanted)
        assert after.wanted == following.weight, "stages are neither skipped nor repeated"
        if following.approval is not None:
            granted = self.approvals.get(following.name)
            if said is not None and said.verb is Verb.APPROVE:
                granted = said.at
            assert granted is not None
            assert self.now - granted < DAY, "an approval expires"
        if before.wanted > 0:
            names, weights = {stage.name for stage in stages}, {stage.weight for stage in stages}
            assert before.stage in names or before.wanted in weights, "an edit of the spec raises nothing by itself"
            present = next((s for s in stages if s.name == before.stage), None) or next(
                (s for s in reversed(stages) if s.weight <= before.wanted), stages[0]
            )
            assert self.held[before.revision, before.wanted] >= shorter(present.hold), "a full hold, confirmed"
            assert seen.assessment is not None
            promotion = (seen.assessment.promotion,) if seen.assessment.promotion else ()
            rules = [rule for rule in seen.assessment.rules if not (rule.few and promotion)]
            self._all_open(*rules, *seen.assessment.exits, *promotion)
            for test in seen.assessment.tests:
                assert test.action is Action.ALERT or test.outcome is not Outcome.FAIL
                assert test.action is Action.ALERT or test.lack is not Lack.NO_DATA
        if following.entry and following.name != before.stage:
            assert seen.assessment is not None, "entry gates are asked at the raise"
            assert seen.assessment.entering == following.name
            self._all_open(*seen.assessment.entries)

    def _all_open(self, *verdicts: Verdict) -> None:
        for verdict in verdicts:
            quiet = verdict.action is Action.ALERT or verdict.lack is Lack.NOT_APPLICABLE
            assert quiet or verdict.outcome is Outcome.PASS, "missing data is never a pass"

    def _said(self, command) -> Command | None:
        return self._of(command.id) if command is not None and command.accepted else None

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


def _merge(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7396."""
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged
