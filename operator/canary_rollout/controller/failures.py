"""Whatever a queue repeats is told: the queue itself only counts it."""

from typing import Final

import structlog

from canary_rollout.controller.queue import Key, Reconcile
from canary_rollout.errors import CanaryRolloutError

log: Final = structlog.get_logger(__name__)


def logged(run: Reconcile, what: str) -> Reconcile:
    """``run``, whose errors are logged before they go on: a sentence, or a traceback for a fault of ours."""

    async def told(key: Key) -> float | None:
        try:
            return await run(key)
        except CanaryRolloutError as error:
            log.warning("failed, to be repeated", doing=what, namespace=key[0], rollout=key[1], error=str(error))
            raise
        except Exception:
            log.exception("failed, to be repeated", doing=what, namespace=key[0], rollout=key[1])
            raise

    return told
