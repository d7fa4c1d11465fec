"""Stable's past: its value when the rollout began, and its usual value at this hour. Asked rarely, remembered."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NamedTuple

from canary_rollout.analysis.readings import BEFORE, EMPTY, MeasureKey, Reading
from canary_rollout.metrics.answers import one
from canary_rollout.metrics.locate import locate
from canary_rollout.metrics.places import Alone, Firing, InBatch, Lookup, Nowhere, Place
from canary_rollout.metrics.plan import ALERTS, render_batch
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.metrics.server import Server
from canary_rollout.metrics.target import Target
from canary_rollout.metrics.tick import Answer, nowhere, read, reader_of

DAYS: Final = 7
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
STEP: Final = 300.0
"""Seconds between two values of a day: values of five minutes are as good as independent, those of seconds are not."""

FEWEST: Final = 12
"""Values without which there is no usual value: an hour of one day."""

MAD_TO_SIGMA: Final = 1.4826
"""The median absolute deviation of a normal distribution times this is its standard deviation."""


class _What(NamedTuple):
    rollout: str
    measure: MeasureKey
    mark: float


@dataclass(slots=True)
class _Asked:
    place: Place
    answers: tuple[Answer, ...]
    usual: bool


class Baselines:
    """Remembers the baselines of all rollouts; each is asked once per rollout, or once per hour."""

    def __init__(self) -> None:
        self._known: dict[_What, Reading] = {}
        self._asked: dict[_What, _Asked] = {}

    def forget(self, rollout: str) -> None:
        """A rollout is not sampled any more."""
        for kept in (self._known, self._asked):
            for what in [what for what in kept if what.rollout == rollout]:
                del kept[what]

    def start(
        self,
        request: MetricRequest,
        lookups: Iterable[tuple[Lookup, Target]],
        servers: Mapping[Target, Server],
        at: float,
    ) -> "Run":
        """Send what is not known yet; :meth:`Run.reading` waits for it."""
        marks: dict[MeasureKey, _What] = {}
        for lookup, target in lookups:
            key = lookup.key
            if not key.baseline:
                continue
            mark = (request.began or 0.0) if key.baseline == BEFORE else at // HOUR
            what = marks[key] = _What(request.key, key, mark)
            if what in self._known or what in self._asked:
                continue
            if key.baseline == BEFORE:
                self._asked[what] = _before(request, lookup, servers[target])
            else:
                self._asked[what] = _usual(request, key, servers[target], at)
        return Run(self, marks)

    async def reading(self, what: _What) -> Reading:
        """Return a baseline that was sent."""
        asked = self._asked.get(what)
        if asked is not None:
            for answer in asked.answers:
                if not answer.done.is_set():
                    await answer.done.wait()
            reading, lasting = _usual_of(asked) if asked.usual else _before_of(asked)
            self._asked.pop(what, None)
            if lasting:
                self._remember(what, reading)
            return reading
        return self._known.get(what, EMPTY)

    def _remember(self, what: _What, reading: Reading) -> None:
        old = [other for other in self._known if other[:2] == what[:2]]
        for other in old:
            del self._known[other]
        self._known[what] = reading


@dataclass(frozen=True, slots=True)
class Run:
    """The baselines of one sample."""

    of: Baselines
    marks: Mapping[MeasureKey, _What]

    async def reading(self, key: MeasureKey) -> Reading:
        """Return the baseline of a measure."""
        return await self.of.reading(self.marks[key])


def _before(request: MetricRequest, lookup: Lookup, server: Server) -> _Asked:
    """One evaluation at the moment the rollout began."""
    began, place = request.began, lookup.stable
    if began is None:
        return _Asked(Nowhere("no rollout has begun, so there is no time before it"), (), usual=False)
    if isinstance(place, Firing):
        return _Asked(place, (server.send(ALERTS, list, began, request.timeout),), usual=False)
    if isinstance(place, Alone):
        return _Asked(place, (server.send(place.text, one, began, request.timeout),), usual=False)
    if isinstance(place, InBatch):
        batch = render_batch(place.shape, (place.scope,))
        answer = server.send(batch.text, reader_of(place.shape, batch), began, request.timeout)
        return _Asked(place, (answer,), usual=False)
    return _Asked(place, (), usual=False)


def _usual(request: MetricRequest, key: MeasureKey, server: Server, at: float) -> _Asked:
    """An hour around this time of each of the last days, of whatever revision stable's Deployment had."""
    arm = replace(request.stable, replica_sets=frozenset(), pods=frozenset(), revision="", any_revision=True)
    then = replace(request, stable=arm, measures=frozenset({key}))
    (lookup,) = locate(then)
    place = lookup.stable
    if isinstance(place, InBatch):
        text = render_batch(place.shape, (place.scope,)).text
    elif isinstance(place, Alone):
        text = place.text
    else:
        missing = place if isinstance(place, Nowhere) else Nowhere("it has no usual value", inactive=True)
        return _Asked(missing, (), usual=True)
    answers = []
    for day in range(1, DAYS + 1):
        middle = at - day * DAY
        ask = partial(server.client.query_range, text, middle - HOUR / 2, middle + HOUR / 2, STEP, request.timeout)
        answers.append(server.start(f"{text} #{day}", ask, partial(_values, place=place), request.timeout))
    return _Asked(place, tuple(answers), usual=True)


def _before_of(asked: _Asked) -> tuple[Reading, bool]:
    if isinstance(asked.place, Nowhere):
        return nowhere(asked.place), False
    if not asked.answers:
        return Reading.absent("it has no value before the rollout"), True
    (answer,) = asked.answers
    if answer.failure is not None:
        return answer.failure, False
    assert isinstance(asked.place, InBatch | Alone | Firing)  # noqa: S101 - the others have no answer
    return read(asked.place, answer.value), True


def _usual_of(asked: _Asked) -> tuple[Reading, bool]:
    if isinstance(asked.place, Nowhere):
        return nowhere(asked.place), False
    failure = next((answer.failure for answer in asked.answers if answer.failure is not None), None)
    if failure is not None:
        return failure, False
    values = [value for answer in asked.answers for value in answer.value]
    return usual(values), True


def usual(values: list[float]) -> Reading:
    """Return the median and the spread of values; nothing where there are fewer than twelve."""
    if len(values) < FEWEST:
        return EMPTY
    middle = statistics.median(values)
    spread = MAD_TO_SIGMA * statistics.median(abs(value - middle) for value in values)
    return replace(Reading.of(middle), spread=spread)


def _values(result: list[Any], place: InBatch | Alone) -> list[float]:
    """Return one version's values out of a range query's answer."""
    found: dict[tuple[str, ...], list[float]] = {}
    for series in result:
        key = (
            tuple(series["metric"].get(label, "") for label in place.shape.labels) if isinstance(place, InBatch) else ()
        )
        found.setdefault(key, []).extend(float(value) for _, value in series["values"])
    for key in place.keys if isinstance(place, InBatch) else ((),):
        if (values := found.get(key)) is not None:
            return [value for value in values if math.isfinite(value)]
    return []
