"""Raw counters per pod for the comparison: one tick from the shared answers, or a stretch of the past."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

from canary_rollout.analysis.readings import CounterReadings, CounterSample, Reading
from canary_rollout.metrics.answers import Units, index_raw
from canary_rollout.metrics.places import ArmKey, RawLookup, Shape
from canary_rollout.metrics.plan import render_batch
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.metrics.server import Server
from canary_rollout.metrics.tick import Answer, Tick

MOST_STEPS: Final = 1000
"""Evaluations of one range query; longer stretches take several. Prometheus refuses more than 11,000."""

SLACK: Final = 2.0
"""A range query may take this many times as long as an instant one."""


def from_tick(
    at: float, raws: Sequence[RawLookup], tick: Tick, created: Mapping[str, float], *, tenants: bool
) -> CounterReadings:
    """Return one tick's raw counters out of answers that have come."""
    samples: list[CounterSample] = []
    for raw in raws:
        units = tick.raw(raw.shape, raw.scope)
        if isinstance(units, Reading):
            if raw.series.startswith("gauge:"):
                continue  # a gauge that is not there leaves its own test without data, and no other
            return CounterReadings(at, complete=False, message=units.message, tenants=tenants)
        samples += _samples(raw, units, created)
    return CounterReadings(at, tuple(samples), tenants=tenants)


async def from_ranges(
    request: MetricRequest,
    raws: Sequence[RawLookup],
    server: Server,
    stretch: tuple[float, float, float],
    created: Mapping[str, float],
) -> tuple[CounterReadings, ...]:
    """Return the raw counters at every step of a stretch (start, end, step: seconds), by range queries of one rollout.

    One that fails ends it: what came before it is complete.
    """
    start, end, step = stretch
    found: list[CounterReadings] = []
    for first, last in _parts(start, end, step):
        answers = [_ask(request, raw, server, (first, last, step)) for raw in raws]
        for answer in answers:
            await answer.done.wait()
        failed = next(
            (
                answer.failure
                for raw, answer in zip(raws, answers, strict=True)
                if answer.failure is not None and not raw.series.startswith("gauge:")
            ),
            None,
        )
        if failed is not None:
            found.append(CounterReadings(first, complete=False, message=failed.message, tenants=request.tenants))
            break
        found += _ticks(request, raws, [answer.value or {} for answer in answers], (first, last, step), created)
    return tuple(found)


def grid(start: float, end: float, step: float) -> Iterator[float]:
    """Yield the evaluation times from ``start`` to ``end``, both included, as Prometheus counts them (milliseconds)."""
    count = round((end - start) * 1000) // round(step * 1000)
    for number in range(count + 1):
        yield round(start + number * step, 3)


def _parts(start: float, end: float, step: float) -> Iterator[tuple[float, float]]:
    first = start
    while first <= end + 1e-6:
        last = min(end, first + step * (MOST_STEPS - 1))
        yield first, last
        first = round(last + step, 3)


def _ask(request: MetricRequest, raw: RawLookup, server: Server, stretch: tuple[float, float, float]) -> Answer:
    start, end, step = stretch
    text = render_batch(raw.shape, (raw.scope,)).text
    limit = request.timeout * SLACK
    ask = partial(server.client.query_range, text, start, end, step, limit)
    return server.start(f"{text} [{start:g}]", ask, partial(_by_time, shape=raw.shape), limit)


def _by_time(result: list[Any], shape: Shape) -> dict[float, Units]:
    """Return the look-up table of every evaluation time of a range query's answer."""
    rows: dict[float, list[tuple[Mapping[str, str], float]]] = {}
    for series in result:
        metric = series["metric"]
        for at, value in series["values"]:
            rows.setdefault(round(float(at), 3), []).append((metric, float(value)))
    return {at: index_raw(row, shape) for at, row in rows.items()}


def _ticks(
    request: MetricRequest,
    raws: Sequence[RawLookup],
    tables: Sequence[Mapping[float, Units]],
    stretch: tuple[float, float, float],
    created: Mapping[str, float],
) -> Iterator[CounterReadings]:
    for at in grid(*stretch):
        samples: list[CounterSample] = []
        for raw, table in zip(raws, tables, strict=True):
            units = table.get(at)
            if units is not None:
                samples += _samples(raw, units, created)
        yield CounterReadings(at, tuple(samples), tenants=request.tenants)


def _samples(raw: RawLookup, units: Units, created: Mapping[str, float]) -> Iterator[CounterSample]:
    both: tuple[tuple[Literal["stable", "canary"], tuple[ArmKey, ...]], ...]
    both = (("stable", raw.stable), ("canary", raw.canary))
    for arm, keys in both:
        for found in _of_arm(units, keys, together=raw.together):
            for (pod, edge), value in found.items():
                yield CounterSample(arm, pod, raw.series, value, edge, created.get(pod))


def _of_arm(
    units: Units, keys: Iterable[ArmKey], *, together: bool
) -> Iterator[Mapping[tuple[str, float | None], float]]:
    for key in keys:
        found = units.get(key)
        if found is not None:
            yield found
            if not together:
                return
