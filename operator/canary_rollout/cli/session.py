"""What a command gets from outside: the cluster, the clock, the terminal. Tests replace :class:`Tools` as one object."""

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from rich.console import Console

    from canary_rollout.kube.port import KubeApi
    from canary_rollout.metrics.port import Sampler

OPERATOR_PODS: Final = "kubectl get pods -A -l app.kubernetes.io/name=canary-rollout"
"""What shows whether an operator runs, however it was installed."""
WAIT: Final = 10.0
"""Seconds until the operator has to have answered, unless ``--wait`` says otherwise."""


@dataclass(slots=True)
class Target:
    """Which cluster and namespace; ``None`` is what the kubeconfig says."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """An open way to a cluster.

    Attributes:
        api: the Kubernetes API.
        namespace: the namespace asked for, else the context's, else ``default``.
    """

    api: "KubeApi"
    namespace: str


def _connect(target: Target) -> AbstractAsyncContextManager[Connection]:
    from canary_rollout.cli.connect import connect

    return connect(target)


async def _sleep(seconds: float) -> None:
    import asyncio

    await asyncio.sleep(seconds)


def _sampler() -> "AbstractAsyncContextManager[Sampler]":
    from contextlib import asynccontextmanager

    from canary_rollout.metrics.sampler import PrometheusSampler

    @asynccontextmanager
    async def opened() -> "AsyncIterator[Sampler]":
        sampler = PrometheusSampler()
        try:
            yield sampler
        finally:
            await sampler.close()

    return opened()


@dataclass(slots=True)
class Tools:
    """The outside world of one invocation.

    Attributes:
        connect: opens the connection of a target.
        now: wall clock, POSIX seconds.
        sampler: asks Prometheus; used for one evaluation.
        sleep: waits so many seconds.
        interactive: whether a person can answer a question.
    """

    connect: Callable[[Target], AbstractAsyncContextManager[Connection]] = _connect
    now: Callable[[], float] = time.time
    sampler: "Callable[[], AbstractAsyncContextManager[Sampler]]" = _sampler
    sleep: Callable[[float], Awaitable[None]] = _sleep
    interactive: Callable[[], bool] = field(default=lambda: sys.stdin.isatty() and sys.stderr.isatty())

    def console(self) -> "Console":
        """Standard output; honours NO_COLOR and, where it is no terminal, COLUMNS (default 80)."""
        from rich.console import Console

        return Console(highlight=False, markup=False, emoji=False, soft_wrap=False)


@dataclass(slots=True)
class Session:
    """One invocation: its target, its tools and how long it waits for the operator. It is click's ``ctx.obj``."""

    target: Target = field(default_factory=Target)
    tools: Tools = field(default_factory=Tools)
    wait: float = WAIT

    def run(self, work: Callable[[Connection], Awaitable[int | None]]) -> int:
        """Connect, do the work, close; the exit code."""
        import asyncio

        async def connected() -> int:
            async with self.tools.connect(self.target) as connection:
                return int(await work(connection) or 0)

        return asyncio.run(connected())


def session_of(ctx: click.Context) -> Session:
    """The session of this invocation."""
    found = ctx.ensure_object(Session)
    if not isinstance(found, Session):
        raise TypeError(f"ctx.obj is a {type(found).__name__}, not a Session")
    return found
