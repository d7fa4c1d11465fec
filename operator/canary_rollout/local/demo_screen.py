"""The demo's output: a live picture on a terminal, plain lines everywhere else."""

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from canary_rollout.local.demo_view import View, fitted, line
from canary_rollout.local.progress import Progress

PLAIN_EVERY_SECONDS = 5.0
PLAIN_PROGRESS_SECONDS = 15.0
REFRESH_PER_SECOND = 4


class Screen(Protocol):
    """Where the demo tells what happens. A context manager."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, leaving the terminal as it was."""
        ...

    def progress(self, report: Progress) -> None:
        """Work that takes time: what, and how much of it is done."""
        ...

    def say(self, text: str) -> None:
        """One line that stays."""
        ...

    def show(self, view: View) -> None:
        """The present frame."""
        ...

    def print(self, what: RenderableType) -> None:
        """Anything else that stays."""
        ...


def progress_line(report: Progress, elapsed: float) -> str:
    """One report as a line: step, share done, elapsed time, sentence."""
    done = f" {report.done}/{report.total} packages" if report.total and report.step.startswith("build") else ""
    return f"{report.step}{done} ({elapsed:.0f} s): {report.message}"


class _Steps:
    """When each step of the work began."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def elapsed(self, step: str) -> float:
        now = time.monotonic()
        return now - self._began.setdefault(step, now)


class PlainScreen:
    """Lines; each change at once, and a sign of life every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._steps = _Steps()
        self._last_step = ""
        self._last_progress = 0.0
        self._last_view: View | None = None
        self._last_shown = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def progress(self, report: Progress) -> None:
        """A line when the step changes, and every quarter of a minute."""
        now = time.monotonic()
        elapsed = self._steps.elapsed(report.step)
        if report.step == self._last_step and report.total and now - self._last_progress < PLAIN_PROGRESS_SECONDS:
            return
        self._last_step, self._last_progress = report.step, now
        self.say(progress_line(report, elapsed))

    def say(self, text: str) -> None:
        """One line with the time since the start."""
        self._console.print(
            f"[{time.monotonic() - self._began:6.1f}s] {text}", markup=False, highlight=False, soft_wrap=True
        )

    def show(self, view: View) -> None:
        """A line when something but the rates changed, and every few seconds."""
        before = self._last_view
        if view.message and (before is None or before.message != view.message):
            self.say(view.message)
        now = time.monotonic()
        same = before is not None and (before.phase, before.stage, before.weight) == (
            view.phase,
            view.stage,
            view.weight,
        )
        if not same or now - self._last_shown >= PLAIN_EVERY_SECONDS:
            self._last_shown = now
            self.say(line(view))
        self._last_view = view

    def print(self, what: RenderableType) -> None:
        """As it is."""
        self._console.print(what)


class _ProgressLine:
    """A report whose elapsed time goes on between two reports (a linker says nothing for half a minute)."""

    def __init__(self, report: Progress, steps: _Steps) -> None:
        self._report = report
        self._steps = steps

    def __rich__(self) -> Text:
        text = progress_line(self._report, self._steps.elapsed(self._report.step))
        return Text(f"… {text}", overflow="ellipsis", no_wrap=True)


class LiveScreen:
    """One picture that changes in place, lines above it that stay."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(Text(), console=console, refresh_per_second=REFRESH_PER_SECOND, transient=True)
        self._steps = _Steps()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What is taller than the terminal cannot be taken away again, so the last frame goes before the end.
        self._live.update(Text())
        self._live.stop()

    def progress(self, report: Progress) -> None:
        """The present step in one line."""
        self._live.update(_ProgressLine(report, self._steps))

    def say(self, text: str) -> None:
        """A line above the picture."""
        self._live.console.print(text, markup=False, highlight=False)

    def show(self, view: View) -> None:
        """Replace the picture."""
        self._live.update(fitted(view, self._console))

    def print(self, what: RenderableType) -> None:
        """Above the picture."""
        self._live.console.print(what)


def make_screen(console: Console, *, plain: bool = False) -> Screen:
    """A live screen on a terminal, else lines."""
    return PlainScreen(console) if plain or not console.is_terminal else LiveScreen(console)
