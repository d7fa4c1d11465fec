"""Draws a report for people."""

import math
from typing import Final

from rich.console import Console
from rich.text import Text

from canary_rollout.cli.differ.report import Report, Times
from canary_rollout.cli.render import grid

_BAR: Final = 30
_WORDS: Final = {"pass": ("PASS", "bold green"), "fail": ("FAIL", "bold red"), "none": ("NO VERDICT", "bold yellow")}


def draw(console: Console, report: Report) -> None:
    """Verdict first, then what it rests on."""
    word, style = _WORDS[report.verdict]
    console.print(Text(word, style) + Text(f"  {report.message}"))
    stable, canary = report.times
    if stable is not None and canary is not None:
        console.print(Text(f"Answered in (p50, p95, p99): stable {_times(stable)}, canary {_times(canary)}", "dim"))
    if report.places:
        console.print(Text("\nWhere they differ", "bold"))
        rows = [[str(count), kind, place] for place, kind, count in report.places]
        console.print(grid(["REQUESTS", "KIND", "PLACE"], rows, right=["REQUESTS"]))
    if any(count for _, count in report.histogram):
        console.print(Text("\nHow far numbers are apart", "bold"))
        console.print(grid(["UP TO", "NUMBERS", ""], _bars(report, console), right=["UP TO", "NUMBERS"]))
    if report.outliers:
        console.print(Text("\nThe worst", "bold"))
        for request, difference in report.outliers:
            apart = f" ({difference.relative:.2%} apart)" if difference.relative is not None else ""
            console.print(Text(request))
            console.print(Text(f"  {difference.path} {difference.kind}: stable {difference.stable or '-'}, "), end="")
            console.print(Text(f"canary {difference.canary or '-'}{apart}"))


def _bars(report: Report, console: Console) -> list[list[str | Text]]:
    full = "█" if "utf" in console.encoding.lower() else "#"
    most = max(count for _, count in report.histogram)
    return [
        [_end(end), str(count), Text(full * math.ceil(count / most * _BAR), "cyan")] for end, count in report.histogram
    ]


def _end(end: float) -> str:
    return "equal" if end == 0 else "more" if math.isinf(end) else f"{end:.4%}".rstrip("0").rstrip(".%") + "%"


def _times(times: Times) -> str:
    return ", ".join(f"{value * 1000:.0f}ms" for value in (times.p50, times.p95, times.p99))
