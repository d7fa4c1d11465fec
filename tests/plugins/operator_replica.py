"""One operator process in virtual time: it can be stopped, killed and frozen, and what it tells is kept."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fake_api import FakeApi
from fake_api.api import FakeClient
from virtual_time import Wall, now

from canary_rollout.controller.guard import Guard
from canary_rollout.controller.informer import FED_BY_KOPF, Informer
from canary_rollout.controller.lease import Lease
from canary_rollout.controller.operator import Operator, Parts
from canary_rollout.engine.decision import Decision, Note
from canary_rollout.kube.port import Object, Resource
from canary_rollout.model.status import CanaryRolloutStatus

if TYPE_CHECKING:
    from operator_world import World


@dataclass
class Told:
    """Collects what the operator tells."""

    notes: list[Note] = field(default_factory=list)
    forgotten: list[tuple[str, str]] = field(default_factory=list)
    left: list[tuple[str, ...]] = field(default_factory=list)

    def decided(self, rollout: Object, status: CanaryRolloutStatus, decision: Decision) -> None:
        """Not of interest."""

    def note(self, rollout: Object, note: Note) -> None:
        self.notes.append(note)

    def left_out(self, rollout: Object, parts: tuple[str, ...]) -> None:
        self.left.append(parts)

    def forgot(self, key: tuple[str, str]) -> None:
        self.forgotten.append(key)

    def reasons(self) -> list[str]:
        return [note.reason for note in self.notes]


class Frozen(FakeClient):
    """A client whose process can be frozen: what it was about to send stays unsent until it thaws."""

    def __init__(self, api: FakeApi, name: str) -> None:
        super().__init__(api, name)
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.stopped_at: float | None = None

    def freeze(self) -> None:
        self.thawed.clear()
        self.stopped_at = now()

    def thaw(self) -> None:
        self.stopped_at = None
        self.thawed.set()

    async def _do(self, *args: Any, **options: Any) -> Any:
        await self.thawed.wait()
        return await super()._do(*args, **options)


class Replica:
    """One operator process. ``task`` ends when it does; ``lost`` holds why it gave up the Lease."""

    def __init__(self, world: "World", identity: str, client: FakeClient) -> None:
        self.world, self.identity, self.client = world, identity, client
        self.lost: list[str] = []
        self.wall = Wall()
        self.lease = Lease(
            client,
            namespace="system",
            name="operator",
            identity=identity,
            clock=self.wall,
            on_lost=self.lost.append,
            mono=self.mono,
            rng=random.Random(identity),
        )
        self.guard = Guard(self.lease, wall=self.wall.now, mono=self.mono)
        client.observer = self
        self.operator = Operator(
            Parts(
                api=client,
                sampler=world.numbers,
                telemetry=world.told,
                lease=self.lease,
                guard=self.guard,
                namespaces=world.namespaces,
                clock=self.wall,
            )
        )
        self.task = asyncio.create_task(self._live(), name=f"operator {identity}")

    def mono(self) -> float:
        frozen = getattr(self.client, "stopped_at", None)
        return now() if frozen is None else frozen

    def call(self, verb: str, resource: Resource, code: int, seconds: float) -> None:
        """Calls are in the API server's own log."""

    def server_date(self, server: float, sent: float, received: float) -> None:
        self.guard.server_date(server, sent, received)

    async def _live(self) -> None:
        scopes = self.world.namespaces or (None,)
        cache = self.operator.cache
        feeds = [Informer(self.client, cache, kind, scope) for kind in FED_BY_KOPF for scope in scopes]
        tasks = [asyncio.create_task(feed.run()) for feed in feeds]
        try:
            await self.operator.run()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def killed(self) -> bool:
        return self.client.dead

    def kill(self) -> None:
        """kill -9: nothing of it is sent any more, not even a goodbye."""
        self.client.dead = True
        self.task.cancel()

    async def end(self, *, kill: bool = False) -> None:
        """Stop it as SIGTERM does (or kill it) and wait; raises what it ended with if that was no end of ours."""
        if kill:
            self.kill()
        self.task.cancel()
        (result,) = await asyncio.gather(self.task, return_exceptions=True)
        if isinstance(result, Exception) and not self.killed and not self.lost:
            raise result
