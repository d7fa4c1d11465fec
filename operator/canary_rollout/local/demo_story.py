"""What happens in the demo: a good release reaches everybody, a broken one is taken back by itself."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from canary_rollout.local.demo_cast import Cast
from canary_rollout.local.demo_measure import (
    BreachPoller,
    Manifest,
    Moment,
    RollbackTimes,
    RolloutLog,
    RouteWrite,
    breach_query,
    rates,
    rollback_times,
)
from canary_rollout.local.demo_objects import APP_IMAGE, CANARY, NAMESPACE
from canary_rollout.local.demo_screen import Screen
from canary_rollout.local.demo_view import View, view_of
from canary_rollout.local.load import Snapshot
from canary_rollout.model.conditions import Phase

SETTLE_SECONDS = 30.0
RELEASE_SECONDS = 150.0
FRAME_SECONDS = 0.25
STILL_SECONDS = 2.0
RATE_SPAN_SECONDS = 2.0
GOOD_TAG, BROKEN_TAG = "v2", "v3-broken"
_FINAL = {Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.HALTED}


@dataclass(frozen=True, slots=True)
class Rule:
    """The halt rule that the broken release breaks, as in the CanaryRollout that was applied."""

    above: float = 0.01
    min_requests: int = 10
    window: str = "10s"


@dataclass(slots=True)
class Release:
    """One release and how it ended.

    Attributes:
        tag: the version.
        revision: the operator's name for it.
        phase: ``status.phase`` at the end.
        message: ``status.message`` at the end.
        seconds: from the change of the image to the end.
        stable_image: what stable ran afterwards.
        halt: ``status.halt``: why it was stopped.
        compared: what the comparison with stable said last.
        times: for a broken release, how fast.
        weights: every weight that was written meanwhile.
        moments: what status went through meanwhile.
    """

    tag: str
    revision: str = ""
    phase: str = ""
    message: str = ""
    seconds: float = 0.0
    stable_image: str = ""
    halt: Manifest = field(default_factory=dict)
    compared: str = ""
    times: RollbackTimes | None = None
    weights: list[RouteWrite] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)


@contextlib.asynccontextmanager
async def showing(cast: Cast, screen: Screen, title: list[str]) -> AsyncIterator[None]:
    """Draw a frame four times a second while the block runs; the title is the list's last word.

    What goes wrong behind the picture ends the block: a picture that stands still would be a lie.
    """
    block = asyncio.current_task()

    async def draw_forever() -> None:
        while True:
            screen.show(frame(cast, title[-1]))
            cast.check()
            await asyncio.sleep(FRAME_SECONDS)

    def end_the_block(drawn: asyncio.Task[None]) -> None:
        if not drawn.cancelled() and drawn.exception() is not None and block is not None:
            block.cancel()

    drawing = asyncio.create_task(draw_forever(), name="screen")
    drawing.add_done_callback(end_the_block)
    try:
        yield
    finally:
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)
        if not drawing.cancelled() and (error := drawing.exception()) is not None:
            if block is not None:
                block.uncancel()
            raise error


def frame(cast: Cast, title: str) -> View:
    """The present frame."""
    history = cast.load.history
    latest = history[-1] if history else None
    found = {}
    if latest is not None:
        earlier = next((one for one in history if latest.monotonic - one.monotonic <= RATE_SPAN_SECONDS), latest)
        found = rates(earlier, latest)
    return view_of(title, cast.rollout.rollout, found, latest, cast.hint)


async def settle(cast: Cast) -> bool:
    """Whether the operator has taken the CanaryRollout up and every tenant is served."""

    def taken_up(log: RolloutLog) -> bool:
        return log.phase in {Phase.IDLE, Phase.SUCCEEDED}

    return await cast.rollout.wait(taken_up, SETTLE_SECONDS)


async def release(cast: Cast, tag: str, *, seconds: float = RELEASE_SECONDS) -> Release:
    """Release a version and follow it to its end."""
    before = cast.rollout.revision
    began = time.time()
    await cast.release(tag)

    compared = ""

    def ended(log: RolloutLog) -> bool:
        nonlocal compared
        if log.revision == before:
            return False
        compared = _compared(log.status) or compared
        return log.phase in _FINAL

    await cast.rollout.wait(ended, seconds)
    status = cast.rollout.status
    return Release(
        tag=tag,
        revision=cast.rollout.revision,
        phase=cast.rollout.phase,
        message=str(status.get("message", "")),
        seconds=round(time.time() - began, 2),
        stable_image=await cast.stable_image(),
        halt=status.get("halt") or {},
        compared=compared,
        weights=[write for write in cast.route.writes if write.seen_at >= began],
        moments=[moment for moment in cast.rollout.moments if moment.at >= began],
    )


async def broken_release(
    cast: Cast, rule: Rule, tag: str = BROKEN_TAG, *, seconds: float = RELEASE_SECONDS
) -> tuple[Release, Snapshot]:
    """Release a broken version, follow it to its end and measure how fast it was taken back.

    Returns the release, and the load's counts after nobody could be on the canary any more.
    """
    began = time.time()
    async with polling(cast, rule) as poller:
        ended = await release(cast, tag, seconds=seconds)
        # Whoever is still served by the canary after this was not let go.
        await asyncio.sleep(STILL_SECONDS)
        counts = await cast.load.counts()
    ended.times = rollback_times(
        poller.breach if poller else None,
        cast.route.lowered_to_zero(began),
        counts.versions.get(f"canary/{tag}"),
        counts.clock_offset,
    )
    return ended, counts


@contextlib.asynccontextmanager
async def polling(cast: Cast, rule: Rule) -> AsyncIterator[BreachPoller | None]:
    """Ask Prometheus for a breach of the next release's pods while the block runs; ``None``: it cannot be asked."""
    if not cast.prometheus_url:
        yield None
        return
    poller = BreachPoller(cast.prometheus_url, await canary_breach(cast, rule))
    task = asyncio.create_task(poller.run(), name="breach poller")
    try:
        yield poller
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def canary_breach(cast: Cast, rule: Rule) -> str:
    """The rule's condition for the pods of the next release: the ones that are there now do not count."""
    names = [pod["metadata"]["name"] for pod in await cast.pods()]
    gone = "|".join(name for name in names if name.startswith(f"{CANARY}-"))
    selector = f'namespace="{NAMESPACE}",pod=~"{CANARY}-.*",pod!~"{gone}"'
    return breach_query(selector, above=rule.above, min_requests=rule.min_requests, window=rule.window)


