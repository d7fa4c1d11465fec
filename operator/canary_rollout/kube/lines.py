"""The stream of a watch, split into lines."""

from collections.abc import AsyncIterator

import aiohttp


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a watch, of any length; aiohttp's own reader gives up on long ones."""
    pieces: list[bytes] = []
    async for chunk in content.iter_any():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            pieces.append(end)
            if line := b"".join(pieces):
                yield line
            pieces.clear()
        if rest:
            pieces.append(rest)
