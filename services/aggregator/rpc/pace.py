"""How slow a stream may be: a pause may last `idle_s`, and what comes must be worth the time it took."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from deerfield.errors import TooBusy
from deerfield.manifest import CHUNK_BYTES
from deerfield.wire import federation_pb2 as pb


async def paced(chunks: AsyncIterator[Any], idle_s: float) -> AsyncIterator[pb.Chunk]:
    """The chunks; raises TooBusy once the caller has kept us waiting too long.

    There are `idle_s` to begin with, and no more at any time; waiting uses them up, and each new chunk gives back its
    share, all of them for a whole chunk. So a stream that lives on crumbs, or on one chunk over and over, ends.
    """
    loop, stream = asyncio.get_running_loop(), aiter(chunks)
    left_s, seen = idle_s, set[bytes]()
    while True:
        began = loop.time()
        try:
            async with asyncio.timeout(left_s):
                chunk: pb.Chunk | None = await anext(stream, None)
        except TimeoutError:
            raise TooBusy(
                f"the upload brought too little within {idle_s:g} s, and another may have its place; the limit is one "
                f"chunk of {CHUNK_BYTES} bytes in that time: begin again where it stopped"
            ) from None
        if chunk is None:
            return
        worth = 0 if chunk.sha256 in seen else len(chunk.data)
        seen.add(chunk.sha256)
        left_s = min(idle_s, left_s - (loop.time() - began) + idle_s * worth / CHUNK_BYTES)
        yield chunk
