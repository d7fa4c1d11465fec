"""``health``: live numbers of both versions, their trend, what the rules say, and what is out of the ordinary."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import click

from canary_rollout.cli.check import standing, subject_named
from canary_rollout.cli.options import DURATION, name_argument, output_option, prometheus_options, target_options
from canary_rollout.cli.session import Connection, Session, session_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.text import Text

    from canary_rollout.cli.asking import Subject
    from canary_rollout.cli.evaluate import Evaluator, Line
    from canary_rollout.metrics.port import Sampler

POINTS: Final = 60
"""Values of the past in one look."""
SPARK: Final = 20
MEASURES: Final = ("request-rate", "error-rate", "latency-p50", "latency-p99", "memory", "cpu")
FAR: Final = 4.0
"""Robust standard deviations from the median of the past that are out of the ordinary."""
APART: Final = 1.5
"""Times stable's value that the canary's may be before it is said."""
SILENT: Final = "what has no verdict"
ANOMALIES: Final = "anomalies"
LEAST_FIRST: Final = (SILENT, ANOMALIES)
"""What goes first where the rows of a terminal do not hold everything."""
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_ASCII: Final = "_.-=+*#@"


@dataclass(frozen=True, slots=True)
class Series:
    """One measure of one version over the time looked at; ``None`` where there was no value."""

    measure: str
    version: str
    values: tuple[float | None, ...]

    @property
    def known(self) -> list[float]:
        """The values there are."""
        return [value for value in self.values if value is not None]

    @property
    def latest(self) -> float | None:
        """The newest value; ``None`` when it is missing."""
        return self.values[-1] if self.values else None

    @property
    def trend(self) -> float | None:
        """How the median of the last third stands to that of the first, as a ratio; ``None`` when it cannot be said."""
        from canary_rollout.analysis.robust import median

        third = len(self.values) // 3
        first, last = (
            [value for value in part if value is not None]
            for part in (self.values[:third], self.values[len(self.values) - third :])
        )
        if len(first) < 3 or len(last) < 3 or median(first) <= 0:
            return None
        return median(last) / median(first)


@dataclass(frozen=True, slots=True)
class Look:
    """One look.

    Attributes:
        anomalies: what is out of the ordinary, one sentence each.
        outcome: ``pass``, ``fail`` or ``none``.
    """

    at: float
    series: list[Series]
    lines: "list[Line]"
    anomalies: list[str]
    outcome: str


@click.command(short_help="Live numbers of both versions, rules, trend and anomalies.")
@name_argument
@click.option("--stage", metavar="NAME", help="Judge by this stage; default: the present one, else the first.")
@click.option(
    "--duration",
    type=DURATION,
    default="10m",
    show_default=True,
    help="Watch so long; also how far back the trend looks.",
)
@click.option("--once", is_flag=True, help="One look, and the end.")
@prometheus_options
@output_option
@target_options
@click.pass_context
def health(ctx: click.Context, /, *, name: str, stage: str | None, output: str | None, **given: Any) -> int:
    """Watch both versions of rollout NAME: requests, errors, latency, memory and CPU, with trend, rules and anomalies.

    Exit code, by the last look: 0 healthy; 1 a rule, gate or test fails or is breached; 3 no verdict, or no answer.
    """
    session = session_of(ctx)
    if output and not given["once"]:
        raise click.UsageError("--output prints one look: add --once")
    done: list[int] = []

    async def watch(connection: Connection) -> None:
        from canary_rollout.cli.errors import Exit
        from canary_rollout.cli.evaluate import Evaluator, stage_named
        from canary_rollout.model.units import parse_duration

        subject = await subject_named(connection, name, given)
        watcher = Watcher(
            session, subject, Evaluator(subject, stage_named(subject, stage)), parse_duration(given["duration"])
        )
        async with session.tools.sampler() as sampler:
            if given["once"]:
                look = await watcher.look(sampler)
                _tell(session, watcher, look, output)
            else:
                look = await _follow(session, watcher, sampler)
        done.append({"pass": Exit.OK, "fail": Exit.REFUSED, "none": Exit.UNREACHABLE}[look.outcome])

    return session.run(watch) or done[0]


@dataclass(slots=True)
class Watcher:
    """Looks again and again.

    Attributes:
        length: seconds that the trend looks back.
    """

    session: Session
    subject: "Subject"
    evaluator: "Evaluator"
    length: float
    looks: int = 0
    worst: dict[str, str] = field(default_factory=dict)

    async def look(self, sampler: "Sampler") -> Look:
        """Ask for the past and the present, and judge."""
        from canary_rollout.cli.evaluate import outcome_of

        now = self.session.tools.now()
        series = await self._past(now)
        lines = self.evaluator.lines(await self.evaluator.now(sampler, now))
        self.looks += 1
        return Look(now, series, lines, anomalies(series), outcome_of(lines))

    async def _past(self, now: float) -> list[Series]:
        from canary_rollout.analysis.readings import MeasureKey, ReadingKind
        from canary_rollout.cli.asking import unreachable
        from canary_rollout.cli.errors import CliError, Exit
        from canary_rollout.cli.history import History

        window = min(self.subject.spec.metrics.window, max(60.0, self.length / 10))
        keys = [MeasureKey(measure, window) for measure in MEASURES]
        request = replace(self.subject.request(self.evaluator.stage), measures=frozenset(keys), compared=False)
        step = max(1.0, round(self.length / POINTS))
        values: dict[tuple[MeasureKey, str], list[float | None]] = {}
        async with History(request) as history:
            async for tick in history.ticks(now - step * POINTS, now, step):
                for key in keys:
                    pair = tick.samples.pair(key)
                    for version, reading in (("stable", pair.stable), ("canary", pair.canary)):
                        if reading.kind is ReadingKind.UNAVAILABLE:
                            raise CliError(unreachable(request.server, reading.message), Exit.UNREACHABLE)
                        values.setdefault((key, version), []).append(reading.value)
        return [Series(key.what, version, tuple(found)) for (key, version), found in values.items()]


def anomalies(series: Sequence[Series]) -> list[str]:
    """What is out of the ordinary, robustly: a value far from its own past, or the canary far from stable."""
    from canary_rollout.analysis.robust import median, spread

    found = []
    by_name = {(one.measure, one.version): one for one in series}
    for one in series:
        past, latest = one.known[:-1], one.latest
        if latest is None and len(past) >= 12:
            found.append(f"{one.measure} of {one.version} was there and is gone")
        if latest is None or len(past) < 12:
            continue
        middle = median(past)
        scale = max(spread(past, middle), 0.05 * abs(middle), 1e-6)
        if abs(latest - middle) > FAR * scale:
            found.append(
                f"{one.measure} of {one.version} is {_number(one.measure, latest)}, its median over this time is "
                f"{_number(one.measure, middle)}"
            )
    for measure in MEASURES:
        stable, canary = (by_name.get((measure, version)) for version in ("stable", "canary"))
        if (
            measure == "request-rate"
            or stable is None
            or canary is None
            or stable.latest is None
            or canary.latest is None
        ):
            continue
        if canary.latest > APART * stable.latest and canary.latest - stable.latest > _least(measure):
            found.append(
                f"{measure} of the canary is {_number(measure, canary.latest)}, stable's is {_number(measure, stable.latest)}"
            )
    return found


def _least(measure: str) -> float:
    """A difference below this is not worth a word: a tenth of a per cent of errors, 10 ms, 5 % of a limit."""
    return 0.001 if measure == "error-rate" else 0.01 if measure.startswith("latency") else 0.05


async def _follow(session: Session, watcher: Watcher, sampler: "Sampler") -> Look:
    """Look at every interval until the time is over; on a terminal in place, else a line per look and the last in full."""
    console, interval = session.tools.console(), watcher.subject.spec.metrics.interval
    end = session.tools.now() + watcher.length
    look = await watcher.look(sampler)
    if not console.is_terminal:
        while session.tools.now() < end:
            click.echo(_summary(look))
            await session.tools.sleep(interval)
            look = await watcher.look(sampler)
        _tell(session, watcher, look, None)
        return look
    from rich.live import Live
    from rich.text import Text

    from canary_rollout.cli.screenful import fitting

    foot, whole = Text("Ctrl-C ends the view, not the rollout.", "dim"), f"kubectl canary check {watcher.subject.name}"
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            draw = partial(picture, session, watcher, look)
            live.update(fitting(console, draw, LEAST_FIRST, foot, whole), refresh=True)
            if session.tools.now() >= end:
                return look
            await session.tools.sleep(interval)
            look = await watcher.look(sampler)


def _tell(session: Session, watcher: Watcher, look: Look, output: str | None) -> None:
    if output:
        from canary_rollout.cli.show import print_data

        print_data(_data(watcher, look), output)
    else:
        session.tools.console().print(picture(session, watcher, look))
    if watcher.subject.problem:
        click.echo(watcher.subject.problem, err=True)


def _summary(look: Look) -> str:
    from datetime import UTC, datetime

    from canary_rollout.cli.evaluate import Word

    words = [line.word for line in look.lines]
    latest = {(one.measure, one.version): one.latest for one in look.series}
    parts = [
        f"{version} {_number('request-rate', latest.get(('request-rate', version)))}, "
        f"{_number('error-rate', latest.get(('error-rate', version)))} failed, "
        f"p99 {_number('latency-p99', latest.get(('latency-p99', version)))}"
        for version in ("canary", "stable")
    ]
    counts = f"{words.count(Word.PASS)} pass, {words.count(Word.FAIL) + words.count(Word.BREACHED)} fail"
    clock = datetime.fromtimestamp(look.at, UTC).strftime("%H:%M:%SZ")
    return f"{clock} {look.outcome}: {'; '.join(parts)}; {counts}; {len(look.anomalies)} anomalies"


def picture(session: Session, watcher: Watcher, look: Look, without: frozenset[str] = frozenset()) -> "RenderableType":
    """Everything of one look, without the parts of ``LEAST_FIRST`` that are named."""
    from rich.console import Group
    from rich.text import Text

    words = {
        "pass": ("healthy", "bold green"),
        "fail": ("NOT HEALTHY", "bold red"),
        "none": ("NO VERDICT", "bold yellow"),
    }
    subject, stage = watcher.subject, watcher.evaluator.stage
    blocks = _BLOCKS if "utf" in session.tools.console().encoding.lower() else _ASCII
    where = f", stage {stage.name}" if stage is not None else ""
    return Group(
        Text(f"{subject.namespace}/{subject.name}{where}: ") + Text(*words[look.outcome]),
        *([Text(at_rest, "yellow")] if (at_rest := standing(subject)) else []),
        Text(),
        *_numbers(watcher, look, blocks),
        *_judgements(look, without),
        *(Text(f"! {line}", "yellow") for line in look.anomalies if ANOMALIES not in without),
    )


def _numbers(watcher: Watcher, look: Look, blocks: str) -> "Iterator[RenderableType]":
    """The table of what is measured; none where nothing is known."""
    from canary_rollout.cli.render import grid
    from canary_rollout.cli.view import about

    rows: list[list[str | Text]] = []
    by_name = {(one.measure, one.version): one for one in look.series}
    for measure in MEASURES:
        for version in ("stable", "canary"):
            one = by_name[measure, version]
            if one.known:
                label = measure if version == "stable" or not by_name[measure, "stable"].known else ""
                rows.append(
                    [label, version, _number(measure, one.latest), sparkline(one.values, blocks), _trend(one.trend)]
                )
    if rows:
        titles = ["METRIC", "VERSION", "NOW", f"LAST {about(watcher.length).upper()}", "TREND"]
        yield grid(titles, rows, right=["NOW"])


def _judgements(look: Look, without: frozenset[str]) -> "Iterator[RenderableType]":
    """How many rules, gates and tests pass, and a table of those that do not."""
    from rich.text import Text

    from canary_rollout.cli.evaluate import Word
    from canary_rollout.cli.render import grid
    from canary_rollout.cli.view import clean

    told = {Word.FAIL, Word.BREACHED} if SILENT in without else {Word.FAIL, Word.BREACHED, Word.NONE}
    bad = [line for line in look.lines if line.word in told]
    counted = [line for line in look.lines if line.word is not Word.INACTIVE]
    passing = sum(line.word is Word.PASS for line in counted)
    yield Text()
    yield Text(f"{passing} of {len(counted)} rules, gates and tests pass")
    if bad:
        styles = {Word.FAIL: "bold red", Word.BREACHED: "bold red", Word.NONE: "yellow"}
        table: list[list[str | Text]] = [
            [line.verdict.rule, Text(line.word.value, styles[line.word]), clean(line.message)] for line in bad
        ]
        yield grid(["NAME", "VERDICT", "NUMBERS"], table)


def sparkline(values: Sequence[float | None], blocks: str = _BLOCKS, width: int = SPARK) -> str:
    """The values as a line of blocks, newest last; a blank where there is none. Each block is the mean of its part."""
    size = max(1, -(-len(values) // width))
    means: list[float | None] = []
    for start in range(0, len(values), size):
        part = [value for value in values[start : start + size] if value is not None and isfinite(value)]
        means.append(sum(part) / len(part) if part else None)
    known = [mean for mean in means if mean is not None]
    if not known:
        return " " * len(means)
    low, high = min(known), max(known)
    # A line that hardly moves is flat: noise of a per cent must not look like mountains.
    if high - low < 0.02 * max(abs(high), abs(low), 1e-12):
        return "".join(" " if mean is None else blocks[len(blocks) // 2 - 1] for mean in means)
    last = len(blocks) - 1
    return "".join(" " if mean is None else blocks[round((mean - low) / (high - low) * last)] for mean in means)


def _trend(ratio: float | None) -> str:
    if ratio is None:
        return ""
    if 0.9 <= ratio <= 1.1:
        return "steady"
    return (
        f"{'up' if ratio > 1 else 'down'} to {ratio:.0f}x"
        if ratio >= 10
        else f"{'up' if ratio > 1 else 'down'} to {ratio:.2g}x"
    )


def _number(measure: str, value: float | None) -> str:
    if value is None:
        return "-"
    if measure == "request-rate":
        return f"{value:.3g}/s" if value < 1000 else f"{value:.0f}/s"
    if measure.startswith("latency"):
        return f"{value * 1000:.0f}ms" if value < 10 else f"{value:.1f}s"
    return f"{value:.2%}"


def _data(watcher: Watcher, look: Look) -> dict[str, Any]:
    from canary_rollout.model.units import format_instant

    stage = watcher.evaluator.stage
    return {
        "namespace": watcher.subject.namespace,
        "name": watcher.subject.name,
        **({"stage": stage.name} if stage is not None else {}),
        "at": format_instant(look.at),
        "verdict": look.outcome,
        "metrics": [
            {
                "metric": one.measure,
                "version": one.version,
                **({"now": one.latest} if one.latest is not None else {}),
                **({"trend": one.trend} if one.trend is not None else {}),
                "values": list(one.values),
            }
            for one in look.series
            if one.known
        ],
        "checks": [line.to_dict() for line in look.lines],
        "anomalies": look.anomalies,
    }
