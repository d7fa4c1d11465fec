"""Draws a :class:`RolloutView` on a terminal: 80 columns are enough, and every word that a colour stresses is there in text."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from canary_rollout.cli.session import OPERATOR_PODS
from canary_rollout.cli.view import (
    HistoryView,
    RolloutView,
    StageView,
    StopView,
    about,
    ago,
    instant_of,
    seconds_of,
    share_of,
)

_BAR: Final = 40
CONDITIONS: Final = "conditions"
EARLIER: Final = "earlier revisions"
LAST_COMMAND: Final = "the last command"
SILENT: Final = "rules that pass or have no verdict"
VERDICTS: Final = "verdicts"
STAGES: Final = "stages"
LEAST_FIRST: Final = (CONDITIONS, EARLIER, SILENT, LAST_COMMAND, VERDICTS, STAGES)
"""What goes first where the rows of a terminal do not hold everything."""
_MESSAGE: Final = 60
"""Columns that a message needs to be read beside its rollout."""
_MILLISECONDS: Final = re.compile(r"(\dT\d\d:\d\d:\d\d)\.\d{3}Z")
_PHASES: Final = {
    "Succeeded": "green",
    "Progressing": "cyan",
    "Promoting": "cyan",
    "Paused": "yellow",
    "AwaitingApproval": "yellow",
    "AwaitingPromotion": "yellow",
    "Halted": "red",
    "RollingBack": "red",
    "RolledBack": "red",
}
_STATES: Final = {
    "done": ("done", "green"),
    "now": ("now", "bold cyan"),
    "stopped": ("STOPPED", "bold red"),
    "ahead": ("", "dim"),
    "off": ("off", "dim"),
}
_VERDICTS: Final = {"pass": ("pass", "green"), "fail": ("FAIL", "bold red"), "none": ("no verdict", "yellow")}


def rollout(view: RolloutView, now: float, console: Console, without: frozenset[str] = frozenset()) -> RenderableType:
    """The whole status, without empty sections and those of ``LEAST_FIRST`` that are named."""
    parts: list[RenderableType] = [_head(view), Text(_tidy(view.message)), Text(), _facts(view, now, console)]
    for title, stop in (("Halted", view.halt), ("Paused", view.pause)):
        if stop is not None:
            parts += _section(title, _stop(stop, now))
    if view.stages and STAGES not in without:
        parts += _section("Stages", _stages(view.stages))
    if (view.verdicts or view.inactive_rules) and VERDICTS not in without:
        parts += _section("Verdicts", _verdicts(view, without))
    if view.conditions and CONDITIONS not in without:
        parts += _section("Conditions", _conditions(view, now))
    if view.last_command is not None and LAST_COMMAND not in without:
        parts += _section("Last command", _last_command(view, now))
    if view.history and EARLIER not in without:
        parts += _section("Earlier revisions", _history(view.history, now))
    return Group(*parts)


def table_of(views: Sequence[RolloutView], now: float, width: int, *, everywhere: bool) -> RenderableType:
    """A row for each rollout; its message behind it, or in lines of its own where ``width`` leaves it too little room."""
    titles = [*(["NAMESPACE"] if everywhere else []), "NAME", "PHASE", "STAGE", "WEIGHT", "NEXT"]
    rows: list[list[str | Text]] = [
        [
            *([view.namespace] if everywhere else []),
            view.name,
            Text(view.phase, _PHASES.get(view.phase, "")),
            view.stage or "-",
            view.weight,
            next_in(view, now) or "-",
        ]
        for view in views
    ]
    # Two spaces behind each column.
    widths = [max(len(title), *(len(row[place]) for row in rows)) + 2 for place, title in enumerate(titles)]
    if width - sum(widths) >= _MESSAGE:
        whole = ([*row, _tidy(view.message)] for row, view in zip(rows, views, strict=True))
        return grid([*titles, "MESSAGE"], whole, right=("WEIGHT",))
    lines: list[RenderableType] = []
    for place, view in enumerate(views):
        # Each in a table of its own: a message between two rows of one table would have to fit into a column.
        table = grid(titles, [rows[place]], right=("WEIGHT",))
        table.show_header = place == 0
        for column, columns in zip(table.columns, widths, strict=True):
            column.min_width = columns - 2
        lines += [table, Padding(Text(_tidy(view.message), "dim"), (0, 0, 0, 4))]
    return Group(*lines)


def summary(view: RolloutView, now: float) -> str:
    """One line for a log: what ``-w`` prints on every change where there is no terminal."""
    clock = datetime.fromtimestamp(now, UTC).strftime("%H:%M:%SZ")
    return " ".join(part for part in (clock, view.phase, view.stage, view.weight, view.message) if part)


def next_in(view: RolloutView, now: float) -> str:
    """``in 20h48m``, ``now`` when it is due, ``5m late`` when it should have come; empty when nothing is planned."""
    at = instant_of(view.next_change)
    if at is None:
        return ""
    if view.doubt and now - at >= 1:
        return f"{about(now - at)} late"
    return f"in {about(at - now)}" if at - now >= 1 else "now"


def grid(titles: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()) -> Table:
    """A table without lines; text is folded, never cut off, and never read as markup."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    last = len(titles) - 1
    for place, title in enumerate(titles):
        # Only the last column gives way when the terminal is narrow: names and numbers stay in one piece.
        table.add_column(title, justify="right" if title in right else "left", no_wrap=place != last, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def _section(title: str, body: RenderableType) -> list[RenderableType]:
    return [Text(), Text(title, "bold"), Padding(body, (0, 0, 0, 2))]


def _head(view: RolloutView) -> Text:
    head = Text(f"{view.namespace}/", "dim") + Text(view.name, "bold")
    return head + Text("  ") + Text(view.phase, f"bold {_PHASES.get(view.phase, '')}".strip())


def _facts(view: RolloutView, now: float, console: Console) -> Table:
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("Weight", _weight(view, console))
    if view.revision:
        stable = f", stable {view.stable_revision}" if view.stable_revision else ""
        facts.add_row("Revision", Text(f"{view.revision}{stable}"))
    if view.router:
        facts.add_row("Router", Text(view.router))
    if coming := next_in(view, now):
        facts.add_row("Next", Text(f"{coming} ({_clock(view.next_change)}) if nothing goes wrong"))
    for sent in view.waiting_commands:
        by = f" by {sent.by}" if sent.by else ""
        facts.add_row("Waiting", Text(f"{sent.command}{by}, sent {ago(sent.at, now)}, not taken up yet", "yellow"))
    if view.doubt:
        facts.add_row("Warning", Text(f"{view.doubt}: is the operator running? ({OPERATOR_PODS})", "bold yellow"))
    if view.outdated:
        facts.add_row("Spec", Text("the last edit has not been taken up by the operator yet", "yellow"))
    return facts


def _weight(view: RolloutView, console: Console) -> Text:
    full, empty = ("█", "░") if "utf" in console.encoding.lower() else ("#", ".")
    share = share_of(view.weight)
    # The smallest share is still to be seen, and only all of it fills the bar.
    cells = min(_BAR - 1, max(1, round(share * _BAR))) if 0 < share < 1 else round(share * _BAR)
    bar = Text(full * cells, "cyan") + Text(empty * (_BAR - cells), "dim") + Text(f" {view.weight}", "bold")
    if view.confirmed_weight != view.weight:
        bar += Text(f" wanted, {view.confirmed_weight} confirmed", "yellow")
    return bar


def _stop(stop: StopView, now: float) -> Text:
    where = f" at {stop.weight}" if stop.weight and stop.weight != "0%" else ""
    where += f" in {stop.stage}" if stop.stage else ""
    rule = f", rule {stop.rule}" if stop.rule else ""
    return Text(f"{stop.message}\n") + Text(f"{stop.reason}{rule}{where}, {ago(stop.at, now)}", "dim")


def _stages(stages: Sequence[StageView]) -> Table:
    rows: list[list[str | Text]] = []
    for stage in stages:
        word, style = _STATES[stage.state]
        marker = ">" if stage.state in {"now", "stopped"} else " "
        rows.append(
            [
                Text(f"{marker} {stage.name}", style),
                Text(stage.weight, style),
                Text(_hold(stage), style),
                Text(word, style),
                Text(", ".join(stage.notes), "" if stage.state == "now" else "dim"),
            ]
        )
    return grid(["  STAGE", "WEIGHT", "HOLD", "", ""], rows, right=("WEIGHT",))


def _hold(stage: StageView) -> str:
    if stage.held is None:
        return stage.hold
    over = stage.held > seconds_of(stage.hold)
    return f"{about(stage.held)} of {stage.hold}{' (extended)' if over else ''}"


def _verdicts(view: RolloutView, without: frozenset[str]) -> RenderableType:
    """A line per rule that says something; rules whose series the app never had are named in one line."""
    rows: list[list[str | Text]] = []
    if SILENT in without:
        return _counted(view)
    for entry in view.verdicts:
        word, style = _VERDICTS.get(entry.verdict, (entry.verdict, ""))
        numbers = entry.message.removeprefix(f"{entry.rule}: ")
        rows.append([entry.rule, Text(f"{word}: {entry.reason}" if entry.reason else word, style), numbers])
    table = grid(["RULE", "VERDICT", "NUMBERS"], rows)
    if not view.inactive_rules:
        return table
    words = f"inactive, for want of metrics: {', '.join(view.inactive_rules)}"
    return Group(*([table] if rows else []), Text(words, "dim"))


def _counted(view: RolloutView) -> RenderableType:
    """What fails with its numbers, of the rest how many."""
    failing = [entry for entry in view.verdicts if entry.verdict == "fail"]
    passing = sum(entry.verdict == "pass" for entry in view.verdicts)
    none = len(view.verdicts) - len(failing) - passing
    told = [f"{passing} pass", f"{none} no verdict", f"{len(view.inactive_rules)} inactive"]
    counts = Text(", ".join([*([f"{len(failing)} FAIL"] if failing else []), *told]))
    rows: list[list[str | Text]] = [
        [entry.rule, Text("FAIL", "bold red"), entry.message.removeprefix(f"{entry.rule}: ")] for entry in failing
    ]
    return Group(grid(["RULE", "VERDICT", "NUMBERS"], rows), counts) if rows else counts


def _conditions(view: RolloutView, now: float) -> Table:
    rows = []
    for entry in view.conditions:
        message = "as above" if entry.message == view.message else entry.message
        rows.append([entry.type, entry.status, entry.reason, f"{message} ({ago(entry.since, now)})".strip()])
    return grid(["TYPE", "STATUS", "REASON", "MESSAGE"], rows)


def _last_command(view: RolloutView, now: float) -> Text:
    last = view.last_command
    if last is None:
        return Text()
    answer = Text("accepted", "green") if last.accepted else Text("refused", "red")
    by = f" by {last.by}" if last.by else ""
    message = f": {last.message}" if last.message else ""
    return Text(f"{last.command}{by}, {ago(last.at, now)}, ") + answer + Text(message)


def _history(entries: Sequence[HistoryView], now: float) -> Table:
    rows: list[list[str | Text]] = [
        [entry.revision, Text(entry.result, _PHASES.get(entry.result, "")), ago(entry.ended_at, now), entry.message]
        for entry in entries
    ]
    return grid(["REVISION", "RESULT", "WHEN", "WHY"], rows)


def _tidy(sentence: str) -> str:
    """Times in a sentence without their milliseconds, which matter to the operator alone."""
    return _MILLISECONDS.sub(r"\1Z", sentence)


def _clock(instant: str) -> str:
    """``2026-11-21 10:32:05 UTC``."""
    at = instant_of(instant)
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
