"""Which uploads are taken in: a few at once, a few that wait in the order they came, one of each site."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deerfield.errors import TooBusy
from services.aggregator.bounds import Bounds

RETRY_S = 5.0  # a transfer lasts seconds; asked sooner, the answer would be the same


class Admission:
    """Lives on one event loop. While an upload waits nothing of it is read, so HTTP/2's window is all it can fill."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._admitted: set[str] = set()
        self._waiting: OrderedDict[str, asyncio.Event] = OrderedDict()

    @property
    def admitted(self) -> int:
        """Uploads that are being taken in."""
        return len(self._admitted)

    @property
    def waiting(self) -> int:
        """Uploads that wait for their turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, site: str) -> AsyncIterator[None]:
        """Holds a turn for as long as the block runs.

        Raises:
            TooBusy: the site has an upload under way, too many wait already, or this one has waited too long.
        """
        self._check_room(site)
        turn = self._waiting[site] = asyncio.Event()
        try:
            self._next()
            await self._wait(turn)
            yield
        finally:
            self._waiting.pop(site, None)
            self._admitted.discard(site)
            self._next()

    def _check_room(self, site: str) -> None:
        if site in self._admitted or site in self._waiting:
            raise TooBusy(f"1 upload of {site} is under way already; the limit is 1 for each site")
        if self.waiting >= self._bounds.queue and self.admitted >= self._bounds.uploads:
            raise TooBusy(
                f"{self.admitted} uploads are under way and {self.waiting} wait; the limits are "
                f"{self._bounds.uploads} and {self._bounds.queue}",
                RETRY_S,
            )

    async def _wait(self, turn: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._bounds.queue_s):
                await turn.wait()
        except TimeoutError:
            raise TooBusy(
                f"no turn came within {self._bounds.queue_s:g} s; the limit is {self._bounds.uploads} uploads at once",
                RETRY_S,
            ) from None

    def _next(self) -> None:
        """Lets in who has waited longest."""
        while self._waiting and len(self._admitted) < self._bounds.uploads:
            site, turn = self._waiting.popitem(last=False)
            self._admitted.add(site)
            turn.set()
