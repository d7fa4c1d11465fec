"""Whatever a queue repeats is told: in the log each time, and in the resource when it goes on (the queue only counts it)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from canary_rollout.controller.queue import Key, Reconcile
from canary_rollout.engine.draft import cut
from canary_rollout.errors import CanaryRolloutError
from canary_rollout.model.conditions import Condition, Reason
from canary_rollout.model.status import CanaryRolloutStatus, ConditionStatus

log: Final = structlog.get_logger(__name__)

IN_A_ROW: Final = 3
"""Failures after which the resource says so; one or two are what a repeat is for."""
GOES_ON: Final = 30.0
"""Seconds that they must have gone on for: the first repeats come quickly, and an API server that is replaced is no news."""
LONGEST_LOOK: Final = 55.0
"""Seconds; less than the queue's own limit, so that a look that hangs is a failure with a name."""


class TooLongError(CanaryRolloutError, TimeoutError):
    """A look that did not end."""


def logged(run: Reconcile, what: str) -> Reconcile:
    """``run``, whose errors are logged before they go on: a sentence, or a traceback for a fault of ours."""

    async def told(key: Key) -> float | None:
        try:
            return await run(key)
        except CanaryRolloutError as error:
            log.warning("failed, to be repeated", doing=what, namespace=key[0], rollout=key[1], error=str(error))
            raise
        except Exception:  # raised again: told, not swallowed
            log.exception("failed, to be repeated", doing=what, namespace=key[0], rollout=key[1])
            raise

    return told


@dataclass(slots=True)
class _Failing:
    """How often in a row looks at one rollout have failed, since when, and when that is worth saying (loop time)."""

    since: float
    say_at: float
    times: int = 0


class Failures:
    """Counts failures in a row; ``say`` is asked to say where people look that they go on, and then ever more rarely."""

    def __init__(self, run: Reconcile, say: Callable[[Key, Exception], Awaitable[None]]) -> None:
        self._run = run
        self._say = say
        self._failing: dict[Key, _Failing] = {}

    async def run(self, key: Key) -> float | None:
        """One look; its errors go on. One that was cancelled for something more urgent has not failed."""
        try:
            again = await self._in_time(key)
        except Exception as error:  # raised again: counted, not swallowed
            if self._worth_saying(key):
                await self._say(key, error)
            raise
        self._failing.pop(key, None)
        return again

    async def _in_time(self, key: Key) -> float | None:
        try:
            async with asyncio.timeout(LONGEST_LOOK) as limit:
                return await self._run(key)
        except TimeoutError as error:
            if limit.expired():
                raise TooLongError(f"it took longer than {LONGEST_LOOK:g} s and was broken off") from error
            raise

    def _worth_saying(self, key: Key) -> bool:
        """After 30 s, 1 min, 2 min …: what could not be written is tried again, without twice the calls for a sick API server."""
        now = asyncio.get_running_loop().time()
        failing = self._failing.setdefault(key, _Failing(now, now + GOES_ON))
        failing.times += 1
        if failing.times < IN_A_ROW or now < failing.say_at:
            return False
        failing.say_at = now + (now - failing.since)
        return True


def with_failure(
    status: CanaryRolloutStatus, error: Exception, generation: int, now: float
) -> tuple[CanaryRolloutStatus, str]:
    """The status that says that looks fail (and is Stalled, if it is not already), and the sentence.

    Everything else stays, the engine's own sentence too: the next look that succeeds takes these conditions away.
    """
    why = (
        cut(f"{error}")
        if isinstance(error, CanaryRolloutError)
        else f"a fault of the operator's own ({type(error).__name__})"
    )
    words = (
        f"for {GOES_ON:g} s and more every look at this rollout has failed; they are repeated ever more rarely, and nothing new is "
        f"decided meanwhile: {why}. The operator's log has each of them"
    )
    others = without_failure(status)
    kinds = [Condition.RECONCILE_FAILING]
    if not any(item.type == Condition.STALLED for item in others):
        kinds.append(Condition.STALLED)
    since = {item.type: item.last_transition_time for item in status.conditions}
    added = tuple(
        ConditionStatus(
            type=kind,
            status="True",
            reason=Reason.RECONCILE_FAILED,
            message=words,
            last_transition_time=since.get(kind, round(now, 3)),
            observed_generation=generation,
        )
        for kind in kinds
    )
    return status.model_copy(update={"conditions": (*others, *added)}), words


def without_failure(status: CanaryRolloutStatus) -> tuple[ConditionStatus, ...]:
    """The conditions that are not about looks that fail."""
    return tuple(item for item in status.conditions if item.reason != Reason.RECONCILE_FAILED)
