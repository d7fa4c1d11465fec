"""A world of the engine that writes its status, and counts the writes."""

from dataclasses import replace

from world import World

from canary_rollout.engine.decide import decide
from canary_rollout.engine.report import Facts, report, worth_writing
from canary_rollout.model.status import CanaryRolloutStatus


class Reported(World):
    """A world that writes its status the way the shell does, and counts the writes."""

    def start(self):
        self.status, self.writes = CanaryRolloutStatus(), 0
        return self

    def look(self, *, evaluate=True):
        seen = self.observe(evaluate=evaluate)
        old = CanaryRolloutStatus.model_validate(self.status.to_dict())
        decision = decide(self.spec, old.rollout, seen, self.now)
        for action in decision.actions:
            self.do(action)
        assessment = None if decision.restart_evidence else seen.assessment
        new = report(old, decision, Facts(self.spec, 7, seen.route, assessment, {"at": self.now}, self.now))
        if worth_writing(old, new, self.now):
            self.status, self.writes = new, self.writes + 1
        self.persist(replace(decision, state=self.status.rollout))
        return decision

    def condition(self, kind):
        return next((item for item in self.status.conditions if item.type == kind), None)


def held(name="second", **changes) -> Reported:
    world = Reported(now=1_700_000_000.123_456, **changes).start().run()
    world.release().run()
    while world.state.stage != name:
        world.run(60)
        world.run()
    return world
