"""One vocabulary of conditions and reasons, shared by status, Kubernetes Events, metrics and docs."""

from enum import StrEnum


class Condition(StrEnum):
    """Types of ``status.conditions`` (kstatus: Ready, Reconciling, Stalled)."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    ROUTE_CONTESTED = "RouteContested"
    RECONCILE_FAILING = "ReconcileFailing"


class Phase(StrEnum):
    """Where a rollout is."""

    IDLE = "Idle"
    PREPARING = "Preparing"
    PROGRESSING = "Progressing"
    AWAITING_APPROVAL = "AwaitingApproval"
    PAUSED = "Paused"
    HALTED = "Halted"
    PROMOTING = "Promoting"
    AWAITING_PROMOTION = "AwaitingPromotion"
    RETURNING = "Returning"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    SUCCEEDED = "Succeeded"


class Reason(StrEnum):
    """Why: the reason of a condition and of the Event that tells it. Each is one CamelCase word for one cause."""

    # resting
    IDLE = "Idle"
    SUCCEEDED = "Succeeded"
    # on the way
    NEW_REVISION = "NewRevision"
    PREPARING = "Preparing"
    STAGE_STARTED = "StageStarted"
    STAGE_HELD = "StageHeld"
    WAITING_FOR_ROUTE = "WaitingForRoute"
    AWAITING_APPROVAL = "AwaitingApproval"
    APPROVED = "Approved"
    PROMOTING = "Promoting"
    AWAITING_PROMOTION = "AwaitingPromotion"
    PROMOTED = "Promoted"
    RETURNING = "Returning"
    DRAINING = "Draining"
    # held
    NO_DATA = "NoData"
    NOT_ENOUGH_REQUESTS = "NotEnoughRequests"
    EXIT_GATE = "ExitGate"
    ENTRY_GATE = "EntryGate"
    PROMOTION_GATE = "PromotionGate"
    CLOCK_SKEW = "ClockSkew"
    CANARY_NOT_READY = "CanaryNotReady"
    # paused
    PAUSED_BY_SPEC = "PausedBySpec"
    PAUSED_BY_COMMAND = "PausedByCommand"
    PAUSED_BY_RULE = "PausedByRule"
    PAUSED_NO_DATA = "PausedNoData"
    PAUSED_NOT_ENOUGH = "PausedNotEnoughRequests"
    RESUMED = "Resumed"
    # stopped
    HALTED = "Halted"
    ROUTE_LOWERED = "RouteLoweredByOthers"
    SHARE_EXCEEDED = "ShareExceeded"
    RULE_FAILED = "RuleFailed"
    RULE_ALERT = "RuleAlert"
    CANARY_CRASHED = "CanaryCrashed"
    ROLLBACK_COMMANDED = "RollbackCommanded"
    ROLLED_BACK = "RolledBack"
    RETRIED = "Retried"
    # commands
    WEIGHT_SET = "WeightSet"
    COMMAND_REFUSED = "CommandRefused"
    EVIDENCE_RESET = "EvidenceReset"
    # wrong
    INVALID_SPEC = "InvalidSpec"
    WORKLOAD_MISSING = "WorkloadMissing"
    WORKLOAD_NOT_READY = "WorkloadNotReady"
    ROUTE_REJECTED = "RouteRejected"
    ROUTE_PENDING = "RoutePending"
    ROUTE_CONTESTED = "RouteContested"
    PROGRESS_DEADLINE = "ProgressDeadlineExceeded"
    RECONCILE_FAILED = "ReconcileFailed"
