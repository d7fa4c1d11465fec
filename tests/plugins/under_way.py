"""A task that runs while a test looks at what it does."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def under_way(work: Coroutine[Any, Any, object], *, ahead: float = 0.0) -> AsyncIterator[None]:
    """Run it, ``ahead`` by so many seconds (0: one turn of the loop), and cancel it in the end."""
    task = asyncio.create_task(work)
    await asyncio.sleep(ahead)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
