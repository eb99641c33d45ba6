"""Takes a stream of chunks in: some are being stored on a thread while the next ones arrive."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeAlias

Chunks: TypeAlias = Sequence[tuple[str, bytes]]  # the name of each, and its bytes

BATCH = 2  # chunks that wait to be stored, beside as many that are being stored: 4 MiB for each upload


async def store(chunks: AsyncIterator[tuple[str, bytes]], keep: Callable[[Chunks], None]) -> int:
    """Hands every chunk to `keep` on a thread, several at a time where they come faster; answers how many there were.

    The first chunk never waits for one that has not come, and those that have come are kept also where the stream
    breaks or pauses for too long.
    """
    batch: list[tuple[str, bytes]] = []
    storing: asyncio.Task[None] | None = None
    count = 0
    try:
        async for chunk in chunks:
            batch.append(chunk)
            if storing is not None and (storing.done() or len(batch) >= BATCH):
                await asyncio.shield(storing)
                storing = None
            if storing is None:
                storing = asyncio.create_task(asyncio.to_thread(keep, batch))
                count, batch = count + len(batch), []
    finally:
        if storing is not None:
            await storing
        if batch:
            await asyncio.to_thread(keep, batch)
    return count + len(batch)
