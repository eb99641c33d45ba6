"""Who waits for a task: of each site, for each run, its newest call alone."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Polls:
    """Lives on one event loop. A site whose line broke asks again, and nobody must wait for it twice."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], asyncio.Future[Any]] = {}

    async def newest(self, site: str, run: str, poll: Awaitable[Answer | None]) -> Answer | None:
        """What `poll` answers, or None once the same site asks for the same run again."""
        mine, where = asyncio.ensure_future(poll), (site, run)
        if (older := self._waiting.get(where)) is not None:
            older.cancel()
        self._waiting[where] = mine
        try:
            return await mine
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._waiting.get(where) is mine or (caller is not None and caller.cancelling()):
                raise
            return None
        finally:
            mine.cancel()
            if self._waiting.get(where) is mine:
                del self._waiting[where]
