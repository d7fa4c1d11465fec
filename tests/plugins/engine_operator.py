"""An operator for the tests of the command line: the real analysis and engine, without the shell around them.

It decides about CanaryRollouts that are plain dicts in memory, and its data plane has every weight at once. So the
command line's tests and the examples in docs/commands.md show what the engine really says.
"""

from dataclasses import dataclass, field

from canary_rollout.analysis.evidence import Evidence
from canary_rollout.analysis.readings import EMPTY, Pair, Reading, Samples, keys_needed
from canary_rollout.analysis.rules import assess
from canary_rollout.cli.instant import Instant, at_rest
from canary_rollout.engine.decide import decide
from canary_rollout.engine.decision import CopyTemplate
from canary_rollout.engine.draft import stages_of
from canary_rollout.engine.observation import Observation, VersionView
from canary_rollout.engine.report import Facts, report
from canary_rollout.model.commands import read_commands
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import CanaryRolloutStatus
from canary_rollout.workloads.view import deployment_revision, selector_labels

GOOD = {"requests": 1_843_200.0, "error-rate": 0.0012, "latency-p99": 0.21, "latency-p75": 0.08}
BAD = {**GOOD, "error-rate": 0.074}


def _reading(numbers, key):
    """What Prometheus would say; no alert fires, and other series than those of the numbers were never there."""
    if key.alerts:
        return Reading.of(0.0)
    return Reading.of(numbers[key.what]) if key.what in numbers else EMPTY


@dataclass
class EngineOperator:
    """Stable and canary are Deployments as dicts; ``canary_numbers`` is what Prometheus would say of the canary."""

    rollout: dict
    stable: dict
    canary: dict
    cluster: Instant = field(default_factory=lambda: Instant("njs"))
    running: str = ""
    canary_numbers: dict = field(default_factory=lambda: dict(GOOD))
    evidence: Evidence = field(default_factory=Evidence)

    def tick(self, now: float) -> None:
        """Decide until nothing is due any more."""
        for _ in range(50):
            decision = self._once(now)
            if at_rest(decision, now):
                return
        raise AssertionError(f"did not come to rest: {decision.message}")

    def _once(self, now):
        spec = CanaryRolloutSpec.model_validate(self.rollout["spec"])
        status = CanaryRolloutStatus.model_validate(self.rollout.get("status") or {})
        assessment = self._assess(spec, status, now)
        commands, errors = read_commands(self.rollout["metadata"].get("annotations") or {})
        assert errors == []
        labels = selector_labels(self.stable, self.canary)
        seen = Observation(
            stable=VersionView(True, deployment_revision(self.stable, labels, ()), 2, 2, observed=True, settled=True),
            canary=self._canary(labels),
            route=self.cluster.route,
            assessment=assessment,
            commands=tuple(command for command in commands if status.consumed.get(command.verb) != command.id),
        )
        decision = decide(spec, status.rollout, seen, now)
        for action in decision.actions:
            self._do(action, now)
        if decision.restart_evidence:
            self.evidence, assessment = self.evidence.restarted(now), None
        generation = self.rollout["metadata"]["generation"]
        facts = Facts(spec, generation, self.cluster.route, assessment, self.evidence.to_dict(), now)
        self.rollout["status"] = report(status, decision, facts).to_dict()
        return decision

    def _assess(self, spec, status, now):
        state = status.rollout
        if not state.stage:
            return None
        stage = next((stage for stage in stages_of(spec, state) if stage.name == state.stage), None)
        readings = {
            key: Pair(_reading(GOOD, key), _reading(self.canary_numbers, key)) for key in keys_needed(spec, stage)
        }
        weight = state.confirmed / 10_000
        for key in readings:
            if key.what == "requests":
                # As the weight says, so that the received share is right.
                total = GOOD["requests"]
                readings[key] = Pair(Reading.of(total * (1 - weight)), Reading.of(total * weight))
        assessment, self.evidence = assess(spec, stage, Samples(now, readings), self.evidence, now)
        return assessment

    def _canary(self, labels):
        """The canary; its pods are of the newest template unless the Deployment is paused."""
        revision = deployment_revision(self.canary, labels, ())
        if not self.cluster.paused:
            self.running = revision
        settled = self.running == revision
        held = self.cluster.paused
        return VersionView(True, revision, 2, 2, observed=True, settled=settled, paused=held, paused_by_us=held)

    def _do(self, action, now):
        if self.cluster.do(action, now):
            return
        assert isinstance(action, CopyTemplate), f"not foreseen here: {action}"
        containers = self.canary["spec"]["template"]["spec"]["containers"]
        self.stable["spec"]["template"]["spec"]["containers"] = [dict(container) for container in containers]
