"""Entry point of the operator process."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

import structlog

from canary_rollout.controller.guard import Guard
from canary_rollout.controller.lease import Lease, LeaseLostError
from canary_rollout.controller.operator import Operator, Parts
from canary_rollout.controller.settings import Settings, parse
from canary_rollout.controller.telemetry import Telemetries
from canary_rollout.controller.watch import KopfWatch
from canary_rollout.errors import CanaryRolloutError
from canary_rollout.kube.client import Client
from canary_rollout.metrics.sampler import PrometheusSampler

log = structlog.get_logger(__name__)

LEASE_LOST = 3
"""Exit code of a process that lost its Lease: it must not act any more, and its container is started again."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the operator until SIGTERM. Exits 0 then, 3 when the Lease was lost, 1 when it cannot run."""
    settings = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        asyncio.run(serve(settings))
    except CanaryRolloutError as error:
        print(f"canary-rollout-operator: {error}", file=sys.stderr)  # noqa: T201 - before logging may be set up
        sys.exit(LEASE_LOST if isinstance(error, LeaseLostError) else 1)


async def serve(settings: Settings) -> None:
    """Put the parts together and run them until a signal says stop."""
    telemetry = Telemetries(settings)
    client = await _connect(settings, telemetry)
    lease = Lease(
        client.with_timeout(5.0),
        namespace=settings.namespace or client.namespace,
        name=settings.lease,
        identity=settings.identity,
        on_lost=_die,
    )
    guard = Guard(lease)
    telemetry.guard = guard
    sampler = PrometheusSampler(telemetry.queries)
    operator = Operator(
        Parts(
            api=client,
            sampler=sampler,
            telemetry=telemetry,
            lease=lease,
            guard=guard,
            namespaces=settings.watch_namespaces,
        )
    )
    watch = KopfWatch(
        client, operator.cache, namespaces=settings.watch_namespaces, on_restart=operator.informers.sweep_now
    )
    work = asyncio.ensure_future(_together(operator, watch))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        log.info("stopped")
    finally:
        await sampler.close()
        await client.close()


async def _together(operator: Operator, watch: KopfWatch) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(operator.run(), name="operator")
            tasks.create_task(watch.run(), name="kopf")
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


async def _connect(settings: Settings, telemetry: Telemetries) -> Client:
    if settings.kubeconfig or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return await Client.from_kubeconfig(settings.kubeconfig or None, observer=telemetry.calls)
    return Client.in_cluster(observer=telemetry.calls)


def _die(reason: str) -> None:
    """Somebody else may act now: end at once, before anything else that is under way can be sent."""
    sys.stderr.write(f"canary-rollout-operator: the Lease is lost: {reason}\n")
    sys.stderr.flush()
    os._exit(LEASE_LOST)
