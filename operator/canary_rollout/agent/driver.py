"""What an agent drives: one kind of proxy, told by documents, believed by what it reads back."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal, Protocol

from canary_rollout.agent.instruments import Instruments
from canary_rollout.agent.settings import Settings
from canary_rollout.agent.workspace import Workspace
from canary_rollout.traffic.nginx.document import DocumentType, RouteDocument

Mode = Literal["njs", "reload", "envoy"]


@dataclass(frozen=True, slots=True)
class Desired(Generic[DocumentType]):
    """One state of the ConfigMap that has passed every check.

    Attributes:
        document: the weights.
        config: text of ``nginx.conf``; empty for Envoy, whose files are made of the document alone.
    """

    document: DocumentType
    config: str = ""


@dataclass(frozen=True, slots=True)
class Served(Generic[DocumentType]):
    """What the proxy is proved to serve.

    Attributes:
        desired: document and configuration; ``None`` before the first load.
        mode: how weights reach the proxy.
        at: POSIX seconds since when.
        generation: of the configuration.
        error: what was refused on the way there; empty when nothing was.
        proved: read back; False after a restart (of agent or proxy) until it has been read back again.
    """

    desired: Desired[DocumentType] | None = None
    mode: Mode | None = None
    at: float = 0.0
    generation: str = ""
    error: str = ""
    proved: bool = False

    @property
    def weight(self) -> int:
        """Basis points."""
        return self.desired.document.weight if self.desired is not None else 0

    @property
    def leased(self) -> bool:
        """Whether it ends by itself without a renewal."""
        return self.desired is not None and self.desired.document.leased


@dataclass(frozen=True, slots=True)
class Station:
    """Where an agent works, made once per process.

    Attributes:
        settings: what it was told.
        workspace: the directory shared with the proxy.
        instruments: its own metrics.
    """

    settings: Settings
    workspace: Workspace
    instruments: Instruments


class Driver(Protocol[DocumentType]):
    """One proxy. Not re-entrant: one :meth:`apply`, :meth:`renew` or :meth:`check` at a time (see ``lock``)."""

    lock: asyncio.Lock
    served: Served[DocumentType]

    @property
    def version(self) -> str:
        """Version of the proxy, empty while unknown."""
        ...

    def read(self, data: Mapping[str, str], last: Desired[DocumentType] | None) -> Desired[DocumentType]:
        """Check every field of a ConfigMap's data again.

        Somebody's own edit counts in one case: it takes all traffic off the canary. Nobody is harmed by that.

        Raises:
            DocumentError: with what is wrong.
        """
        ...

    def adopt(self, desired: Desired[DocumentType]) -> None:
        """Take what an earlier run left as the last good state, without having proved it."""
        ...

    async def apply(self, desired: Desired[DocumentType]) -> Served[DocumentType]:
        """Bring the proxy to ``desired`` and prove it. May be cancelled at any point and called again.

        Raises:
            LoadError: refused; ``served`` is unchanged and goes on.
            LapsedError: the proxy serves stable until the lease is renewed.
            NotRunningError: the proxy has not started yet, or has ended.
            ControlError: the proxy does not answer.
            OSError: the disk is full, for one; what can be had without it is in force.
        """
        ...

    async def renew(self, at: float) -> None:
        """The API server accepted a renewal that was sent ``at`` (POSIX seconds): the proxy's lease goes on from there.

        Raises:
            NotRunningError, ControlError, OSError: the proxy could not be told; its lease runs out as it was.
        """
        ...

    async def check(self) -> bool:
        """Whether the proxy still serves what it was brought to; False after a restart of it, for example."""
        ...


class Counting(Protocol):
    """Counts the proxy's requests for the agent's metrics."""

    def begin(self, document: RouteDocument) -> None:
        """A document is served from now on: its series are shown from zero."""
        ...

    async def now(self) -> None:
        """Take in what the proxy has counted so far."""
        ...

    async def run(self) -> None:
        """Count until cancelled."""
        ...