async def restarts(cast: Cast) -> list[str]:
    """What was restarted meanwhile, and why; nothing should have been."""
    return [
        f"{pod['metadata']['name']}/{one['name']} was restarted {one['restartCount']} times: {one.get('lastState')}"
        for pod in await cast.pods()
        for one in (pod.get("status") or {}).get("containerStatuses") or []
        if one.get("restartCount")
    ]


def good_ended_well(good: Release) -> str:
    """Why the good release did not end as it should; empty when it did."""
    if good.phase != Phase.SUCCEEDED:
        return f"the good release ended {good.phase or 'nowhere'} instead of Succeeded: {good.message}"
    if good.stable_image != f"{APP_IMAGE}:{good.tag}":
        return f"stable runs {good.stable_image} instead of {good.tag} after the good release"
    return ""


def broken_ended_well(broken: Release) -> str:
    """Why the broken release did not end as it should; empty when it did."""
    if broken.phase != Phase.ROLLED_BACK:
        return f"the broken release ended {broken.phase or 'nowhere'} instead of RolledBack: {broken.message}"
    if broken.weights and broken.weights[-1].weight:
        return f"the broken release still has a weight of {broken.weights[-1].weight} basis points"
    return ""


def _compared(status: Manifest) -> str:
    """What the comparison says, as status holds it: the error test's sentence, or the gate's where that says more."""
    said = {one["rule"]: str(one["message"]).partition(": ")[2] for one in status.get("verdicts") or []}
    return said.get("promotion") or said.get("error-comparison", "")
