"""Chunks on their way from a stream to the disk."""

import asyncio
import threading

import pytest

from deerfield.errors import DigestMismatch
from services.aggregator.rpc.receiving import BATCH, store

CHUNKS = [(f"{number:064x}", bytes([number])) for number in range(20)]


class Shelf:
    """Keeps batches of chunks; the first one waits until it may go on."""

    def __init__(self) -> None:
        self.batches, self.may_go_on, self.arrived = [], threading.Event(), asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def keep(self, chunks) -> None:
        self.loop.call_soon_threadsafe(self.arrived.set)
        assert self.may_go_on.wait(10)
        self.batches.append(list(chunks))

    @property
    def kept(self):
        return [chunk for batch in self.batches for chunk in batch]


async def stream(chunks, then=None):
    for chunk in chunks:
        yield chunk
    if then is not None:
        await then()


def test_chunks_are_kept_in_order_and_few_wait_in_memory():
    async def run():
        shelf, taken = Shelf(), []

        async def counted():
            for chunk in CHUNKS:
                taken.append(chunk)
                yield chunk

        storing = asyncio.create_task(store(counted(), shelf.keep))
        await asyncio.wait_for(shelf.arrived.wait(), 10)
        for _ in range(100):  # every chance to read ahead
            await asyncio.sleep(0)
        assert len(taken) == 1 + BATCH
        shelf.may_go_on.set()
        assert await asyncio.wait_for(storing, 10) == len(CHUNKS)
        assert shelf.kept == CHUNKS
        assert max(map(len, shelf.batches)) == BATCH

    asyncio.run(run())


def test_a_chunk_does_not_wait_for_the_next_one():
    async def run():
        shelf = Shelf()
        shelf.may_go_on.set()
        never = asyncio.Event()
        storing = asyncio.create_task(store(stream(CHUNKS[:1], never.wait), shelf.keep))
        await asyncio.wait_for(shelf.arrived.wait(), 10)
        storing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await storing
        assert shelf.kept == CHUNKS[:1]

    asyncio.run(run())


def test_what_has_come_is_kept_where_the_stream_breaks():
    async def run():
        shelf = Shelf()

        async def breaks():
            shelf.may_go_on.set()
            raise ConnectionError

        with pytest.raises(ConnectionError):
            await store(stream(CHUNKS[:2], breaks), shelf.keep)
        assert shelf.kept == CHUNKS[:2]

    asyncio.run(run())


def test_a_chunk_that_is_refused_ends_the_stream():
    def refuse(chunks):
        raise DigestMismatch("not what it says")

    with pytest.raises(DigestMismatch):
        asyncio.run(store(stream(CHUNKS), refuse))
