"""The end of a server: nobody new is let in, uploads under way may finish, for so long and no longer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc

from deerfield.errors import Unreachable
from services.aggregator.rpc.handlers import Details, Handler, Proceed, guarded
from services.aggregator.rpc.identity import Context
from services.aggregator.rpc.translation import abort

LINGER_S = 2.0  # between the last chunk of an update and the Commit that seals it
UPLOAD = ("BeginUpload", "PutChunks", "Commit")
NOT_BEGUN = ("NextTask", "BeginUpload", "PutChunks")  # what nobody begins any more
ENDING = "this aggregator is ending; the next one goes on where it stopped"


class Drain:
    """Which uploads are under way; lives on one event loop."""

    def __init__(self) -> None:
        self._begun, self._changed = asyncio.Event(), asyncio.Event()
        self._running = 0
        self._uncommitted: dict[str, float] = {}  # connection: until when its Commit is waited for

    @property
    def begun(self) -> bool:
        """Whether the server is ending."""
        return self._begun.is_set()

    async def wait(self, timeout_s: float) -> None:
        """Returns when the end begins, or after `timeout_s`."""
        await _within(self._begun, timeout_s)

    def begin(self) -> None:
        """Lets nobody new in."""
        self._begun.set()

    async def over(self, timeout_s: float) -> bool:
        """Waits until no upload is under way; False: some were after `timeout_s`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while (now := loop.time()) < end:
            waits = [until - now for until in self._uncommitted.values() if until > now]
            if not self._running and not waits:
                return True
            self._changed.clear()
            await _within(self._changed, min([end - now] if self._running else [end - now, max(waits)]))
        return not self._running

    @contextmanager
    def counted(self, call: str, peer: str) -> Iterator[None]:
        """Counts a call for as long as the block runs."""
        self._running += 1
        self._uncommitted.pop(peer, None)
        try:
            yield
            if call == "PutChunks":
                self._uncommitted[peer] = asyncio.get_running_loop().time() + LINGER_S
        finally:
            self._running -= 1
            self._changed.set()


class Draining(grpc.aio.ServerInterceptor):
    """Counts the calls of an upload, and refuses new ones once the drain has begun."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    async def intercept_service(self, continuation: Proceed, handler_call_details: Details) -> Handler:
        """The handler of the call, counted where it is one of an upload."""
        handler = await continuation(handler_call_details)
        call = handler_call_details.method.rpartition("/")[2]
        return guarded(handler, _Counted(self._drain, call)) if call in {*NOT_BEGUN, *UPLOAD} else handler


@dataclass(frozen=True, slots=True)
class _Counted:
    drain: Drain
    call: str

    def one(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        async def admitted(request: Any, context: Context) -> Any:
            if self.drain.begun and self.call in NOT_BEGUN:
                await abort(context, self.call, Unreachable(ENDING))
            if self.call not in UPLOAD:
                return await behaviour(request, context)
            with self.drain.counted(self.call, str(context.peer())):
                return await behaviour(request, context)

        return admitted

    def many(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
        return behaviour  # none of these calls yields its replies


async def _within(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
