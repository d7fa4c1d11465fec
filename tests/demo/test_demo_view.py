"""What the demo shows: a picture on a terminal, lines in a file."""

import asyncio
import io
from types import SimpleNamespace

import pytest
from demo_parts import rollout, snapshot, text_of
from rich.console import Console

from canary_rollout.local.demo_measure import Rate, RouteLog
from canary_rollout.local.demo_screen import LiveScreen, PlainScreen, make_screen, progress_line
from canary_rollout.local.demo_story import showing
from canary_rollout.local.demo_view import Verdict, View, draw, fitted, line, view_of
from canary_rollout.local.progress import Progress


def test_a_frame_tells_stage_weight_rates_verdicts_and_what_comes_next():
    status = rollout(
        "Progressing",
        "5%",
        stage="first (1/2)",
        verdicts=[{"rule": "error-rate", "verdict": "pass", "message": "0.1 %"}],
    )
    view = view_of(
        "release v2",
        status,
        {"canary/v2": Rate(20, 8, 40, 16), "stable/v1": Rate(380, 0, 900, 0)},
        snapshot(sent=940),
        "hint",
    )
    shown = text_of(draw(view))
    for part in (
        "release v2",
        "Progressing",
        "● first 5%",
        "· ga 100%",
        "why",
        "canary v2",
        "40.0 %",
        "error-rate",
        "940 requests",
        "hint",
    ):
        assert part in shown
    assert "Progressing" in line(view)
    assert "canary/v2 20/s (8.0 errors/s)" in line(view)


def test_a_rules_name_is_not_said_twice():
    status = rollout("Progressing", verdicts=[{"rule": "errors", "verdict": "pass", "message": "errors: 0 % of 9"}])
    assert text_of(draw(view_of("t", status, {}, None, ""))).count("errors") == 1


def test_a_hint_takes_one_row_of_the_picture():
    shown = text_of(draw(view_of("t", rollout("Progressing"), {}, None, "export X\nkubectl canary")))
    assert "export X" in shown
    assert "kubectl canary" not in shown


async def test_what_goes_wrong_behind_the_picture_ends_what_waits_before_it():
    def broken() -> None:
        raise OSError("the watch broke")

    cast = SimpleNamespace(
        check=broken, load=SimpleNamespace(history=[]), rollout=SimpleNamespace(rollout={}), hint="", route=RouteLog()
    )
    limit = asyncio.timeout(60)

    async def wait() -> None:
        async with limit, showing(cast, SimpleNamespace(show=lambda _: None), ["t"]):
            await asyncio.Event().wait()

    with pytest.raises(OSError, match="the watch broke"):
        await wait()
    assert not limit.expired()


def test_a_route_that_somebody_mangled_is_no_write():
    log = RouteLog()
    log.take({"metadata": {}, "data": {"weights.json": "[" * 100_000}})
    assert log.writes == []


def test_a_frame_before_the_operators_first_word_is_drawn_too():
    assert "waiting" in text_of(draw(view_of("getting ready", {}, {}, None, "")))
    assert "waiting" in text_of(draw(view_of("t", rollout("", "soon"), {}, None, "")))


def test_plain_output_says_changes_at_once_and_repeats_nothing():
    out = io.StringIO()
    with PlainScreen(Console(file=out, width=200)) as screen:
        view = View("t", "Progressing", "first", weight=500, message="holding")
        for _ in range(3):
            screen.show(view)
        screen.show(View("t", "RolledBack", "", weight=0, message="because"))
        screen.progress(Progress("build controlplane", "net/http", 5, 100))
        screen.progress(Progress("build controlplane", "net/url", 6, 100))
        screen.print("table")
    text = out.getvalue()
    assert text.count("holding") == 1
    assert text.count("5%") == 1
    assert "RolledBack" in text
    assert "because" in text
    assert "5/100 packages" in text
    assert "6/100" not in text


def test_a_terminal_gets_a_picture_and_a_file_gets_lines():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    screen = make_screen(terminal)
    assert isinstance(screen, LiveScreen)
    with screen:
        screen.progress(Progress("start cluster", "starting", 0, 0))
        screen.show(View("release v2", "Progressing", weight=500, verdicts=[Verdict("error-rate", "fail", "30 %")]))
        screen.say("a line that stays")
        screen.print("and another")
    assert "a line that stays" in terminal.file.getvalue()
    assert isinstance(make_screen(terminal, plain=True), PlainScreen)
    assert isinstance(make_screen(Console(file=io.StringIO())), PlainScreen)


def test_progress_counts_packages_and_time():
    assert (
        progress_line(Progress("build prometheus", "tsdb", 7, 900), 61.4)
        == "build prometheus 7/900 packages (61 s): tsdb"
    )


def busy():
    """A frame that is taller than 24 rows."""
    verdicts = [
        {"rule": f"rule-{number}", "verdict": "fail" if number == 7 else "pass", "message": f"{number} " + "word " * 30}
        for number in range(8)
    ]
    rates = {
        "stable/v2": Rate(380, 0, 900, 0), "stable/v1": Rate(0, 0, 500, 0), "canary/v3-broken": Rate(20, 8, 40, 16)
    }  # fmt: skip
    return view_of("release", rollout("Progressing", "5%", verdicts=verdicts), rates, snapshot(sent=940), "hint")


@pytest.mark.parametrize("rows", [24, 30, 80])
def test_a_frame_is_as_terse_as_the_rows_ask_for_and_keeps_its_totals(rows):
    console = Console(width=80, height=rows, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(fitted(busy(), console))
    shown = console.file.getvalue()
    assert len(shown.splitlines()) < rows
    assert "rule-7" in shown
    assert "940 requests" in shown
    assert ("stable v1" in shown) == (rows == 80)


def test_the_last_frame_is_gone_at_the_end_however_small_the_terminal():
    console = Console(width=80, height=6, file=io.StringIO(), force_terminal=True, color_system=None)
    with LiveScreen(console) as screen:
        screen.show(busy())
        shown = console.file.tell()
    # The last frame of a Live is printed whole, whatever the terminal's height.
    assert "rule-7" not in console.file.getvalue()[shown:]
