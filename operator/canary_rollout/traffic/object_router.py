"""What a router knows whose weights are in one object beside two Services: the object, and what is wrong with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from canary_rollout.kube.port import SERVICES, Object, Resource
from canary_rollout.model.cohorts import Cohort
from canary_rollout.traffic.foreign import Writer, last_writer
from canary_rollout.traffic.port import RouterContext, RouterError, Watched
from canary_rollout.traffic.services import routable

UNKNOWN_COHORT: Final = Cohort.model_construct(header="unknown", cookie=None, values=())
"""Rules for people that are none of this spec's: equal to no cohort anybody wants."""


@dataclass(frozen=True, slots=True)
class Place:
    """The object.

    Attributes:
        resource: its kind.
        name: its name.
        field: where the CanaryRollout names it, as in ``traffic.contour.httpProxy``.
        owned: names of the fields that lead to the atomic list with the weights, as in ``("spec", "routes")``.
        app: what the data plane is called.
    """

    resource: Resource
    name: str
    field: str
    owned: tuple[str, ...]
    app: str


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How far the data plane is with what an object says.

    Attributes:
        pending: what is still waited for, one sentence; empty when nothing is.
        at: POSIX seconds since (or from) when it has it; ``None`` when nobody knows.
        again_at: POSIX seconds at which this changes although no object does; ``None``: never.
    """

    pending: str
    at: float | None = None
    again_at: float | None = None


class ObjectRouter:
    """The object and both Services of one CanaryRollout, as the cache has them."""

    def __init__(self, context: RouterContext, place: Place) -> None:
        self._context = context
        self._place = place

    @property
    def where(self) -> str:
        """The object, for people."""
        return f"{self._place.resource.kind} {self._context.namespace}/{self._place.name}"

    def watched(self) -> tuple[Watched, ...]:
        """The object and both Services."""
        namespace, services = self._context.namespace, self._context.spec.workload
        return (
            Watched(self._place.resource, namespace, self._place.name),
            Watched(SERVICES, namespace, services.stable.service),
            Watched(SERVICES, namespace, services.canary.service),
        )

    def _object(self) -> Object | None:
        return self._context.reader.get(self._place.resource, self._context.namespace, self._place.name)

    def _writer(self, obj: Object) -> Writer:
        return last_writer(obj, *self._place.owned)

    def _service_problems(self) -> Iterator[str]:
        """Why one of the Services cannot be routed to."""
        services = self._context.spec.workload
        for name in (services.stable.service, services.canary.service):
            try:
                routable(self._context.reader, self._context.namespace, name)
            except RouterError as error:
                yield f"{error}"

    def _stage_cohorts(self) -> Iterator[tuple[str, Cohort | None]]:
        """Every stage's name and cohort."""
        for stage in self._context.spec.stages:
            yield stage.name, stage.cohort


def resource_version(obj: Object) -> str:
    """Of an object, as a fence for a raise."""
    return f"{obj['metadata'].get('resourceVersion', '')}"
