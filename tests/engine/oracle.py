"""What must hold of every decision, written down apart from the engine."""

from cluster_objects import Objects
from cluster_parts import DAY, SERVING, shorter

from canary_rollout.analysis.verdict import Lack, Outcome, Verdict
from canary_rollout.engine.decision import Decision, HoldPause, Lower, Raise
from canary_rollout.engine.observation import Observation
from canary_rollout.model.commands import Command, Verb
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.spec import Action
from canary_rollout.model.status import RolloutState


def judge(cluster: Objects, before: RolloutState, seen: Observation, decision: Decision) -> None:
    after = decision.state
    if decision.latch:
        first = decision.actions[0]
        assert isinstance(first, Lower), "the lowering comes first"
        assert (first.route.weight, first.route.cohort, first.fence) == (0, None, None)
        assert first.route.latch is not None, "the route's own object carries the verdict"
        assert after.halt_of(after.revision), "the latch is in the state"
        assert _may_halt(cluster, before, seen, decision), "missing data and mere lack of requests condemn nobody"
    _judge_actions(cluster, before, seen, decision)
    missing = seen.assessment is not None and any(
        verdict.lack is Lack.NO_DATA and verdict.action is not Action.ALERT for verdict in seen.assessment.rules
    )
    stale = before.fresh_after is not None and cluster.now < before.fresh_after
    if missing and not stale and after.wanted > 0 and after.phase in {Phase.PROGRESSING, Phase.PAUSED}:
        assert after.clock.since is None, "the time stands still while there is no data"
    if _must_halt(cluster, before, seen):
        assert decision.latch, f"harm is stopped at once ({before.phase})"
    if after.revision != before.revision:
        assert after.wanted == 0, "a new revision begins at 0"
    elif after.wanted > before.wanted:
        _may_want(cluster, before, seen, decision)
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


def _judge_actions(cluster: Objects, before: RolloutState, seen: Observation, decision: Decision) -> None:
    for action in decision.actions:
        if isinstance(action, Raise):
            assert cluster.canary.paused, "no raise while pods of another template can appear"
            assert not cluster.canary.crash
            assert cluster.canary.ready
            assert not seen.no_raise
            assert not seen.problems
            route = seen.route
            assert route is not None
            assert not route.contested_by or cluster.now >= seen.reassert_at
            if decision.state.phase in {Phase.PROGRESSING, Phase.PAUSED, Phase.AWAITING_APPROVAL}:
                assert cluster.canary.pods == {action.route.revision}
    if _serves(cluster, before) and cluster.canary.exists and not cluster.canary.paused:
        assert HoldPause() in decision.actions, "a template that somebody set free is held again"


def _serves(cluster: Objects, before: RolloutState) -> bool:
    route = cluster.route
    return (
        before.phase in SERVING and route is not None and route.weight > 0 and route.revision == before.revision
    ) and before.wanted > 0


def _must_halt(cluster: Objects, before: RolloutState, seen: Observation) -> bool:
    if not _serves(cluster, before):
        return False
    failed = seen.assessment is not None and any(
        verdict.outcome is Outcome.FAIL and verdict.action is Action.ROLLBACK for verdict in seen.assessment.stops
    )
    stopped = before.fresh_after is not None and seen.assessment and seen.assessment.at < before.fresh_after
    return (
        (failed and not stopped) or bool(cluster.canary.crash) or not cluster.canary.ready or not cluster.canary.exists
    )


def _may_halt(cluster: Objects, before: RolloutState, seen: Observation, decision: Decision) -> bool:
    failed = seen.assessment is not None and any(v.outcome is Outcome.FAIL for v in seen.assessment.stops)
    broken = bool(cluster.canary.crash) or not cluster.canary.ready or not cluster.canary.exists
    asked = decision.command is not None and decision.command.command == Verb.ROLLBACK
    lost = cluster.at_start and cluster.weight < before.confirmed
    told = cluster.route is not None and cluster.route.latch is not None
    return failed or broken or asked or lost or told


def _may_want(cluster: Objects, before: RolloutState, seen: Observation, decision: Decision) -> None:
    """A rise of the intent: an explicit command, or a whole hold with everything in order at this moment."""
    after, command = decision.state, decision.command
    assert after.revision not in cluster.condemned, "no rise without retry"
    said = _said(cluster, command)
    if said is not None and said.verb in {Verb.PROMOTE, Verb.SET_WEIGHT}:
        assert not cluster.spec.paused
        return
    stages = after.override or tuple(stage for stage in cluster.spec.stages if stage.enabled)
    assert not cluster.spec.paused
    assert not (before.pause and (said is None or said.verb is not Verb.RESUME))
    assert not seen.no_raise
    assert not seen.problems
    assert cluster.canary.settled
    assert cluster.canary.paused
    assert cluster.canary.pods == {after.revision}
    assert cluster.route is not None
    assert (cluster.route.weight, cluster.route.confirmed) == (before.wanted, True)
    pin = before.pin if said is None or said.verb is not Verb.START else after.wanted
    if before.wanted == 0 and before.phase is Phase.PREPARING and pin is not None:
        return
    following = next(stage for stage in stages if stage.weight > before.wanted)
    assert after.wanted == following.weight, "stages are neither skipped nor repeated"
    if following.approval is not None:
        granted = cluster.approvals.get(following.name)
        if said is not None and said.verb is Verb.APPROVE:
            granted = said.at
        assert granted is not None
        assert cluster.now - granted < DAY, "an approval expires"
    if before.wanted > 0:
        names, weights = {stage.name for stage in stages}, {stage.weight for stage in stages}
        assert before.stage in names or before.wanted in weights, "an edit of the spec raises nothing by itself"
        present = next((s for s in stages if s.name == before.stage), None) or next(
            (s for s in reversed(stages) if s.weight <= before.wanted), stages[0]
        )
        assert cluster.held[before.revision, before.wanted] >= shorter(present.hold), "a full hold, confirmed"
        assert seen.assessment is not None
        promotion = (seen.assessment.promotion,) if seen.assessment.promotion else ()
        rules = [rule for rule in seen.assessment.rules if not (rule.few and promotion)]
        _all_open(*rules, *seen.assessment.exits, *promotion)
        for test in seen.assessment.tests:
            assert test.action is Action.ALERT or test.outcome is not Outcome.FAIL
            assert test.action is Action.ALERT or test.lack is not Lack.NO_DATA
    if following.entry and following.name != before.stage:
        assert seen.assessment is not None, "entry gates are asked at the raise"
        assert seen.assessment.entering == following.name
        _all_open(*seen.assessment.entries)


def _all_open(*verdicts: Verdict) -> None:
    for verdict in verdicts:
        quiet = verdict.action is Action.ALERT or verdict.lack is Lack.NOT_APPLICABLE
        assert quiet or verdict.outcome is Outcome.PASS, "missing data is never a pass"


def _said(cluster: Objects, command) -> Command | None:
    return cluster.of(command.id) if command is not None and command.accepted else None
