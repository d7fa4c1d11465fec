"""A cluster for the state machines: Deployments with pods, one route, one status; and an operator that looks at it.

Nothing in here asks the engine what is right (``oracle`` has that written down apart). Every effect of a decision is a
step of its own, so an operator can die or freeze between any two, and what a frozen one had in flight can land at any
later time.
"""

from collections.abc import Callable
from typing import Any

from cluster_objects import Objects
from cluster_parts import DAY, NO_GATES, Effect
from oracle import judge

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
from canary_rollout.engine.observation import Observation
from canary_rollout.engine.report import Facts, report, worth_writing
from canary_rollout.model.commands import Verb
from canary_rollout.model.status import CanaryRolloutStatus, RolloutState


class Cluster(Objects):
    """An operator and the objects it looks at."""

    def decide(self, seen: Observation) -> tuple[Decision, CanaryRolloutStatus]:
        before = self.known
        decision = decide(self.spec, before.rollout, seen, self.now)
        again = decide(self.spec, before.rollout, seen, self.now)
        assert decision == again, "decide is a function of its arguments"
        judge(self, before.rollout, seen, decision)
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
                retried = self.of(command.id)
                condemned_at = self.condemned.pop(retried.revision, 0.0)
                assert retried.at >= condemned_at, "only a retry that came after the verdict counts"
            if command.accepted and command.command == Verb.APPROVE:
                self.approvals[command.message.split()[1]] = self.of(command.id).at
        if (before.wanted, before.revision) != (self.state.wanted, self.state.revision) or self._edited_away(before):
            self.held.clear()
        if not late and decision.ended and decision.ended.result == "RolledBack" and self.copied:
            copied, self.copied = self.copied, ""
            assert self.stable.template != copied or decision.ended.revision != copied, "stable is restored first"

    def _edited_away(self, before: RolloutState) -> bool:
        """Whether the stage whose hold this was is gone, and the operator has seen it."""
        names, weights = {stage.name for stage in self.stages}, {stage.weight for stage in self.stages}
        return before.stage != self.state.stage and before.stage not in names and before.wanted not in weights

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
