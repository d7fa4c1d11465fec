"""Random worlds against the invariants of the design (§4): whatever happens, in whatever order, and whatever is lost.

pytest tests/engine/test_invariants.py                      the profile of CI: deterministic, at least 10,000 steps
ENGINE_PROFILE=thorough pytest tests/engine/test_invariants.py   another path each time, some hundred thousand steps
"""

import os

import pytest
import tally
from cluster import Cluster
from cluster_parts import NO_GATES, SERVING, Deployment
from draws import ASKS, BAD, GOOD, SPECS, exits, mostly_good, numbers, revisions, rules, single, weights
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Step
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from world import PASS

from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase

LEAST_STEPS = 10_000
PROFILES = {
    "ci": settings(
        max_examples=280,
        stateful_step_count=50,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    ),
    "thorough": settings(
        max_examples=4_000,
        stateful_step_count=100,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    ),
}
PROFILES["first"] = settings(PROFILES["ci"], phases=[Step.generate], report_multiple_bugs=False)
PROFILES["quick"] = settings(PROFILES["first"], derandomize=False)
PROFILE = PROFILES[os.environ.get("ENGINE_PROFILE", "ci")]


class Steps:
    """How many steps the machines have run, over all examples."""

    count = 0


class Rollouts(RuleBasedStateMachine):
    """Anything that can happen to a rollout."""

    cluster: Cluster
    rough: bool
    fresh = 0

    @initialize(number=st.just(0) | numbers, looks=st.integers(0, 40), rough=st.booleans())
    def begin(self, number, looks, rough):
        """A rollout that has come any far; in a rough world things break and get lost that seldom do."""
        self.rough = rough
        self.cluster = Cluster(SPECS[number], Deployment("a" * 10), Deployment("a" * 10))
        if looks:
            self.cluster.settle()
            self.cluster.canary.change("b" * 10)
            self.goes_on(looks)

    # -- time and the operator

    @rule(seconds=st.sampled_from([0.001, 1.0, 9.7, 30.0, 61.0, 200.0, 1000.0, 90_000.0]))
    def time_passes(self, seconds):
        self.cluster.wait(seconds)

    @rule()
    def looks(self):
        self.cluster.look()

    @rule(rules=rules, exits=exits)
    def evaluates(self, rules, exits):
        self.cluster.look(rules, exits)

    @rule(rules=rules, exits=exits)
    def comes_to_rest(self, rules, exits):
        self.cluster.settle(rules, exits)

    @rule(looks=st.integers(1, 12), rules=mostly_good, confirms=st.sampled_from([True, True, True, False]))
    def goes_on(self, looks, rules=GOOD, confirms=True):
        """Time goes by in a cluster that works."""
        cluster = self.cluster
        cluster.confirm(yes=confirms)
        for number in range(looks):
            if number % 2:
                cluster.canary.replace_all()
                cluster.stable.replace_all()
            decision = cluster.look(rules)
            due = decision.wake_at if decision.wake_at is not None else cluster.now + 60
            cluster.wait(min(max(0.0, due - cluster.now), 90.0))

    @rule(outcome=single, exits=exits)
    def the_hold_ends_with(self, outcome, exits):
        """The stage's time is over, and this is what the evaluation of that moment says."""
        self.serve()
        self.cluster.confirm(yes=True)
        self.cluster.look()
        self.cluster.wait(61.0)
        for _ in range(2):
            self.cluster.look(outcome, exits)

    @rule(looks=st.integers(0, 12))
    def a_revision_comes_far(self, looks):
        self.serve()
        self.goes_on(looks)

    def serve(self):
        """Have a revision in a stage; a new one, when none serves."""
        cluster = self.cluster
        for number in range(1, 30):
            if cluster.weight > 0 and cluster.state.phase in SERVING:
                return
            if number % 10 == 1:
                self.mend()
                self.fresh += 1
                cluster.canary.change(f"{self.fresh:010x}")
            if cluster.state.phase is Phase.AWAITING_APPROVAL:
                self.a_person_answers()
            self.goes_on(2)

    @rule(looks=st.integers(4, 30))
    def everything_is_mended_and_goes_on(self, looks):
        self.mend()
        for _ in range(3):
            self.goes_on(looks // 3)
            self.a_person_answers()

    def mend(self):
        cluster = self.cluster
        cluster.canary.exists = cluster.canary.ready = cluster.canary.observed = True
        cluster.canary.crash, cluster.no_raise, cluster.problems = "", "", ()
        if cluster.canary.paused and not cluster.canary.paused_by_us and cluster.weight == 0:
            cluster.canary.go_on()
        if cluster.spec.paused:
            cluster.edit(SPECS[0])

    def a_person_answers(self):
        """What a person would say who reads the status."""
        answers = {
            Phase.AWAITING_APPROVAL: Verb.APPROVE,
            Phase.PAUSED: Verb.RESUME,
            Phase.ROLLED_BACK: Verb.RETRY,
            Phase.HALTED: Verb.RETRY,
        }
        if verb := answers.get(self.cluster.state.phase):
            self.cluster.say(verb)

    @rule(looks=st.integers(0, 6), landed=st.integers(1, 3), data=st.data())
    def a_fail_is_carried_out_in_part(self, looks, landed, data):
        self.serve()
        picks = iter([landed])
        choose = lambda count: next(picks, None) or data.draw(st.integers(0, count - 1))  # noqa: E731
        self.cluster.look_and_stop(BAD, NO_GATES, choose, freeze=False)
        self.goes_on(looks)

    @rule(weight=st.integers(0, 10_000), rules=mostly_good | st.just(BAD), looks=st.integers(0, 3))
    def an_operator_freezes_over_somebodys_write(self, weight, rules, looks):
        self.serve()
        self.cluster.foreign_weight(weight)
        self.cluster.look_and_stop(None, NO_GATES, lambda _: 0, freeze=True)
        late, self.cluster.frozen = self.cluster.frozen, []
        self.cluster.look(rules)
        self.goes_on(looks)
        self.cluster.frozen = late
        self.cluster.thaw()

    @rule(looks=st.integers(0, 3))
    def lowered_while_nobody_looked(self, looks):
        self.serve()
        cluster = self.cluster
        state = cluster.state
        steady = state.phase in SERVING and 0 < state.wanted == state.confirmed == cluster.weight
        if steady and cluster.route.revision == state.revision:
            cluster.foreign_weight(0)
            cluster.at_start = True
            cluster.look()
            assert state.revision in cluster.condemned, "taken for a verdict that was lost"
            self.goes_on(looks)

    @rule(seconds=st.sampled_from([1.0, 90_000.0]), looks=st.integers(0, 8))
    def approved_in_advance(self, seconds, looks):
        self.cluster.edit(ASKS)
        self.cluster.say(Verb.APPROVE)
        self.cluster.look()
        self.cluster.wait(seconds)
        self.goes_on(looks)

    @rule(rules=st.none() | rules, exits=exits, data=st.data(), freeze=st.booleans())
    def dies_between_two_effects(self, rules, exits, data, freeze):
        choose = lambda count: data.draw(st.integers(0, count - 1))  # noqa: E731
        self.cluster.look_and_stop(rules, exits, choose, freeze=freeze)

    @rule()
    def what_was_frozen_lands(self):
        self.cluster.thaw()

    @rule(number=numbers, before=st.sampled_from([0.0, 30.0, 59.0]))
    def edited_near_the_end_of_a_hold(self, number, before):
        self.serve()
        self.goes_on(2)
        self.cluster.wait(before)
        self.cluster.edit(SPECS[number])
        self.cluster.wait(1.0)
        self.cluster.look(GOOD)
        self.cluster.look(GOOD)

    @rule(looks=st.integers(1, 12))
    def a_condemned_revision_comes_back(self, looks):
        if self.cluster.condemned:
            self.mend()
            self.cluster.canary.change(min(self.cluster.condemned))
            self.goes_on(looks)

    @precondition(lambda self: self.rough)
    @rule(looks=st.integers(4, 12))
    def fails_again_and_then_the_status_is_lost(self, looks):
        cluster = self.cluster
        for _ in range(2):
            if cluster.state.phase in {Phase.ROLLED_BACK, Phase.HALTED}:
                cluster.say(Verb.RETRY)
            self.goes_on(looks)
            cluster.look(BAD)
            self.goes_on(2)
        cluster.lose_status()
        self.goes_on(looks)

    # -- the data plane and the pods

    @rule(yes=st.booleans())
    def the_data_plane_confirms(self, yes):
        self.cluster.confirm(yes=yes)

    @rule()
    def pods_are_replaced(self):
        self.cluster.canary.replace_all()
        self.cluster.stable.replace_all()

    @precondition(lambda self: self.rough)
    @rule(crash=st.sampled_from(["", "", "pod x: CrashLoopBackOff"]))
    def pods_crash(self, crash):
        self.cluster.canary.crash = crash

    @precondition(lambda self: self.rough)
    @rule(ready=st.sampled_from([True, True, False]))
    def pods_are_ready_or_not(self, ready):
        self.cluster.canary.ready = ready

    @precondition(lambda self: self.rough)
    @rule(exists=st.sampled_from([True, True, True, False]))
    def the_canary_is_there_or_not(self, exists):
        self.cluster.canary.exists = exists

    @rule(observed=st.booleans())
    def the_deployment_controller_lags(self, observed):
        self.cluster.canary.observed = observed

    # -- people

    @precondition(lambda self: self.rough)
    @rule(revision=revisions)
    def a_new_template(self, revision):
        self.cluster.canary.change(revision)

    @precondition(lambda self: self.rough)
    @rule(revision=revisions)
    def stable_is_changed_by_somebody(self, revision):
        self.cluster.stable.change(revision)
        self.cluster.copied = ""

    @rule(number=numbers)
    def the_spec_is_edited(self, number):
        self.cluster.edit(SPECS[number])

    @rule(
        verb=st.sampled_from(list(Verb)),
        weight=weights,
        full=st.booleans(),
        revision=st.none() | st.none() | st.none() | revisions,
    )
    def a_command(self, verb, weight, full, revision):
        args = {Verb.SET_WEIGHT: {"weight": weight}, Verb.PROMOTE: {"full": full}, Verb.START: {"weight": weight}}
        self.cluster.say(verb, revision=revision or "", **args.get(verb, {}))

    @rule(weight=weights, looks=st.integers(0, 12))
    def the_command_that_is_asked_for(self, weight, looks):
        fitting = {
            Phase.PREPARING: (Verb.START, {"weight": weight}),
            Phase.PROGRESSING: (Verb.SET_WEIGHT, {"weight": weight}),
            Phase.PROMOTING: (Verb.ROLLBACK, {}),
            Phase.AWAITING_PROMOTION: (Verb.ROLLBACK, {}),
        }
        if chosen := fitting.get(self.cluster.state.phase):
            self.cluster.say(chosen[0], **chosen[1])
        else:
            self.a_person_answers()
        self.goes_on(looks)

    @rule()
    def start_with_its_own_stages(self):
        self.cluster.say(Verb.START, revision=self.cluster.canary.template, stages=["10%", "50%", "100%"])

    @rule(data=st.data())
    def an_old_command_comes_back(self, data):
        if self.cluster.log:
            command = self.cluster.log[data.draw(st.sampled_from(sorted(self.cluster.log)))]
            self.cluster.commands[command.verb] = command

    @rule(weight=st.integers(0, 10_000))
    def somebody_writes_the_route(self, weight):
        self.cluster.foreign_weight(weight)

    @precondition(lambda self: self.rough)
    @rule()
    def somebody_unpauses_the_canary(self):
        self.cluster.meddled = True
        self.cluster.canary.go_on()

    @rule()
    def somebody_pauses_the_canary(self):
        if not self.cluster.canary.paused:
            self.cluster.canary.pause(by_us=False)

    # -- what gets in the way, and what is lost

    @rule(why=st.sampled_from(["", "", "the clock is 3 s off"]))
    def raises_are_forbidden(self, why):
        self.cluster.no_raise = why

    @precondition(lambda self: self.rough)
    @rule(problems=st.sampled_from([(), (), ("Service shop-canary does not exist; create it",)]))
    def problems(self, problems):
        self.cluster.problems = problems

    @rule(seconds=st.sampled_from([0.0, 5.0, 60.0]))
    def reasserting_waits(self, seconds):
        self.cluster.reassert_at = self.cluster.now + seconds

    @precondition(lambda self: self.rough)
    @rule()
    def the_status_is_lost(self):
        self.cluster.lose_status()

    @rule()
    def the_latch_on_the_route_is_lost(self):
        self.cluster.lose_latch()

    @invariant()
    def holds(self):
        Steps.count += 1
        self.cluster.check()

    def teardown(self):
        """When the world stands still and everything works, the rollout comes to rest."""
        if hasattr(self, "cluster"):
            self.cluster.thaw()
            self.cluster.settle()


def test_a_retry_that_a_frozen_operator_wrote_counts_when_it_lands():
    rollouts = Rollouts()
    rollouts.begin(number=0, looks=0, rough=False)
    rollouts.edited_near_the_end_of_a_hold(before=0.0, number=0)
    rollouts.an_operator_freezes_over_somebodys_write(looks=0, rules=PASS, weight=0)
    rollouts.everything_is_mended_and_goes_on(looks=4)
    rollouts.cluster.look_and_stop(None, NO_GATES, lambda _: 0, freeze=True)
    rollouts.teardown()
    assert not rollouts.cluster.condemned


@pytest.mark.thorough
def test_the_invariants_hold_in_a_few_random_worlds():
    run_state_machine_as_test(Rollouts, settings=settings(PROFILE, max_examples=12))


@pytest.mark.slow
def test_the_invariants_hold_whatever_happens():
    Steps.count = 0
    run_state_machine_as_test(Rollouts, settings=PROFILE)
    tally.LINES.append(f"engine: {Steps.count} steps in random worlds")
    assert Steps.count >= LEAST_STEPS
