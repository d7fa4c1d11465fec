"""Every metric of the project in one table: the operator's are made from it, the docs are written from it."""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["gauge", "counter", "histogram"]

_ROLLOUT: Final = ("namespace", "name")
_ARM: Final = ("rollout", "cohort", "version", "revision")


@dataclass(frozen=True, slots=True)
class Row:
    """One metric.

    Attributes:
        name: as scraped.
        kind: type.
        labels: label names.
        help: one sentence, with the unit.
        buckets: upper bounds of a histogram, in its unit.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

OPERATOR_ROWS: Final = (
    Row("canary_rollout_percentage", "gauge", _ROLLOUT, "Weight of the canary that is wanted now, percent."),
    Row(
        "canary_rollout_confirmed_percentage", "gauge", _ROLLOUT, "Last weight the data plane proved to serve, percent."
    ),
    Row("canary_rollout_active", "gauge", _ROLLOUT, "1 while a revision is under way, else 0."),
    Row("canary_rollout_phase", "gauge", (*_ROLLOUT, "phase"), "1 for the phase the rollout is in."),
    Row("canary_rollout_stage", "gauge", (*_ROLLOUT, "stage"), "Place of the present stage, 1 for the first."),
    Row("canary_rollout_stalled", "gauge", _ROLLOUT, "1 while nothing moves until a person mends something."),
    Row("canary_rollout_rollbacks_total", "counter", ("reason",), "Revisions condemned and taken to weight 0, by why."),
    Row("canary_rollout_promotions_total", "counter", (), "Revisions that became stable."),
    Row(
        "canary_rollout_verdicts_total",
        "counter",
        ("rule", "outcome"),
        "Times the verdict of a rule or gate turned into this outcome (pass, fail, none).",
    ),
    Row(
        "canary_rollout_reconcile_seconds",
        "histogram",
        ("outcome",),
        "Duration of one look at a rollout, seconds, by how it ended.",
        _QUICK,
    ),
    Row(
        "canary_rollout_queue_lateness_seconds",
        "histogram",
        ("queue",),
        "Time between when a look was due and when it began, seconds.",
        (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0),
    ),
    Row(
        "canary_rollout_queue_depth",
        "gauge",
        ("queue",),
        "Looks (reconcile) and evaluations (evaluate) that wait for a worker.",
    ),
    Row("canary_rollout_retries_total", "counter", ("what",), "Repeated attempts, by what is repeated."),
    Row(
        "canary_rollout_api_requests_total",
        "counter",
        ("verb", "resource", "code"),
        "Calls to the Kubernetes API; code 0 is no answer.",
    ),
    Row(
        "canary_rollout_api_request_seconds",
        "histogram",
        ("verb",),
        "Time to the answer of the Kubernetes API, seconds.",
        _QUICK,
    ),
    Row(
        "canary_rollout_prometheus_queries_total",
        "counter",
        ("server", "outcome"),
        "Queries sent to Prometheus: ok, bad_query, slow, outage; held_back were not sent because the last one failed.",
    ),
    Row(
        "canary_rollout_prometheus_query_seconds",
        "histogram",
        ("server",),
        "Time to the answer of Prometheus, seconds.",
        _QUICK,
    ),
    Row(
        "canary_rollout_comparison_ticks_total",
        "counter",
        ("how",),
        "Ticks of comparisons with stable: live, or replayed after a restart or an outage of Prometheus.",
    ),
    Row(
        "canary_rollout_comparison_seconds",
        "histogram",
        (),
        "CPU time of one tick of a comparison, counts to verdicts, seconds.",
        (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1),
    ),
    Row(
        "canary_rollout_evidence_left_out_total",
        "counter",
        ("part",),
        "Status writes without a part of the evidence, for want of room: it begins anew after a restart (docs/analysis.md).",
    ),
    Row("canary_rollout_lease_held", "gauge", (), "1 while this replica holds the Lease and surely is the only one."),
    Row("canary_rollout_lease_term", "gauge", (), "Times this process acquired the Lease."),
    Row(
        "canary_rollout_clock_skew_seconds", "gauge", (), "How far this clock is surely off the API server's, seconds."
    ),
    Row(
        "canary_rollout_watch_restarts_total",
        "counter",
        ("watch", "reason"),
        "Watches (by resource; kopf for kopf itself) that broke and were started again.",
    ),
    Row(
        "canary_rollout_sweep_corrections_total",
        "counter",
        ("resource",),
        "Objects a periodic list found changed or gone that the watch had not told of.",
    ),
    Row("canary_rollout_sweep_age_seconds", "gauge", (), "Age of the oldest complete list, seconds."),
    Row("canary_rollout_events_total", "counter", ("reason",), "Kubernetes Events recorded, repeats included."),
    Row(
        "canary_rollout_event_failures_total",
        "counter",
        ("why",),
        "Events not delivered: full (queue), spam (one object), refused, unavailable.",
    ),
    Row("canary_rollout_loop_lag_seconds", "gauge", (), "Longest delay of the event loop in the last minute, seconds."),
    Row("canary_rollout_build_info", "gauge", ("version",), "1; the version that runs."),
)

_BUCKET: Final = ("rollout", "version", "revision", "bucket")

AGENT_ROWS: Final = (
    Row("canary_requests_total", "counter", _ARM, "Requests answered, by version."),
    Row("canary_errors_total", "counter", _ARM, "Requests answered with a status of 500 or above."),
    Row("canary_latency_seconds", "histogram", _ARM, "Time from a request's first byte to its answer's last."),
    Row(
        "canary_bucket_requests_total",
        "counter",
        _BUCKET,
        "Requests answered, by bucket of tenants (place in the hash, divided by ten); only with `sticky`, only of "
        "`everyone`, only buckets that were ever seen. A new canary revision orders the tenants anew: all begin at 0. "
        "nginx only.",
    ),
    Row("canary_bucket_errors_total", "counter", _BUCKET, "Of these, with a status of 500 or above. nginx only."),
    Row("canary_agent_applied_total", "counter", (), "Documents brought to the proxy and proved."),
    Row("canary_agent_reloads_total", "counter", (), "Times nginx was told to load a new configuration."),
    Row("canary_agent_failures_total", "counter", ("action",), "What went wrong: read, load, renew."),
    Row(
        "canary_agent_retries_total",
        "counter",
        ("action",),
        "Repeated calls: lease and watch (API server), control (a read-back that nginx did not answer in time).",
    ),
    Row("canary_agent_weight_ratio", "gauge", (), "Share of the canary that the proxy is proved to serve, 0 to 1."),
    Row("canary_agent_lease_expires_seconds", "gauge", (), "POSIX time until which a weight below 100 % is served."),
    Row("canary_agent_malformed_lines_total", "counter", (), "Lines of nginx's log that do not parse."),
)


def as_markdown() -> str:
    """``docs/metrics.md``."""
    lines = [
        "# Metrics",
        "",
        "<!-- Made by `python -m canary_rollout.controller.metrics_table > docs/metrics.md`; a test keeps it true. -->",
        "",
        "## Operator (`/metrics` of the operator's pod)",
        "",
        "Series with `namespace` and `name` go when their CanaryRollout is deleted.",
        "",
        *_table(OPERATOR_ROWS),
        "",
        "## Agent (`/metrics` of every nginx and Envoy pod)",
        "",
        "`version` is `stable` or `canary`, `revision` the hash of what answered, `cohort` the group the request was in,",
        "[as listed](stickiness.md); `everyone` is decided by the weight.",
        "",
        *_table(AGENT_ROWS),
    ]
    return "\n".join(lines) + "\n"


def _table(rows: tuple[Row, ...]) -> list[str]:
    body = [
        f"| `{row.name}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels) or 'none'} | {row.help} |"
        for row in rows
    ]
    return ["| name | type | labels | meaning |", "|---|---|---|---|", *body]


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_markdown())
