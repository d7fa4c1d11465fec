"""One play for all stories; each begins and ends with one operator and no weight on the canary."""

from collections.abc import AsyncIterator

import pytest_asyncio
from release_play import ROLLOUT, Play, playing


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage_set() -> AsyncIterator[Play]:
    async with playing() as made:
        yield made
        made.cast.check()


@pytest_asyncio.fixture(loop_scope="session")
async def play(stage_set: Play) -> AsyncIterator[Play]:
    await stage_set.one_operator()
    yield stage_set
    await stage_set.one_operator()
    if stage_set.weight:
        await stage_set.canary("rollback", ROLLOUT, "--reason", "the story is over")
        await stage_set.until_weight(0)
