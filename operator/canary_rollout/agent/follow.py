"""Follows one object: list, watch, and again, for as long as the agent lives."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog

from canary_rollout.agent.instruments import Instruments
from canary_rollout.kube.port import ApiError, GoneError, KubeApi, Object, Resource

RELIST: Final = 290.0
"""Seconds after which the server ends a watch, and the object is listed anew whatever was missed."""
LONGEST_PAUSE: Final = 10.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger("follow")


class Backoff:
    """Growing pauses with jitter: 0.1 s, doubling, at most ``longest``; never in step with other agents."""

    def __init__(self, longest: float = LONGEST_PAUSE) -> None:
        self._longest = longest
        self._next = 0.1

    def reset(self) -> None:
        """Begin anew after a success."""
        self._next = 0.1

    def pause(self) -> float:
        """Seconds to wait now."""
        ceiling, self._next = self._next, min(self._longest, self._next * 2)
        return ceiling * random.uniform(0.5, 1.0)


async def follow(
    api: KubeApi,
    resource: Resource,
    where: tuple[str, str],
    *,
    told: Callable[[Object | None], None],
    instruments: Instruments,
) -> None:
    """Follow the object at ``where`` (namespace, name).

    Call ``told`` with the object each time it may have changed, with ``None`` when it is gone. Never returns.

    Right for a Role with ``resourceNames``: list and watch are allowed there with exactly this field selector.
    """
    backoff = Backoff()
    namespace, name = where
    only = f"metadata.name={name}"
    while True:
        try:
            found, version = await api.list_all(resource, namespace, fields=only)
            told(found[0] if found else None)
            backoff.reset()
            async for kind, obj in api.watch(
                resource, namespace, resource_version=version, fields=only, timeout=RELIST
            ):
                if kind in {"ADDED", "MODIFIED"}:
                    told(obj)
                elif kind == "DELETED":
                    told(None)
        except GoneError:
            instruments.retries.labels("watch").inc()
            await asyncio.sleep(backoff.pause())
        except ApiError as error:
            instruments.retries.labels("watch").inc()
            pause = backoff.pause()
            _log.warning(
                "cannot follow", object=f"{resource.plural}/{name}", error=f"{error}", again_in=round(pause, 1)
            )
            await asyncio.sleep(pause)
