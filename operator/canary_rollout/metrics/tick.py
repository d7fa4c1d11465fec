"""One evaluation time of one Prometheus: every query is sent at most once, and everybody shares the answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from canary_rollout.analysis.readings import EMPTY, Reading, ReadingKind
from canary_rollout.metrics.answers import Units, count_firing, index, index_raw, one
from canary_rollout.metrics.places import RAW, Alone, Batch, Firing, InBatch, Nowhere, OtherThan, Place, Shape
from canary_rollout.metrics.plan import ALERTS, Plan


@dataclass(slots=True, eq=False)
class Answer:
    """The answer of one query, now or later.

    Attributes:
        done: set when it is there.
        value: what the query's reader made of it.
        failure: why there is none, for all who asked.
    """

    done: asyncio.Event = field(default_factory=asyncio.Event)
    value: Any = None
    failure: Reading | None = None

    def fill(self, value: Any, failure: Reading | None) -> None:
        """Put the answer in and wake those who wait."""
        self.value, self.failure = value, failure
        self.done.set()


Reader = Callable[[list[Any]], Any]
"""Makes something of ``data.result``; runs in a thread, once for everybody."""

Send = Callable[[str, Reader, float], Answer]
"""Starts a query (text, reader, evaluation time) and returns where its answer will be."""


class Tick:
    """All answers for one evaluation time.

    Args:
        at: POSIX seconds of the evaluation.
        plan: the server's queries.
        send: starts a query.
    """

    def __init__(self, at: float, plan: Plan, send: Send) -> None:
        self.at = at
        self._plan = plan
        self._send = send
        self._batches: dict[Shape, list[tuple[Batch, Answer]]] = {}
        self._alone: dict[str, Answer] = {}

    def answer(self, place: Place) -> Answer | None:
        """Return where a place's answer is or will be, sending its query if nobody did; ``None``: nothing to ask."""
        if isinstance(place, (InBatch, OtherThan)):  # tuples: a union would be made anew at every call
            return self.batched(place.shape, place.scope)
        if isinstance(place, Nowhere):
            return None
        if isinstance(place, Firing):
            return self._once(ALERTS, list)
        return self._once(place.text, one)

    def raw(self, shape: Shape, scope: str) -> Units | Reading:
        """Return the raw values of a shape whose answer has come, or why there are none."""
        answer = self.batched(shape, scope)
        if answer.failure is not None:
            return answer.failure
        units: Units = answer.value
        return units

    def batched(self, shape: Shape, scope: str) -> Answer:
        """Return where the answer with the series of ``scope`` is or will be."""
        sent = self._batches.get(shape)
        if sent is None:
            sent = self._batches[shape] = []
        for batch, answer in sent:
            if scope in batch.scopes:
                return answer
        # Nobody asked in this tick, or only before this scope joined: then the ones before keep their answer.
        batch = self._plan.batch(shape, scope)
        answer = self._send(batch.text, reader_of(shape, batch), self.at)
        sent.append((batch, answer))
        return answer

    def _once(self, text: str, reader: Reader) -> Answer:
        answer = self._alone.get(text)
        if answer is None:
            answer = self._alone[text] = self._send(text, reader, self.at)
        return answer


def reading_of(place: Place, answer: Answer | None) -> Reading:
    """Return the reading at a place, in its answer that has come (``None``: there is nothing to ask)."""
    if isinstance(place, Nowhere):
        return nowhere(place)
    assert answer is not None  # noqa: S101 - only Nowhere has none
    if answer.failure is not None:
        return answer.failure
    return read(place, answer.value)


def nowhere(place: Nowhere) -> Reading:
    """Return the reading of something that cannot be asked."""
    if place.mistake:
        return Reading.bad_query(place.message)
    if place.inactive:
        return Reading(ReadingKind.EMPTY, None, place.message)
    return Reading.absent(place.message) if place.message else EMPTY


def reader_of(shape: Shape, batch: Batch) -> Reader:
    """Return what makes a look-up table of a batch's answer."""
    if shape.measure.startswith(RAW):
        return partial(_read_raw, shape=shape)
    if batch.depth:
        return partial(_read_deep, labels=batch.labels)
    return partial(index, labels=batch.labels)


def read(place: InBatch | OtherThan | Alone | Firing, value: Any) -> Reading:
    """Return the reading at a place in what its query's reader made of the answer."""
    if isinstance(place, InBatch):
        if value:  # most standard rules ask for series that an app does not have
            for key in place.keys:
                if (found := value.get(key)) is not None:
                    return Reading.of(found)
        return EMPTY
    if isinstance(place, Alone):
        reading: Reading = value
        return reading
    if isinstance(place, Firing):
        return Reading.of(count_firing(value, place.matchers))
    versions = value.get(place.key)
    if versions is None:
        return EMPTY
    return Reading.of(sum(pods for version, pods in versions.items() if version != place.expected))


def _read_raw(result: list[Any], shape: Shape) -> Units:
    return index_raw(((series["metric"], float(series["value"][1])) for series in result), shape)


def _read_deep(result: list[Any], labels: tuple[str, ...]) -> dict[tuple[str, ...], dict[str, float]]:
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for key, value in index(result, labels).items():
        found.setdefault(key[:-1], {})[key[-1]] = value
    return found
