"""How slow a stream may be: a pause may last `idle_s`, and what comes must be worth the time it took."""

import asyncio
from collections.abc import AsyncIterator

from deerfield.errors import TooBusy
from deerfield.manifest import CHUNK_BYTES


async def paced(chunks: AsyncIterator[tuple[str, bytes]], idle_s: float) -> AsyncIterator[tuple[str, bytes]]:
    """The chunks, names with their bytes; raises TooBusy once the caller has kept us waiting too long.

    There are `idle_s` to begin with, and no more at any time; waiting uses them up, and each new chunk gives back its
    share, all of them for a whole chunk. So a stream that lives on crumbs, or on one chunk over and over, ends.
    """
    loop, stream = asyncio.get_running_loop(), aiter(chunks)
    left_s, seen = idle_s, set[str]()
    while True:
        began = loop.time()
        try:
            async with asyncio.timeout(left_s):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise TooBusy(
                f"the upload brought too little within {idle_s:g} s, and another may have its place; the limit is one "
                f"chunk of {CHUNK_BYTES} bytes in that time: begin again where it stopped"
            ) from None
        if chunk is None:
            return
        sha, data = chunk
        worth = 0 if sha in seen else len(data)
        seen.add(sha)
        left_s = min(idle_s, left_s - (loop.time() - began) + idle_s * worth / CHUNK_BYTES)
        yield chunk
