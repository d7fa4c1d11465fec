"""What a backtest came to: for programs, and as tables for people."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from canary_rollout.analysis.verdict import Outcome, Verdict
from canary_rollout.cli.render import grid
from canary_rollout.cli.simulate import Event
from canary_rollout.cli.view import about, clean
from canary_rollout.model.units import format_instant, format_weight


@dataclass(slots=True)
class Tally:
    """What one rule, gate or test said over the whole stretch.

    Attributes:
        ticks: evaluations by outcome: pass, fail, none.
        longest: longest unbroken breach, seconds; how long it took to fail is the rule's ``for``.
        worst: the sentence with the worst value.
        first_fail: POSIX seconds of its first fail; ``None`` when it never failed.
    """

    rule: str
    ticks: dict[str, int] = field(default_factory=lambda: {"pass": 0, "fail": 0, "none": 0})
    longest: float = 0.0
    worst: str = ""
    first_fail: float | None = None
    _worst: float = 0.0

    def take(self, verdict: Verdict, at: float) -> None:
        """Count one evaluation."""
        self.ticks[verdict.outcome.value] += 1
        if verdict.breached_since is not None:
            self.longest = max(self.longest, at - verdict.breached_since)
        if verdict.outcome is Outcome.FAIL and self.first_fail is None:
            self.first_fail = at
        badness = _badness(verdict)
        if not self.worst or badness > self._worst:
            self._worst, self.worst = badness, verdict.message.removeprefix(f"{verdict.rule}: ")


@dataclass(slots=True)
class Result:
    """What came of it.

    Attributes:
        verdict: ``succeeded``, ``rolled back``, ``halted``, ``paused`` or ``under way`` (the stretch was over first).
        message: the sentence that the status would have held.
        ended: POSIX seconds of the end; ``None`` when it was still under way.
        began: POSIX seconds of the canary's first request, with which the rollout begins.
        through: POSIX seconds of the last one.
    """

    began: float
    through: float = 0.0
    verdict: str = "under way"
    message: str = ""
    rule: str = ""
    ended: float | None = None
    events: list[Event] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    ticks: int = 0


def as_data(result: Result) -> dict[str, Any]:
    """The result for programs."""
    return {
        "verdict": result.verdict,
        "message": result.message,
        **({"rule": result.rule} if result.rule else {}),
        "from": format_instant(result.began),
        "to": format_instant(result.through),
        **({"endedAt": format_instant(result.ended)} if result.ended is not None else {}),
        "evaluations": result.ticks,
        "events": [
            {
                "at": format_instant(event.at),
                "kind": event.kind,
                "stage": event.stage,
                "weight": format_weight(event.weight),
                "message": event.message,
                **({"rule": event.rule} if event.rule else {}),
            }
            for event in result.events
        ],
        "rules": [
            {
                "rule": tally.rule,
                "evaluations": dict(tally.ticks),
                "longestBreachSeconds": tally.longest,
                "worst": tally.worst,
                **({"firstFailAt": format_instant(tally.first_fail)} if tally.first_fail is not None else {}),
            }
            for tally in result.tallies.values()
        ],
    }


def show(console: Console, what: str, result: Result) -> None:
    """The result for people; ``what`` names the rollout."""
    style = "bold green" if result.verdict == "succeeded" else "bold yellow" if result.ended is None else "bold red"
    after = f" {about(result.ended - result.began)} after the start" if result.ended is not None else ""
    at = f" at {_clock(result.ended)}" if result.ended is not None else f" at {_clock(result.through)}"
    by = f" by {result.rule}" if result.rule else ""
    would = "would have " if result.verdict == "succeeded" else "would have been "
    console.print(Text(f"{what} {would}") + Text(result.verdict, style) + Text(f"{by}{at}{after}"))
    console.print(Text(clean(result.message)))
    console.print(Text("\nWhat would have happened", "bold"))
    console.print(_story(result.events))
    console.print(Text("\nRules, gates and tests over the whole time", "bold"))
    shown = [tally for tally in result.tallies.values() if tally.ticks["pass"] or tally.ticks["fail"] or tally.longest]
    shown.sort(key=lambda tally: (-tally.ticks["fail"], -tally.longest))
    console.print(_tallied(shown))
    silent = [tally.rule for tally in result.tallies.values() if tally not in shown]
    if silent:
        console.print(Text(f"without a verdict at any time: {', '.join(silent)}", "dim"))


def _story(events: list[Event]) -> RenderableType:
    rows: list[list[str | Text]] = [
        [
            _clock(event.at),
            event.stage or "-",
            format_weight(event.weight),
            Text(clean(_sentence(event)), "yellow" if event.warning else ""),
        ]
        for event in _told(events)
    ]
    return grid(["WHEN (UTC)", "STAGE", "WEIGHT", "WHAT"], rows, right=["WEIGHT"])


def _tallied(tallies: list[Tally]) -> RenderableType:
    rows: list[list[str | Text]] = [
        [
            tally.rule,
            str(tally.ticks["pass"]),
            Text(str(tally.ticks["fail"]), "red" if tally.ticks["fail"] else ""),
            str(tally.ticks["none"]),
            about(tally.longest) if tally.longest else "-",
            clean(tally.worst),
        ]
        for tally in tallies
    ]
    titles = ["RULE", "PASS", "FAIL", "NONE", "BREACHED", "AT ITS WORST"]
    return grid(titles, rows, right=titles[1:5])


def _told(events: list[Event]) -> list[Event]:
    """Events for people: changes of the weight, and warnings; a fail that ends the rollout is told once."""
    notes = {(event.at, event.rule) for event in events if event.kind == "note" and event.rule}
    return [
        event
        for event in events
        if event.kind == "weight"
        or (event.kind == "note" and event.warning)
        or (event.kind == "verdict" and (event.at, event.rule) not in notes)
    ]


def _sentence(event: Event) -> str:
    return f"{event.rule}: {event.message.removeprefix(f'{event.rule}: ')}" if event.rule else event.message


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M:%S")


def _badness(verdict: Verdict) -> float:
    """How bad a verdict is, for finding the worst: fails first, then breaches, then how far the value is from its bound."""
    grade = {Outcome.FAIL: 3e9, Outcome.PASS: 1e9, Outcome.NONE: 0.0}[verdict.outcome]
    if verdict.breached_since is not None and verdict.outcome is Outcome.NONE:
        grade = 2e9
    if verdict.value is None or verdict.threshold is None:
        return grade
    return grade + min(abs(verdict.value - verdict.threshold) / max(abs(verdict.threshold), 1e-9), 1e6) * (
        1 if grade >= 2e9 else -1
    )
