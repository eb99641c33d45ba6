"""How those who wait inside the event loop learn that something may have changed."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Answer = TypeVar("Answer")


class Pulse:
    """Wakes those who wait: some for any change, some for tasks alone. Lives on one event loop."""

    def __init__(self) -> None:
        self._change, self._tasks = asyncio.Event(), asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """Nobody waits for an answer of `first` any longer."""
        self._closed = True
        self.beat(tasks=True)

    def beat(self, *, tasks: bool = False) -> None:
        """Something has changed; `tasks`: also what there is to do, because a run or a phase began, ended or goes on.

        A thousand sites that wait for a task must not all ask the database whenever one of them has sealed.
        """
        self._change.set()
        self._change = asyncio.Event()
        if tasks:
            self._tasks.set()
            self._tasks = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Returns at the next beat, or after `timeout_s`."""
        await _within(self._change, timeout_s)

    async def first(self, ask: Callable[[], Answer | None], timeout_s: float) -> Answer | None:
        """The first answer of `ask` that is not None, asked now and at each beat for tasks, until `timeout_s`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while (answer := ask()) is None and (left := end - loop.time()) > 0 and not self._closed:
            await _within(self._tasks, left)
        return answer


async def _within(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
