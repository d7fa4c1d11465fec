"""Scenarios in which the operator is killed, or its calls go wrong, at every place there is."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fake_api import Pass, kill_points
from operator_history import History, outcome
from operator_world import SHOP, World

from canary_rollout.kube.port import CONFIG_MAPS, DEPLOYMENTS, LEASES

STAGES = [{"name": "some", "weight": "5%", "hold": "12s"}, {"name": "all", "weight": "100%", "hold": "6s"}]
WORKLOAD = {
    "stable": {"service": "checkout", "deployment": "checkout"},
    "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
    "drain": "4s",
}
METRICS = {"prometheus": "http://prometheus:9090", "interval": "3s", "window": "6s"}
LONGEST = 400.0
"""Virtual seconds in which every run must have come to its end."""


@dataclass
class Scenario:
    """What is prepared, what somebody does while the operator works, and when it is over.

    ``act`` must not wait for anything that a killed operator would never do, so it is started beside the operator and
    finds its moments by itself.
    """

    name: str
    act: Callable[[World], Awaitable[None]]
    over: Callable[[World], bool]


async def _until(world: World, condition: Callable[[], object]) -> None:
    await world.until(condition, LONGEST)


def _serving(world: World, weight: int = 500) -> bool:
    return world.weight == weight


async def release(world: World) -> None:
    await world.release()


async def turn_bad(world: World) -> None:
    await world.release()
    await _until(world, lambda: _serving(world))
    await asyncio.sleep(4)
    world.numbers.canary["error-rate"] = 0.2


async def crash(world: World) -> None:
    await world.release()
    await _until(world, lambda: _serving(world))
    await asyncio.sleep(4)
    world.deployments.crash(SHOP, "checkout-canary")
    await _until(world, lambda: world.weight == 0)
    await asyncio.sleep(1)
    world.deployments.ready(SHOP, "checkout-canary")


async def another(world: World) -> None:
    await world.release()
    await _until(world, lambda: _serving(world))
    await asyncio.sleep(4)
    await world.release("v3")


async def delete(world: World) -> None:
    await world.release()
    await _until(world, lambda: _serving(world))
    await asyncio.sleep(4)
    await world.delete()


def _is(phase: str, image: str = "app:v2") -> Callable[[World], bool]:
    def over(world: World) -> bool:
        rested = world.phase == phase and not world.deployment()["spec"].get("paused")
        return rested and world.image("checkout-canary") == image and world.weight == 0

    return over


def _gone(world: World) -> bool:
    return not world.exists and not world.deployment()["spec"].get("paused")


def _third_serves(world: World) -> bool:
    pods = world.deployments.pods(SHOP, "checkout-canary")
    return world.weight == 500 and {pod["spec"]["containers"][0]["image"] for pod in pods} == {"app:v3"}


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("raise and promotion", release, _is("Succeeded")),
        Scenario("failing", turn_bad, _is("RolledBack")),
        Scenario("crash", crash, _is("RolledBack")),
        Scenario("new revision while serving", another, _third_serves),
        Scenario("deletion", delete, _gone),
    )
}


async def play(
    scenario: Scenario,
    *,
    kill: tuple[int, bool] | None = None,
    identity: str = "operator-0",
    fault: tuple[Any, dict[str, Any], int] | None = None,
) -> tuple[dict, list, World]:
    """Play a scenario once.

    Args:
        scenario: which.
        kill: ``(n, after)``: kill the first process at its n-th call, and start another.
        identity: of that other process.
        fault: ``(fault, match, n)``: what goes wrong with the n-th call that matches.

    Returns:
        the outcome, the operator's calls, the world.
    """
    world = await World(stages=STAGES, workload=WORKLOAD, metrics=METRICS).build()
    history = History(world)
    if kill is not None:
        world.api.kill_at(kill[0], after=kill[1])
    if fault is not None:
        broken, match, place = fault
        if place:
            world.api.fault(Pass(), times=place, **match)
        world.api.fault(broken, times=1, **match)
    first = world.start()
    actor = asyncio.create_task(scenario.act(world))
    try:
        if kill is not None:
            killed = asyncio.create_task(world.api.killed.wait())
            over = asyncio.create_task(world.until(lambda: scenario.over(world), LONGEST))
            await asyncio.wait({killed, over}, return_when=asyncio.FIRST_COMPLETED)
            if world.api.killed.is_set():
                await first.end(kill=True)
                world.start(identity)
            for task in (killed, over):
                task.cancel()
            await asyncio.gather(killed, over, return_exceptions=True)
        await actor
        await world.until(lambda: scenario.over(world), LONGEST)
        await asyncio.sleep(7)  # and it stays so
        assert scenario.over(world), f"did not stay: {outcome(world)}"
    finally:
        actor.cancel()
        await asyncio.gather(actor, return_exceptions=True)
        await world.stop()
    history.check()
    return outcome(world), world.api.calls_of("operator"), world


def places(calls: list) -> list[tuple[int, bool]]:
    """Where a run can be killed; of the Lease's renewals only the first few, which are all alike."""
    renewals = [n for n, call in enumerate(calls, start=1) if call.resource == LEASES]
    skipped = set(renewals[4:])
    return [(n, after) for n, after in kill_points(calls) if n not in skipped]


WRITES = {
    "status": {"verb": "patch", "subresource": "status", "client": "operator", "namespace": SHOP},
    "route": {"verb": "patch", "resource": CONFIG_MAPS, "client": "operator"},
    "deployment": {"verb": "patch", "resource": DEPLOYMENTS, "client": "operator"},
}
