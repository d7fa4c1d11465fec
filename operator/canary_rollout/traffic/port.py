"""The router protocol: one verb that is safe to repeat and says whether the data plane confirmed it."""

from dataclasses import dataclass
from typing import Any, Protocol

from canary_rollout.errors import CanaryRolloutError
from canary_rollout.kube.port import Clock, KubeApi, Reader, Resource
from canary_rollout.model.route import Capabilities, Latch, Proof, Route, RouteView
from canary_rollout.model.spec import CanaryRolloutSpec

__all__ = [
    "Capabilities",
    "Latch",
    "Proof",
    "Rejected",
    "Route",
    "RouteView",
    "Router",
    "RouterContext",
    "RouterError",
    "Watched",
    "Written",
]


class RouterError(CanaryRolloutError):
    """A route that cannot be read or written; the message names the object and what to do."""


@dataclass(frozen=True, slots=True)
class Written:
    """The write was accepted by the API server (or nothing had to be written); confirmation comes through ``observe``."""

    resource_version: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """The router cannot or may not do it; nothing was changed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Watched:
    """An object (or a labelled group of objects) the router reads from the cache.

    Attributes:
        resource: what kind.
        namespace: where.
        name: one object; ``None`` for all that carry ``labels``.
        labels: labels that select the group.
    """

    resource: Resource
    namespace: str
    name: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RouterContext:
    """What a router is built from, once per reconcile.

    Attributes:
        namespace: of the CanaryRollout; a router touches and reads nothing elsewhere.
        name: of the CanaryRollout.
        uid: of the CanaryRollout.
        spec: what the user wrote.
        api: for writes.
        reader: the cache, for everything that is read. It must already show our own last write (the controller puts
            the answer of each write into it), or a repeated lowering could be taken for done.
        clock: wall time.
        proved_weight: basis points that the status holds as served, last proved by the data plane.
        proved_revision: the revision they were served for.
    """

    namespace: str
    name: str
    uid: str
    spec: CanaryRolloutSpec
    api: KubeApi
    reader: Reader
    clock: Clock
    proved_weight: int = 0
    proved_revision: str = ""


class Router(Protocol):
    """Writes weights to one data plane for one CanaryRollout. Built per reconcile from the spec; holds no state of its own."""

    def capabilities(self) -> Capabilities:
        """What this router can express."""
        ...

    def problems(self) -> list[str]:
        """Why this spec cannot be served by this router (weights, missing objects…), one sentence each with what to do."""
        ...

    def watched(self) -> tuple[Watched, ...]:
        """What :meth:`observe` reads; the controller keeps these in the cache and wakes the rollout when they change."""
        ...

    def observe(self) -> RouteView | None:
        """The route as the cache has it; ``None`` when there is none (weight 0: stable serves everything)."""
        ...

    async def ensure(self, route: Route, *, fence: str | None) -> Written | Rejected:
        """Write ``route``; safe to repeat, a no-op when it is already written.

        Args:
            route: what should be served.
            fence: for a raise, the resourceVersion the decision was made on: the write is refused by the API server
                when the object moved since. ``None`` for a lowering, which needs no resourceVersion and waits for nothing.

        Raises:
            kube.port.ApiError: the API server refused or could not be reached (Conflict when the fence did not hold).
        """
        ...

    async def release(self) -> None:
        """Give the route back: objects stay as they are; what only we need (finalizers, annotations) goes."""
        ...


RouteObject = dict[str, Any]
