"""Which uploads are taken in: a few at once, a few that wait in the order they came, one of each site."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from deerfield.errors import TooBusy
from services.aggregator.bounds import Bounds

RETRY_S = 5.0  # a transfer lasts seconds; asked sooner, the answer would be the same
ENDING = "this aggregator is ending; the next one goes on where it stopped"
HEARD_S = 1.0  # how often whoever waits is heard: as often as lost sites are looked for


class Admission:
    """Lives on one event loop. While an upload waits nothing of it is read, so HTTP/2's window is all it can fill.

    `heard` is told the site of an upload for as long as it waits: it is silent because it was told to be.
    """

    def __init__(self, bounds: Bounds, heard: Callable[[str], None] = lambda site: None) -> None:
        self._bounds = bounds
        self._heard = heard
        self._admitted: set[str] = set()
        self._waiting: OrderedDict[str, asyncio.Event] = OrderedDict()
        self._closed = False

    @property
    def admitted(self) -> int:
        """Uploads that are being taken in."""
        return len(self._admitted)

    @property
    def waiting(self) -> int:
        """Uploads that wait for their turn."""
        return len(self._waiting)

    def close(self) -> None:
        """Sends away whoever waits, and lets nobody in any more; who is in may finish."""
        self._closed = True
        for turn in self._waiting.values():
            turn.set()

    @asynccontextmanager
    async def turn(self, site: str) -> AsyncIterator[None]:
        """Holds a turn for as long as the block runs.

        Raises:
            TooBusy: the site has an upload under way, too many wait already, or this one has waited too long.
        """
        self._check_room(site)
        if self._closed:
            raise TooBusy(ENDING, RETRY_S)
        turn = self._waiting[site] = asyncio.Event()
        try:
            self._next()
            await self._wait(site, turn)
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

    async def _wait(self, site: str, turn: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._bounds.queue_s):
                while not turn.is_set():
                    self._heard(site)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(HEARD_S):
                            await turn.wait()
        except TimeoutError:
            raise TooBusy(
                f"no turn came within {self._bounds.queue_s:g} s; the limit is {self._bounds.uploads} uploads at once",
                RETRY_S,
            ) from None
        if site not in self._admitted:
            raise TooBusy(ENDING, RETRY_S)

    def _next(self) -> None:
        """Lets in who has waited longest."""
        while self._waiting and not self._closed and len(self._admitted) < self._bounds.uploads:
            site, turn = self._waiting.popitem(last=False)
            self._admitted.add(site)
            turn.set()
