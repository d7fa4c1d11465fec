"""The end of the demo: what was sent, what failed, how fast; as a table and as JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from canary_rollout.local.demo_story import Release, broken_ended_well, good_ended_well
from canary_rollout.local.load import Snapshot
from canary_rollout.model.units import format_weight


@dataclass(slots=True)
class Result:
    """Everything the demo found out.

    Attributes:
        good: the good release.
        broken: the broken one; ``None`` when it was left out.
        counts: the load generator's last counts.
        setup_seconds: from the start of the program to the first request.
        total_seconds: of the whole program up to this summary.
        trouble: what went wrong beside the two releases.
    """

    good: Release | None = None
    broken: Release | None = None
    counts: Snapshot | None = None
    setup_seconds: float = 0.0
    total_seconds: float = 0.0
    trouble: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Why the demo is a failure, one sentence each; empty when all went as it should."""
        found = list(self.trouble)
        if self.good is None:
            found.append("the good release never began")
        elif problem := good_ended_well(self.good):
            found.append(problem)
        if self.broken is not None and (problem := broken_ended_well(self.broken)):
            found.append(problem)
        counts = self.counts
        if counts is not None:
            if counts.transport_errors:
                found.append(f"{counts.transport_errors} transport errors: {counts.transport_kinds}{when(counts)}")
            if counts.no_app:
                found.append(
                    f"{counts.no_app} answers that no application produced: {counts.no_app_statuses}{when(counts)}"
                )
            if counts.not_sent:
                found.append(f"{counts.not_sent} requests could not be sent in time")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "ok": not self.problems(),
            "problems": self.problems(),
            "setup_seconds": round(self.setup_seconds, 2),
            "total_seconds": round(self.total_seconds, 2),
            "good": asdict(self.good) if self.good else None,
            "broken": asdict(self.broken) if self.broken else None,
            "load": self.counts.to_dict() if self.counts else None,
        }


def when(counts: Snapshot) -> str:
    """When the last things that went wrong did, in seconds since the load began."""
    began = counts.monotonic - counts.elapsed
    ends = [sample["end"] - began for sample in counts.samples]
    return f" (the last {len(ends)} between {min(ends):.2f} s and {max(ends):.2f} s of load)" if ends else ""


def summary(result: Result) -> Table:
    """The closing table."""
    table = Table(title="What happened", title_justify="left", show_header=False, min_width=70)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    if result.good is not None:
        table.add_row(f"good release {result.good.tag}", f"{result.good.phase} after {result.good.seconds:.1f} s")
        table.add_row("  its weights", " → ".join(format_weight(one.weight) for one in result.good.weights) or "none")
        if result.good.compared:
            table.add_row("  the comparison with stable", result.good.compared)
    if result.broken is not None:
        _broken_rows(table, result.broken)
    if result.counts is not None:
        table.add_section()
        _count_rows(table, result.counts)
    table.add_section()
    table.add_row("from the start to the first request", f"{result.setup_seconds:.1f} s")
    table.add_row("all together", f"{result.total_seconds:.1f} s")
    return table


def _broken_rows(table: Table, broken: Release) -> None:
    table.add_section()
    table.add_row(f"broken release {broken.tag}", f"{broken.phase} after {broken.seconds:.1f} s")
    table.add_row("  its weights", " → ".join(format_weight(one.weight) for one in broken.weights) or "none")
    if broken.halt:
        table.add_row(
            f"  stopped by {broken.halt.get('rule') or broken.halt.get('reason', '')}",
            str(broken.halt.get("message", "")),
        )
    if broken.compared:
        table.add_row("  the comparison with stable", broken.compared)
    times = broken.times
    if times is None:
        return
    if times.breach_value is not None:
        table.add_row("  error rate when Prometheus first told", f"{100 * times.breach_value:.1f} %")
    table.add_row("  first failed answer → weight 0 written", seconds(times.first_failure_to_write))
    table.add_row("  Prometheus told → weight 0 written", seconds(times.breach_to_write))
    table.add_row("  Prometheus told → canary's last answer", seconds(times.breach_to_last_request))
    table.add_row("  weight 0 written → canary's last answer", seconds(times.write_to_last_request))
    table.add_row("  canary's answers, failed ones among them", f"{times.answers}, {times.failed_answers}")


def _count_rows(table: Table, counts: Snapshot) -> None:
    table.add_row("requests sent", f"{counts.sent}")
    table.add_row("failed (by the app)", f"{counts.app_errors}")
    table.add_row("tenants harmed", f"{counts.harmed_tenants} of {counts.tenants}")
    table.add_row("transport errors", f"{counts.transport_errors}", style="bold red" if counts.transport_errors else "")
    table.add_row("answers no application produced", f"{counts.no_app}", style="bold red" if counts.no_app else "")


def seconds(value: float | None) -> str:
    """A duration for a person; one below zero means that the end came first."""
    if value is None:
        return "not seen"
    return f"{value:.2f} s" if value >= 0 else f"{-value:.2f} s before"
