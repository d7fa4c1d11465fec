"""What the demo's screen shows, as plain values, and how it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from canary_rollout.local.demo_measure import Manifest, Rate
from canary_rollout.local.load import Snapshot
from canary_rollout.model.units import FULL, UnitError, format_weight, parse_weight

BAR_WIDTH = 50
_SERVING, _ONE_ROW, TERSEST = 1, 2, 3
_VERDICT_STYLES = {"pass": "green", "fail": "bold red", "none": "yellow"}
_PHASE_STYLES = {"Succeeded": "bold green", "RolledBack": "bold red", "RollingBack": "bold red", "Paused": "yellow"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule's last word."""

    rule: str
    verdict: str
    message: str


@dataclass(frozen=True, slots=True)
class View:
    """One frame. Weights are basis points.

    Attributes:
        title: what the story is doing.
        phase: ``status.phase``.
        stage: name of the present stage, ``""`` between rollouts.
        stages: names and weights, in order.
        weight: the canary's share.
        message: ``status.message``: where it is, why, what happens next.
        verdicts: of the halt rules.
        rates: by ``arm/version``.
        counts: everything the load generator has counted.
        hint: the line for another terminal.
    """

    title: str
    phase: str = ""
    stage: str = ""
    stages: Sequence[tuple[str, int]] = ()
    weight: int = 0
    message: str = ""
    verdicts: Sequence[Verdict] = ()
    rates: dict[str, Rate] = field(default_factory=dict)
    counts: Snapshot | None = None
    hint: str = ""


def view_of(title: str, rollout: Manifest, rates: dict[str, Rate], counts: Snapshot | None, hint: str) -> View:
    """One frame from the CanaryRollout and the load's counts."""
    status = rollout.get("status") or {}
    stages = [(stage["name"], parse_weight(stage["weight"])) for stage in rollout.get("spec", {}).get("stages", [])]
    try:
        weight = parse_weight(status.get("weight", "0%"))
    except UnitError:
        weight = 0
    return View(
        title=title,
        phase=str(status.get("phase", "")),
        stage=str(status.get("stage", "")).partition(" ")[0],
        stages=stages,
        weight=weight,
        message=str(status.get("message", "")),
        verdicts=[
            # The rule's name stands in a column of its own already.
            Verdict(rule, one.get("verdict", ""), one.get("message", "").removeprefix(f"{rule}: "))
            for one in status.get("verdicts") or []
            for rule in [one.get("rule", "")]
        ],
        rates=rates,
        counts=counts,
        hint=hint,
    )


def fitted(view: View, console: Console) -> RenderableType:
    """The frame as tersely as the rows of the terminal ask for: what a taller one lost would be its last lines, the totals."""
    return next(
        (frame for terse in range(TERSEST) if len(console.render_lines(frame := draw(view, terse))) < console.height),
        draw(view, TERSEST),
    )


def draw(view: View, terse: int = 0) -> RenderableType:
    """The frame as something rich can print.

    Args:
        view: what is to be seen.
        terse: 1: without versions that get no requests; 2: a row for each verdict; 3: failing verdicts only.
    """
    parts: list[RenderableType] = [_stages(view), _bar(view.weight), Text()]
    if view.message:
        parts += [Text(view.message, style="bold"), Text()]
    if view.rates:
        parts.append(_versions(view, terse))
    if view.verdicts:
        parts.append(_verdicts(view.verdicts, terse))
    if view.counts is not None:
        parts += [Text(), Text(totals(view.counts), style="dim")]
    if view.hint:
        # Its first line alone: 24 rows have to hold the frame, and all of it stands above the picture.
        parts.append(Text(view.hint.partition("\n")[0], style="dim cyan", no_wrap=True, overflow="ignore"))
    return Panel(Group(*parts), title=view.title, title_align="left", border_style="blue")


def _stages(view: View) -> Text:
    line = Text()
    line.append(view.phase or "waiting", style=_PHASE_STYLES.get(view.phase, "bold cyan"))
    line.append("   ")
    names = [name for name, _ in view.stages]
    at = names.index(view.stage) if view.stage in names else -1
    for index, (name, weight) in enumerate(view.stages):
        mark, style = ("●", "bold cyan") if index == at else ("✔", "green") if index < at else ("·", "dim")
        line.append(f"{mark} {name} {format_weight(weight)}   ", style=style)
    return line


def _bar(weight: int) -> Text:
    filled = round(BAR_WIDTH * weight / FULL) or (1 if weight else 0)
    line = Text("canary ")
    line.append("█" * filled, style="magenta").append("░" * (BAR_WIDTH - filled), style="blue")
    return line.append(f" {format_weight(weight)}", style="bold")


def _versions(view: View, terse: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("version", "requests/s", "share", "errors/s", "error rate", "answered", "failed"):
        table.add_column(title, justify="left" if title == "version" else "right")
    everything = sum(rate.requests for rate in view.rates.values()) or 1.0
    for key, rate in sorted(view.rates.items(), reverse=True):
        if terse >= _SERVING and not rate.requests:
            continue
        failing = rate.errors / rate.requests if rate.requests else 0.0
        table.add_row(
            # In one piece: 80 columns have room for the demo's own names.
            Text(key.replace("/", " "), no_wrap=True),
            f"{rate.requests:.0f}",
            f"{100 * rate.requests / everything:.1f} %",
            f"{rate.errors:.1f}",
            Text(f"{100 * failing:.1f} %", style="bold red" if failing > 0.01 else ""),
            str(rate.answers),
            str(rate.failed),
            style="" if rate.requests else "dim",
        )
    return table


def _verdicts(verdicts: Sequence[Verdict], terse: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for one in verdicts:
        if terse >= TERSEST and one.verdict != "fail":
            continue
        style = _VERDICT_STYLES.get(one.verdict, "")
        message = Text(one.message, overflow="ellipsis", no_wrap=terse >= _ONE_ROW)
        table.add_row(one.rule, Text(one.verdict or "-", style=style), message)
    return table


def totals(counts: Snapshot) -> str:
    """The load's totals in one line."""
    return (
        f"{counts.sent} requests of {counts.tenants} tenants · {counts.app_errors} failed by the app · "
        f"{counts.harmed_tenants} tenants harmed · {counts.transport_errors} transport errors · "
        f"{counts.no_app} answers no application produced"
    )


def line(view: View) -> str:
    """The frame in one line, for output that is no terminal."""
    weight = format_weight(view.weight)
    served = ", ".join(
        f"{key} {rate.requests:.0f}/s ({rate.errors:.1f} errors/s)"
        for key, rate in sorted(view.rates.items(), reverse=True)
        if rate.requests
    )
    return f"{view.phase or 'waiting':12} {view.stage or '-':14} {weight:>6}  {served}"
