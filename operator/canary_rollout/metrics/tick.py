"""One evaluation time of one Prometheus: every query is sent at most once, and everybody shares the answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from canary_rollout.analysis.readings import EMPTY, Reading
from canary_rollout.metrics.answers import Values
from canary_rollout.metrics.plan import Alone, Batch, InBatch, Nowhere, Place, Plan, Shape


@dataclass(slots=True, eq=False)
class Answer:
    """The answer of one query, now or later.

    Attributes:
        done: set when it is there.
        values: a batch's values by version; ``None`` for a query of its own, and on failure.
        reading: the reading of a query of its own, or the failure that all versions share.
    """

    done: asyncio.Event = field(default_factory=asyncio.Event)
    values: Values | None = None
    reading: Reading | None = None

    def fill(self, values: Values | None, reading: Reading | None) -> None:
        """Put the answer in and wake those who wait."""
        self.values, self.reading = values, reading
        self.done.set()


Send = Callable[[str, tuple[str, ...] | None, float], Answer]
"""Starts a query (text, labels of a batch or ``None``, evaluation time) and returns where its answer will be."""


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
        if isinstance(place, InBatch):
            return self._batched(place)
        if isinstance(place, Nowhere):
            return None
        return self._on_its_own(place)

    def reading(self, place: Place) -> Reading:
        """Return the reading at a place whose answer has come."""
        if isinstance(place, Nowhere):
            return Reading.absent(place.message) if place.message else EMPTY
        answer = self.answer(place)
        assert answer is not None  # noqa: S101 - only Nowhere has none
        if answer.values is None or not isinstance(place, InBatch):
            return answer.reading or EMPTY
        values = answer.values
        for key in place.keys:
            if (value := values.get(key)) is not None:
                return Reading.of(value)
        return EMPTY

    def _batched(self, place: InBatch) -> Answer:
        sent = self._batches.get(place.shape)
        if sent is None:
            sent = self._batches[place.shape] = []
        for batch, answer in sent:
            if place.namespace in batch.namespaces:
                return answer
        # Nobody asked in this tick, or only before this namespace joined: then the ones before keep their answer.
        batch = self._plan.batch(place.shape, place.namespace)
        answer = self._send(batch.text, batch.labels, self.at)
        sent.append((batch, answer))
        return answer

    def _on_its_own(self, place: Alone) -> Answer:
        answer = self._alone.get(place.text)
        if answer is None:
            answer = self._alone[place.text] = self._send(place.text, None, self.at)
        return answer
