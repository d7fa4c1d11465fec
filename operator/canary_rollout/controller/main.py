"""Entry point of the operator process."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

import structlog

from canary_rollout.controller.access import of_directory
from canary_rollout.controller.clock import SystemClock
from canary_rollout.controller.guard import AgreedClock, Guard
from canary_rollout.controller.housekeeping import keep_house, settle
from canary_rollout.controller.instruments import Instruments, QueueInstruments
from canary_rollout.controller.lease import Lease, LeaseLostError
from canary_rollout.controller.logs import configure
from canary_rollout.controller.observers import CallTelemetry, OperatorTelemetry
from canary_rollout.controller.operator import Operator, Parts
from canary_rollout.controller.recorder import Recorder
from canary_rollout.controller.server import LoopLag, Server
from canary_rollout.controller.settings import Settings, parse
from canary_rollout.controller.watch import KopfWatch
from canary_rollout.errors import CanaryRolloutError
from canary_rollout.kube.client import Client
from canary_rollout.metrics.sampler import PrometheusSampler

log = structlog.get_logger(__name__)

LEASE_LOST = 3
"""Exit code of a process that lost its Lease: it must not act any more, and its container is started again."""
_STUCK = 60.0
"""Seconds a key may wait for a worker before the process counts as sick."""
_UNSWEPT = 1200.0
"""Seconds without a complete list before the process counts as not ready."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the operator until SIGTERM. Exits 0 then, 3 when the Lease was lost, 1 when it cannot run."""
    settings = parse(sys.argv[1:] if arguments is None else arguments)
    configure(level=settings.log_level, fmt=settings.log_format)
    settle()
    try:
        asyncio.run(Process(settings).run())
    except CanaryRolloutError as error:
        log.error("the operator ends", error=str(error))  # noqa: TRY400 - a sentence, not a traceback
        sys.exit(LEASE_LOST if isinstance(error, LeaseLostError) else 1)


class StartError(CanaryRolloutError):
    """The process cannot begin; the message says what to change."""


class Process:
    """One operator process, from connecting to the last goodbye."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._instruments = Instruments()
        self._calls = CallTelemetry(self._instruments)

    async def run(self) -> None:
        """Put the parts together and run them until a signal says stop.

        Raises:
            LeaseLostError: another replica may act now.
            ConfigError: there is no cluster to talk to.
            StartError: its own pages cannot be served.
            PresetError: a preset set for everybody does not read.
        """
        settings = self._settings
        client = await self._connect()
        own = client.apart(5.0)
        lease = Lease(
            own,
            namespace=settings.namespace or client.namespace,
            name=settings.lease,
            identity=settings.identity,
            on_lost=_die,
        )
        guard = self._calls.guard = Guard(lease)
        # By the same time as what is decided: to a clock that runs behind, every sample would look too old to be judged.
        sampler = PrometheusSampler(self._instruments, now=AgreedClock(SystemClock(), guard).now)
        recorder = Recorder(client, self._instruments, instance=settings.identity)
        operator = Operator(
            Parts(
                api=client,
                sampler=sampler,
                telemetry=OperatorTelemetry(self._instruments, recorder),
                lease=lease,
                guard=guard,
                namespaces=settings.watch_namespaces,
                queue_observer=QueueInstruments(self._instruments, "reconcile"),
                checks_observer=QueueInstruments(self._instruments, "evaluate"),
                watch_observer=self._instruments,
                presets=of_directory(settings.presets_dir),
                ticks_observer=self._instruments,
            )
        )
        try:
            await self._work(client, operator, lease, guard, recorder)
        finally:
            await sampler.close()
            await own.close()
            await client.close()

    async def _work(self, client: Client, operator: Operator, lease: Lease, guard: Guard, recorder: Recorder) -> None:
        watch = KopfWatch(
            client,
            operator.cache,
            namespaces=self._settings.watch_namespaces,
            on_restart=operator.informers.sweep_now,
            observer=self._instruments,
        )
        lag = LoopLag()
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._server(operator, watch, lease, guard, lag))
            except OSError as error:
                place = f"{self._settings.host}:{self._settings.port}"
                raise StartError(f"cannot listen on {place}: choose another --host or --port ({error})") from error
            work = asyncio.ensure_future(
                _together(operator.run(), watch.run(), recorder.run(), lag.run(), keep_house())
            )
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, work.cancel)
            try:
                await work
            except asyncio.CancelledError:
                log.info("stopped")

    def _server(self, operator: Operator, watch: KopfWatch, lease: Lease, guard: Guard, lag: LoopLag) -> Server:
        instruments = self._instruments

        def refresh() -> None:
            instruments["canary_rollout_lease_held"].set(1 if lease.valid() else 0)
            instruments["canary_rollout_lease_term"].set(lease.term)
            instruments["canary_rollout_clock_skew_seconds"].set(guard.skew())
            instruments["canary_rollout_loop_lag_seconds"].set(lag.worst())
            instruments["canary_rollout_sweep_age_seconds"].set(min(operator.informers.sweep_age(), 1e9))
            instruments["canary_rollout_queue_depth"].labels("reconcile").set(operator.queue.depth())
            instruments["canary_rollout_queue_depth"].labels("evaluate").set(operator.checks.queue.depth())

        def stuck() -> str:
            waiting = operator.queue.longest_wait() if lease.held else 0.0
            return f"a rollout has waited {waiting:.0f} s for a worker" if waiting > _STUCK else ""

        def cache() -> str:
            missing = operator.informers.missing(())
            old = operator.informers.sweep_age() > _UNSWEPT
            return missing[0] if missing else ("the last complete list is too old" if old else "")

        return Server(
            instruments.registry,
            host=self._settings.host,
            port=self._settings.port,
            live={"loop": lag.problem, "queue": stuck},
            ready={"cache": cache, "kopf": lambda: "" if watch.alive else "kopf is not running"},
            shown={
                "leader": lambda: lease.held,
                "holder": lambda: lease.holder,
                "raises": lambda: guard.refusal() or "allowed",
                "watchProblems": operator.informers.problems,
            },
            refresh=refresh,
        )

    async def _connect(self) -> Client:
        if self._settings.kubeconfig or "KUBERNETES_SERVICE_HOST" not in os.environ:
            return await Client.from_kubeconfig(self._settings.kubeconfig or None, observer=self._calls)
        return Client.in_cluster(observer=self._calls)


async def _together(*parts: Coroutine[Any, Any, object]) -> None:
    """Run all parts; the first that fails ends them all."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a group of tasks; a lost Lease before all others."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        else:
            found.append(error)
    return next((error for error in found if isinstance(error, LeaseLostError)), found[0])


def _die(reason: str) -> None:
    """Somebody else may act now: end at once, before anything else that is under way can be sent."""
    sys.stderr.write(f"canary-rollout-operator: the Lease is lost: {reason}\n")
    sys.stderr.flush()
    os._exit(LEASE_LOST)
