"""Which ticks a rollout's comparison is missing, and asking for them: in order, again where any were missed.

What counts is the tick grid: evaluation times depend on the rollout's name and interval alone, so a tick that was missed (a
restart, a Prometheus that was away) is asked for again at the very same time, and the evidence is the same.
"""

import asyncio
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from canary_rollout.analysis.readings import CounterReadings
from canary_rollout.controller.running import HISTORY_STEP, Running, TickObserver
from canary_rollout.controller.turns import Turns
from canary_rollout.metrics.port import Sampler
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.model.spec import CanaryRolloutSpec

log = structlog.get_logger(__name__)

SUB_TICKS: Final = 1.0
"""Evaluations fall on whole multiples of this (seconds) within an interval: those of one sub-tick share their queries."""

MOST_TICKS: Final = 1000
"""Ticks that are replayed at a time; the rest follows at the next evaluation."""

LONGEST_REPLAY: Final = 86_400.0
"""Seconds. Ticks further back are given up; the evidence of before is kept."""

FEWEST_OF_TENANTS: Final = 5
"""Minutes of the tenants' past that are worth something; with less, a sticky stage pauses instead of rolling back."""

SHARED_TICKS: Final = 12
"""Missing ticks that are asked for one by one; more are asked for at once."""

LONGEST_LOOK: Final = 300.0
"""Seconds for one look back, waiting for a place not counted: who holds one gives it back some day."""

WAITING: Final = "others are looking back first"
LOOKING: Final = "looking back is under way"


def place_of(key: tuple[str, str], interval: float) -> float:
    """Return a rollout's place within its interval, seconds: spread over the sub-ticks.

    A namespace has one place, so that what is asked there is asked of its pods alone: spread by name, every query would be
    answered with the series of nearly all rollouts, ten times in an interval.
    """
    ticks = max(1, math.floor(interval / SUB_TICKS))
    return zlib.crc32(key[0].encode()) % ticks * SUB_TICKS


def latest_tick(key: tuple[str, str], spec: CanaryRolloutSpec, now: float) -> float:
    """Return the latest evaluation time on a rollout's grid whose samples have come, POSIX seconds."""
    interval, place = spec.metrics.interval, place_of(key, spec.metrics.interval)
    lag = spec.metrics.comparison_lag
    return round(math.floor((now - lag - place) / interval) * interval + place, 3)


@dataclass(slots=True)
class Wanted:
    """What the latest evaluation wants to know; a look back that began before goes by it as well.

    Attributes:
        request: what is asked for.
        created: by pod name, when it was created, POSIX seconds.
        latest: the latest tick whose samples have come, POSIX seconds.
    """

    request: MetricRequest
    created: Mapping[str, float]
    latest: float


def on_grid(running: Running, latest: float) -> float:
    """Return the first tick that is missing, on the grid of ``latest``; not further back than a day."""
    step = running.interval
    missing = math.floor((latest - running.through) / step + 1e-6)
    missing = min(missing, math.floor(LONGEST_REPLAY / step))
    return round(latest - (missing - 1) * step, 3)


async def compare(
    spec: CanaryRolloutSpec,
    running: Running,
    sampler: Sampler,
    wanted: Wanted,
    *,
    observer: TickObserver | None = None,
    turns: Turns | None = None,
) -> None:
    """Feed the ticks that are missing; what the comparison says then is asked of ``running``.

    Where there is much to look back at it waits for a place and takes its time: whoever must not wait runs it beside, one at a
    time for a rollout, and asks :meth:`Running.compared` meanwhile. It may be cancelled at any time and called again.

    Args:
        spec: the rollout's.
        running: its comparison.
        sampler: asks Prometheus.
        wanted: what it is asked for; may be brought up to date meanwhile.
        observer: told about every tick.
        turns: shared with all others on this event loop.
    """
    turns, sticky = turns or Turns(), spec.traffic.sticky is not None
    if not running.tries and wanted.latest - running.through <= SHARED_TICKS * running.interval:
        await _catch_up(running, sampler, wanted, turns, sticky=sticky, observer=observer)
        return
    running.problem = WAITING
    try:
        async with turns.looking_back(wanted.request.server.url), asyncio.timeout(LONGEST_LOOK):
            running.problem = LOOKING
            # Otherwise the ticks of meanwhile are asked for again.
            if not running.tries or await _learn(running, spec, sampler, wanted, turns, sticky=sticky):
                await _catch_up(running, sampler, wanted, turns, sticky=sticky, observer=observer)
    except TimeoutError:
        running.tries = max(0, running.tries - 1)
        running.problem = f"looking back took longer than {LONGEST_LOOK:.0f} s"
    finally:
        if running.problem in {WAITING, LOOKING}:
            running.problem = ""


async def _catch_up(
    running: Running,
    sampler: Sampler,
    wanted: Wanted,
    turns: Turns,
    *,
    sticky: bool,
    observer: TickObserver | None,
) -> None:
    """Feed the ticks that are missing, those of one look at most."""
    step, latest = running.interval, wanted.latest
    if latest <= running.through + step / 2:
        return
    first = on_grid(running, latest)
    last = min(latest, round(first + (MOST_TICKS - 1) * step, 3))
    found = await _missing(sampler, wanted, (first, last, step))
    whole = [reading for reading in found if reading.complete]
    await running.feed(whole, sticky=sticky, observer=observer, turns=turns)
    running.problem = next((reading.message for reading in found if not reading.complete), "")


async def _missing(sampler: Sampler, wanted: Wanted, stretch: tuple[float, float, float]) -> Sequence[CounterReadings]:
    """The ticks of a stretch (first, last, step: seconds).

    A few are asked for one by one: many rollouts miss the same ones, and share these answers, which those of a range they cannot.
    """
    first, last, step = stretch
    count = round((last - first) / step) + 1
    if count > SHARED_TICKS:
        log.info("asking for missed ticks", rollout=wanted.request.key, first=first, last=last)
        return await sampler.counters_between(wanted.request, first, last, step, wanted.created)
    found = []
    for number in range(count):
        found.append(await sampler.counters(wanted.request, round(first + number * step, 3), wanted.created))
        if not found[-1].complete:
            break
    return found


async def _learn(
    running: Running, spec: CanaryRolloutSpec, sampler: Sampler, wanted: Wanted, turns: Turns, *, sticky: bool
) -> bool:
    """Stable's past, before the first tick; whether it is in, or is not waited for any longer."""
    steps = math.floor(min(spec.metrics.history, LONGEST_REPLAY) / HISTORY_STEP)
    end, request = running.began, wanted.request
    if request.tenants:
        # The order of the tenants is the revision's own: before it, a bucket held others.
        steps = min(steps, math.floor((end - (request.began or end)) / HISTORY_STEP))
        steps = steps if steps >= FEWEST_OF_TENANTS else 0
    if steps:
        readings = await sampler.counters_between(request, end - steps * HISTORY_STEP, end, HISTORY_STEP, {})
        running.tries -= 1  # a look that is cancelled costs none
        problem = next((reading.message for reading in readings if not reading.complete), "")
        if problem and running.tries:
            running.problem = problem
            return False
        if whole := [reading for reading in readings if reading.complete]:
            await running.learn(whole, sticky=sticky, turns=turns)
    running.tries = 0
    return True
