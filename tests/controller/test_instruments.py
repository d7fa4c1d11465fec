"""The metrics: what the table says is what is scraped."""

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from canary_rollout.agent.accesslog import RequestCounter
from canary_rollout.agent.instruments import Instruments as AgentInstruments
from canary_rollout.controller.instruments import Instruments, QueueInstruments
from canary_rollout.controller.metrics_table import AGENT_ROWS, OPERATOR_ROWS, as_markdown
from canary_rollout.controller.queue import Outcome
from canary_rollout.engine.decision import Decision
from canary_rollout.kube.cache import Sweep
from canary_rollout.kube.port import CANARY_ROLLOUTS, DEPLOYMENTS
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.status import CanaryRolloutStatus, Halt, HistoryEntry, RolloutState, VerdictStatus

KEY = ("shop", "checkout")


@pytest.fixture
def instruments():
    return Instruments()


def value(instruments, metric, /, **labels):
    return instruments.registry.get_sample_value(metric, labels)


def decision(**state):
    return Decision(
        state=RolloutState(**state),
        actions=(),
        latch=False,
        notes=(),
        ended=None,
        command=None,
        restart_evidence=False,
        wake_at=None,
        next_change=None,
        reason=Reason.STAGE_HELD,
        message="",
        stalled=False,
        evaluating=True,
    )


def verdicts(**outcomes):
    return tuple(VerdictStatus(rule=rule.replace("_", "-"), verdict=outcome) for rule, outcome in outcomes.items())


def test_the_docs_say_what_the_table_says():
    path = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert path.read_text() == as_markdown(), "run: python -m canary_rollout.controller.metrics_table > docs/metrics.md"


def scraped(registry):
    return {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}


def test_every_row_of_the_table_is_scraped_under_its_name_and_nothing_else(instruments):
    families = scraped(instruments.registry)
    names = {name for name in families if name.startswith("canary_")}
    assert names == {row.name.removesuffix("_total") for row in OPERATOR_ROWS}
    for row in OPERATOR_ROWS:
        assert families[row.name.removesuffix("_total")].type == row.kind
        assert row.help.endswith(".")


def test_the_agents_rows_are_what_the_agent_serves():
    disable_created_metrics()  # as its process does
    registry, counter = CollectorRegistry(), RequestCounter()
    registry.register(counter)
    instruments = AgentInstruments(registry)
    instruments.failures.labels("load").inc()
    instruments.retries.labels("watch").inc()
    counter.rollout = "checkout"
    counter.tenants.begin("abc")
    counter.count(b"canary everyone abc 200 0.004 abc 0042\n")
    families = scraped(registry)
    assert set(families) == {row.name.removesuffix("_total") for row in AGENT_ROWS}
    for row in AGENT_ROWS:
        family = families[row.name.removesuffix("_total")]
        assert family.type == row.kind
        assert set(family.samples[0].labels) - {"le"} == set(row.labels)


def test_a_rollout_under_way_shows_where_it_is(instruments):
    status = CanaryRolloutStatus(stage="friendly (2/4)", verdicts=verdicts(error_rate="pass"))
    instruments.decided(KEY, status, decision(phase=Phase.PROGRESSING, stage="friendly", wanted=500, confirmed=50))
    rollout = {"namespace": "shop", "name": "checkout"}
    assert value(instruments, "canary_rollout_percentage", **rollout) == 5
    assert value(instruments, "canary_rollout_confirmed_percentage", **rollout) == 0.5
    assert value(instruments, "canary_rollout_active", **rollout) == 1
    assert value(instruments, "canary_rollout_phase", **rollout, phase="Progressing") == 1
    assert value(instruments, "canary_rollout_stage", **rollout, stage="friendly") == 2
    assert value(instruments, "canary_rollout_verdicts_total", rule="error-rate", outcome="pass") == 1

    status = CanaryRolloutStatus(stage="", verdicts=verdicts(error_rate="fail"))
    instruments.decided(KEY, status, replace(decision(phase=Phase.ROLLED_BACK), stalled=True))
    assert value(instruments, "canary_rollout_phase", **rollout, phase="Progressing") is None
    assert value(instruments, "canary_rollout_phase", **rollout, phase="RolledBack") == 1
    assert value(instruments, "canary_rollout_stage", **rollout, stage="friendly") is None
    assert value(instruments, "canary_rollout_active", **rollout) == 0
    assert value(instruments, "canary_rollout_stalled", **rollout) == 1
    assert value(instruments, "canary_rollout_verdicts_total", rule="error-rate", outcome="fail") == 1


