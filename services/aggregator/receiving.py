"""Takes a stream of chunks in: some are being stored on a thread while the next ones arrive."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from deerfield.wire import federation_pb2 as pb

BATCH_BYTES = 2 << 20  # waiting to be stored, beside as much that is being stored: 4 MB for each upload


async def store(chunks: AsyncIterator[pb.Chunk], keep: Callable[[Sequence[pb.Chunk]], None]) -> int:
    """Hands every chunk to `keep` on a thread, several at a time where they come faster; answers how many there were.

    A chunk never waits for one that has not come, and those that have come are kept also where the stream breaks.
    """
    batch: list[pb.Chunk] = []
    storing: asyncio.Task[None] | None = None
    count = size = 0
    try:
        async for chunk in chunks:
            batch.append(chunk)
            size += chunk.ByteSize()  # `data` would be a copy
            if storing is not None and (storing.done() or size >= BATCH_BYTES):
                await asyncio.shield(storing)
                storing = None
            if storing is None:
                storing = asyncio.create_task(asyncio.to_thread(keep, batch))
                count, batch, size = count + len(batch), [], 0
    finally:
        if storing is not None:
            await storing
        if batch:
            await asyncio.to_thread(keep, batch)
    return count + len(batch)
