"""Deletes what no row names any more: periodically, on a thread of its own, so that rounds never wait for it.

First rows let go of their chunks and that is committed, then the chunks are deleted: a crash between the two leaves
chunks that nobody names, for the next pass. A chunk that is about to be named was put or asked for a moment ago, which
makes it younger than half of `gc_grace`: it is not deleted for the other half, and by then its row is written.
"""

import asyncio
import threading
from collections.abc import Set
from dataclasses import dataclass
from time import monotonic

import structlog

from deerfield.errors import Unreachable
from services.aggregator.blobstore.blobs import Blobs
from services.aggregator.blobstore.retention import Retention
from services.aggregator.desk import Desk

PERIOD_S = 3600.0
FIRST_S = 60.0  # after the start, when sites and operators have come back
FENCED = 100  # blobs that are deleted between two looks at whether database and blobs are still ours

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one pass did."""

    updates: int  # that were let go of
    phases: int  # whose states were
    blobs: int  # that were deleted
    size_bytes: int
    complete: bool  # whether every blob was looked at


class Collector:
    """Lets go, and deletes; one pass at a time."""

    def __init__(self, desk: Desk, retention: Retention) -> None:
        self._desk = desk
        self._store = desk.store
        self._retention = retention
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ends a pass that is under way after the blob that it is at."""
        self._stop.set()

    def collect(self) -> Collected:
        """One pass; may run on any thread.

        Raises:
            Unreachable: database or blobs; what was done until then stays done.
            Superseded: another aggregator has the database, or another database the blobs.
        """
        self._desk.check_blobs()
        now = self._desk.clock()
        updates, phases = self._release(now)
        before = now - self._retention.gc_grace_s
        swept = [
            self._sweep(blobs, named, before)
            for blobs, named in zip((self._desk.uploads, self._desk.published), self._named(), strict=True)
        ]
        return Collected(
            updates=updates,
            phases=phases,
            blobs=sum(count for count, _, _ in swept),
            size_bytes=sum(size for _, size, _ in swept),
            complete=all(complete for _, _, complete in swept),
        )

    def _release(self, now: float) -> tuple[int, int]:
        updates = phases = 0
        keep = self._retention
        for run in self._runs():
            with self._store.edge() as edge:  # one run at a time: nobody waits for long
                updates += edge.kept.release_updates(run, now - keep.keep_updates_s)
                if keep.keep_states_s is not None:
                    phases += edge.kept.release_states(run, now - keep.keep_states_s)
        return updates, phases

    def _named(self) -> tuple[Set[str], Set[str]]:
        """What the rows name, of updates and of states; whatever is named from here on is too young to be deleted."""
        updates: set[str] = set()
        with self._store.edge() as edge:
            states = {each.sha256 for each in edge.attachments.waiting()}
        for run in self._runs():
            with self._store.edge() as edge:
                updates |= edge.kept.updates(run)
                states |= edge.kept.states(run)
        return updates, states

    def _runs(self) -> list[str]:
        with self._store.edge() as edge:
            return list(edge.kept.runs())

    def _sweep(self, blobs: Blobs, named: Set[str], before: float) -> tuple[int, int, bool]:
        """How many were deleted, their bytes, and whether it came to the end."""
        count = size = 0
        for blob in blobs.kept():
            if self._stop.is_set():
                return count, size, False
            if blob.sha in named or blob.at >= before:
                continue
            if count % FENCED == 0:
                with self._store.edge():  # raises Superseded
                    pass
                self._desk.check_blobs()
            if blobs.drop(blob.sha, before):
                count, size = count + 1, size + blob.size_bytes
        return count, size, True


async def collecting(collector: Collector, first_s: float = FIRST_S, period_s: float = PERIOD_S) -> None:
    """Collects until it is cancelled, and then ends the pass that is under way."""
    pause_s = first_s
    while True:
        await asyncio.sleep(pause_s)
        pause_s = period_s
        collection = asyncio.ensure_future(asyncio.to_thread(_logged, collector))
        try:
            await asyncio.shield(collection)
        except asyncio.CancelledError:
            collector.stop()
            await collection
            raise


def _logged(collector: Collector) -> None:
    began = monotonic()
    try:
        found = collector.collect()
    except (Unreachable, OSError) as error:
        log.warning("collection broke off", error=str(error))
        return
    log.info(
        "collected",
        blobs=found.blobs,
        size_bytes=found.size_bytes,
        updates=found.updates,
        phases=found.phases,
        complete=found.complete,
        seconds=round(monotonic() - began, 3),
    )
