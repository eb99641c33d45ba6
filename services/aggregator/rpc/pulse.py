"""How those who wait inside the event loop learn that something may have changed."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Answer = TypeVar("Answer")


class Pulse:
    """Wakes everybody who waits; lives on one event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """Nobody waits for an answer of `first` any longer."""
        self._closed = True
        self.beat()

    def beat(self) -> None:
        """Something has changed."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Returns at the next beat, or after `timeout_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._next.wait()

    async def first(self, ask: Callable[[], Answer | None], timeout_s: float) -> Answer | None:
        """The first answer of `ask` that is not None, asked now and at every beat until `timeout_s` have passed."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while (answer := ask()) is None and (left := end - loop.time()) > 0 and not self._closed:
            await self.wait(left)
        return answer
