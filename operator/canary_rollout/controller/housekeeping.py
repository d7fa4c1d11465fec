"""Keeps the process small and punctual: how memory is taken from the system, and when garbage is looked for."""

import asyncio
import ctypes
import gc
from typing import Final

import structlog

log: Final = structlog.get_logger(__name__)

EVERY: Final = 300.0
"""Seconds between two looks for garbage in everything, and for memory that can be given back."""
_FIRST: Final = 60.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE: Final = 64 * 1024


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is one that can be told how to allocate (not musl, not macOS)."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def settle() -> None:
    """Call once, before any thread is started.

    Lists and answers of several megabytes come and go. By default each thread keeps what it once needed for them; here
    large blocks go back to the system when they are freed (bench/scale.py at 150 rollouts: 148 MB resident, of which
    malloc_trim gave back 26). What is cached lives long and holds no cycles: looking for some in it at every turn took
    most of the time that evaluations were late (bench/sampler.py at 5,000 rollouts: p99 1.1 s with Python's own
    thresholds, 0.4 s with these).
    """
    if (library := _glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, 2)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def keep_house() -> None:
    """Every few minutes, until cancelled: collect what the rare looks left over, and give memory back."""
    library = _glibc()
    await asyncio.sleep(_FIRST)
    while True:
        gc.collect()
        if library is not None:
            await asyncio.to_thread(library.malloc_trim, 0)
        await asyncio.sleep(EVERY)