def test_a_verdict_is_counted_when_it_turns_not_at_every_look(instruments):
    status = CanaryRolloutStatus(verdicts=verdicts(error_rate="pass"))
    for weight in (50, 500, 500):
        instruments.decided(KEY, status, decision(wanted=weight))
    assert value(instruments, "canary_rollout_verdicts_total", rule="error-rate", outcome="pass") == 1


def test_rollbacks_and_promotions_are_counted(instruments):
    halt = Halt(revision="r2", reason=Reason.CANARY_CRASHED, message="crashed", at=1.0)
    state = RolloutState(phase=Phase.ROLLING_BACK, revision="r2", halts=(halt,))
    instruments.decided(KEY, CanaryRolloutStatus(), replace(decision(), state=state, latch=True))
    assert value(instruments, "canary_rollout_rollbacks_total", reason="CanaryCrashed") == 1
    ended = HistoryEntry(revision="r3", result="Succeeded", ended_at=2.0)
    instruments.decided(KEY, CanaryRolloutStatus(), replace(decision(), ended=ended))
    assert value(instruments, "canary_rollout_promotions_total") == 1


def test_a_deleted_rollout_leaves_no_series(instruments):
    status = CanaryRolloutStatus(stage="friendly (2/4)")
    instruments.decided(KEY, status, decision(phase=Phase.PROGRESSING, wanted=500))
    instruments.decided(("shop", "other"), status, decision())
    instruments.forgot(KEY)
    instruments.forgot(KEY)
    text = generate_latest(instruments.registry).decode()
    assert 'name="checkout"' not in text
    assert 'name="other"' in text


def test_calls_queries_watches_and_queues_are_counted(instruments):
    instruments.call("patch", CANARY_ROLLOUTS, 200, 0.01)
    instruments.call("patch", CANARY_ROLLOUTS, 200, 0.01)
    instruments.call("watch", DEPLOYMENTS, 0, 10)
    api = {"verb": "patch", "resource": "canaryrollouts", "code": "200"}
    assert value(instruments, "canary_rollout_api_requests_total", **api) == 2
    assert value(instruments, "canary_rollout_api_request_seconds_count", verb="patch") == 2
    assert value(instruments, "canary_rollout_api_request_seconds_count", verb="watch") is None
    instruments.query_finished("http://p", "ok", 0.1)
    instruments.query_held_back("http://p")
    queries = "canary_rollout_prometheus_queries_total"
    assert value(instruments, queries, server="http://p", outcome="ok") == 1
    assert value(instruments, queries, server="http://p", outcome="held_back") == 1
    instruments.watch_restarted("kopf", "WatchingError")
    watch = {"watch": "kopf", "reason": "WatchingError"}
    assert value(instruments, "canary_rollout_watch_restarts_total", **watch) == 1
    sweep = Sweep(changed=(KEY,), vanished=(KEY,))
    instruments.swept(DEPLOYMENTS, sweep, first=True)
    instruments.swept(DEPLOYMENTS, sweep, first=False)
    assert value(instruments, "canary_rollout_sweep_corrections_total", resource="deployments") == 2
    for name in ("reconcile", "evaluate"):
        queue = QueueInstruments(instruments, name)
        queue.started(KEY, 0.2)
        queue.ended(KEY, Outcome.DONE, 0.1)
        queue.retrying(KEY, ValueError(), 1)
        assert value(instruments, "canary_rollout_queue_lateness_seconds_count", queue=name) == 1
        assert value(instruments, "canary_rollout_retries_total", what=name) == 1
    assert value(instruments, "canary_rollout_reconcile_seconds_count", outcome="done") == 1
