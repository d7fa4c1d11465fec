"""What a reconcile works with, as protocols: the informers, metrics and Events, the ticker of the rules."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from canary_rollout.controller.gather import Gatherer
from canary_rollout.controller.memory import Memory
from canary_rollout.controller.queue import Key
from canary_rollout.engine.decision import Decision, Note
from canary_rollout.kube.cache import Cache
from canary_rollout.kube.port import Clock, KubeApi, Object
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import CanaryRolloutStatus
from canary_rollout.traffic.port import Router, RouterContext, Watched


class Needs(Protocol):
    """The informers, as far as a reconcile asks them."""

    def need(self, key: Key, watched: Iterable[Watched]) -> None:
        """Cache what ``key`` reads and wake it when that changes."""
        ...

    def drop(self, key: Key) -> None:
        """``key`` is gone."""
        ...

    def missing(self, watched: Iterable[Watched]) -> list[str]:
        """What is not completely known yet."""
        ...

    def absent(self, watched: Iterable[Watched]) -> list[str]:
        """Kinds the cluster does not know, one sentence each."""
        ...


class Telemetry(Protocol):
    """Told what became of a rollout, for metrics and Events. Must not block."""

    def decided(self, rollout: Object, status: CanaryRolloutStatus, decision: Decision) -> None:
        """A decision was carried out and persisted."""
        ...

    def note(self, rollout: Object, note: Note) -> None:
        """Something worth an Event."""
        ...

    def left_out(self, rollout: Object, parts: tuple[str, ...]) -> None:
        """Parts of the evidence that the status had no room for."""
        ...

    def forgot(self, key: Key) -> None:
        """The rollout is gone."""
        ...


class Evaluations(Protocol):
    """Starts and stops the evaluation of a rollout's rules at every interval."""

    def follow(self, key: Key, memory: Memory) -> None:
        """``memory.evaluating`` may have changed."""
        ...


@dataclass(frozen=True, slots=True)
class Shell:
    """What a reconcile works with.

    Attributes:
        api: writes, and the few reads (answers go into the cache).
        cache: everything that is read.
        clock: wall time.
        gatherer: builds Observations.
        needs: the informers.
        telemetry: metrics and Events.
        evaluations: the ticker that asks Prometheus.
        router_for: builds the router of a rollout.
        term: number of the present Lease term.
    """

    api: KubeApi
    cache: Cache
    clock: Clock
    gatherer: Gatherer
    needs: Needs
    telemetry: Telemetry
    evaluations: Evaluations
    router_for: Callable[[RouterContext], Router]
    term: Callable[[], int]

    def router(self, rollout: Object, memory: Memory, spec: CanaryRolloutSpec) -> Router:
        """The router that a spec names.

        Raises:
            RouterError: there is no such thing.
        """
        metadata = rollout["metadata"]
        context = RouterContext(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            spec=spec,
            api=self.api,
            reader=self.cache,
            clock=self.clock,
            proved_weight=memory.state.confirmed,
            proved_revision=memory.state.revision,
        )
        return self.router_for(context)
