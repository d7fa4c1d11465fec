"""CanaryRollouts as people find them: under way, paused, rolled back; and the Deployments beside them."""

from canary_rollout.kube.port import CANARY_ROLLOUTS
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.status import (
    CanaryRolloutStatus,
    ConditionStatus,
    Halt,
    HistoryEntry,
    Pause,
    RolloutState,
    StageClock,
    VerdictStatus,
)

NOW = 1_763_719_200.0
"""2025-11-21 10:00:00 UTC."""
REVISION = "ab12cd34ef"
STABLE = "0011223344"


def deployment(name, image="shop/checkout:1.0", containers=("app",), namespace="shop"):
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": container, "image": image} for container in containers]},
            },
        },
    }


def progressing():
    """At 5 % in the second of four stages, three hours of twenty-four."""
    return CanaryRolloutStatus(
        observed_generation=1,
        phase=Phase.PROGRESSING,
        message="friendly is held at 5% for 24h; every rule passes; then beta (25%)",
        stage="friendly (2/4)",
        weight="5%",
        revision=REVISION,
        router="nginx (njs)",
        next_change=NOW + 21 * 3600,
        conditions=(
            ConditionStatus(
                type="Ready",
                status="False",
                reason=Reason.STAGE_HELD,
                message="friendly is held",
                last_transition_time=NOW - 3 * 3600,
            ),
        ),
        verdicts=(
            VerdictStatus(rule="error-rate", verdict="pass", message="0.12% of 18432 requests, allowed 1%"),
            VerdictStatus(rule="p99-latency", verdict="none", reason="NotEnough", message="41 of 100 requests"),
        ),
        history=(
            HistoryEntry(
                revision="ffee112233",
                result="RolledBack",
                reason="RuleFailed",
                message="too slow",
                ended_at=NOW - 86_400,
            ),
        ),
        rollout=RolloutState(
            phase=Phase.PROGRESSING,
            revision=REVISION,
            stable_revision=STABLE,
            stage="friendly",
            wanted=500,
            confirmed=500,
            clock=StageClock(held_ms=3_600_000, since=NOW - 2 * 3600),
        ),
    )


def rolled_back():
    """Stopped by a rule in the second stage."""
    halt = Halt(
        revision=REVISION,
        reason=Reason.RULE_FAILED,
        rule="error-rate",
        message="7.4% of 1213 requests failed, allowed 1%, stable 0.1%",
        stage="friendly",
        weight=500,
        at=NOW - 90,
    )
    return progressing().model_copy(
        update={
            "phase": Phase.ROLLED_BACK,
            "message": "rolled back: 7.4% of 1213 requests failed; `retry` starts it again",
            "weight": "0%",
            "next_change": None,
            "halt": halt,
            "verdicts": (VerdictStatus(rule="error-rate", verdict="fail", message=halt.message),),
            "rollout": RolloutState(phase=Phase.ROLLED_BACK, revision=REVISION, stage="", halts=(halt,)),
        }
    )


def paused():
    """Held by a person; the data plane still has another weight than wanted."""
    pause = Pause(reason=Reason.PAUSED_BY_COMMAND, message="paused by command of anna: lunch", at=NOW - 60)
    before = progressing()
    memory = before.rollout.model_copy(update={"phase": Phase.PAUSED, "pause": pause, "confirmed": 50})
    return before.model_copy(
        update={"phase": Phase.PAUSED, "message": pause.message, "next_change": None, "rollout": memory}
    )


def rollout(name="checkout", status=None, namespace="shop", **spec):
    stages = [
        {"name": "internal-test", "weight": "0.5%", "hold": "1h", "cohort": {"header": "X-Cohort", "values": ["qa"]}},
        {"name": "friendly", "weight": "5%", "hold": "24h", "exit": [{"preset": "latency-p75", "maxRatio": "1.10"}]},
        {"name": "beta", "weight": "25%", "hold": "48h", "approval": "required"},
        {"name": "ga", "weight": "100%", "hold": "1h"},
    ]
    obj = {
        "apiVersion": CANARY_ROLLOUTS.api_version,
        "kind": CANARY_ROLLOUTS.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "generation": 1,
            "creationTimestamp": "2025-11-01T00:00:00Z",
        },
        "spec": {
            "workload": {
                "stable": {"service": name, "deployment": name},
                "canary": {"service": f"{name}-canary", "deployment": f"{name}-canary"},
            },
            "traffic": {"nginx": {"service": "edge"}},
            "metrics": {"prometheus": "http://127.0.0.1:9"},
            "stages": stages,
            **spec,
        },
    }
    if status is not None:
        obj["status"] = status.to_dict()
    return obj
