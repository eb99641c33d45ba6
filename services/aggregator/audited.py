"""Notes who calls what on a port, and with what answer, whatever the service: the outermost interceptor."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc

from services.aggregator.checked import Details, Handler, rewrap
from services.aggregator.decisions import Decisions
from services.aggregator.identity import Context
from services.aggregator.trail import CALL, Call


class Audited(grpc.aio.ServerInterceptor):
    """Tells `decisions` of every call; `whose` says who makes it, as far as that is known."""

    def __init__(self, decisions: Decisions, whose: Callable[[Context], Mapping[str, str]]) -> None:
        self._decisions, self._whose = decisions, whose

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler]], handler_call_details: Details
    ) -> Handler:
        """The handler of the call, inside the note."""
        name = str(handler_call_details.method).rpartition("/")[2]
        handler = await continuation(handler_call_details)
        return rewrap(
            handler,
            lambda behaviour, _: self._one(name, behaviour),
            lambda behaviour, _: self._stream(name, behaviour),
        )

    def _one(self, name: str, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def noted(request: Any, context: Context) -> Any:
            call, answered = self._begin(name, context), False
            try:
                reply = await behaviour(request, context)
                answered = True
                return reply
            finally:
                self._decisions.made(call, broken_off=not answered)

        return noted

    def _stream(self, name: str, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def noted(request: Any, context: Context) -> AsyncIterator[Any]:
            """Noted with its first reply, because a stream may be open for days; and once more if it is refused."""
            call, answered = self._begin(name, context), False
            try:
                async for reply in behaviour(request, context):
                    if not answered:
                        answered = True
                        self._decisions.made(call)
                    yield reply
                if not answered:
                    answered = True
                    self._decisions.made(call)
            finally:
                if not answered or call.refused is not None:
                    self._decisions.made(call, broken_off=True)

        return noted

    def _begin(self, name: str, context: Context) -> Call:
        """Each call is a task of its own, so that what is set here is seen by what works for this call alone."""
        call = Call(name, self._whose(context))
        CALL.set(call)
        return call
