"""Virtual time, and the wall clock that follows it."""

import asyncio

EPOCH = 1_800_000_000.0


class Wall:
    """Wall time that follows the loop's virtual time, ``ahead`` of it by some seconds."""

    ahead = 0.0

    def now(self) -> float:
        return EPOCH + self.ahead + asyncio.get_running_loop().time()


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


def api_wall() -> float:
    try:
        return EPOCH + now()
    except RuntimeError:
        return EPOCH
