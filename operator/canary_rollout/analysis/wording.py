"""Numbers and verdicts as a person reads them."""

from datetime import UTC, datetime

from canary_rollout.model.presets import Unit, unit_of
from canary_rollout.model.spec import Measure
from canary_rollout.model.units import format_duration


def number(value: float) -> str:
    """Three significant digits, and all digits before the point: ``0.0123``, ``12.3``, ``1240``."""
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def quantity(measure: Measure, value: float) -> str:
    """A measure's value with its unit: per cent for shares, ms or s for times, requests per second."""
    unit = unit_of(measure.preset)
    if unit in {Unit.FAILED, Unit.SHARE}:
        return f"{number(value * 100)} %"
    if unit is Unit.SECONDS:
        return f"{number(value)} s" if value >= 1 else f"{number(value * 1000)} ms"
    if unit is Unit.PER_SECOND:
        return f"{number(value)} requests/s"
    return number(value)


def clock(posix: float) -> str:
    """``10:02:13`` in UTC."""
    return datetime.fromtimestamp(posix, UTC).strftime("%H:%M:%S")


def sentence(measure: Measure, value: float, requests: float | None, window: float) -> str:
    """What was measured: ``12 % of 240 requests failed in 5m``."""
    count = "" if requests is None else f"{requests:.0f} requests"
    if measure.preset == "error-rate":
        return f"{quantity(measure, value)} of {count or 'the requests'} failed in {format_duration(window)}"
    over = f" over {count}" if count else ""
    return f"{quantity(measure, value)}{over} in {format_duration(window)}"
