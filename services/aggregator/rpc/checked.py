"""Checks the caller of every call of a port, whatever the service, and again at each message of a stream."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from deerfield.errors import NotAuthenticated
from services.aggregator.rpc.handlers import Details, Handler, Proceed, guarded
from services.aggregator.rpc.identity import Context
from services.aggregator.rpc.translation import abort

Check = Callable[[Context], None]


class Checked(grpc.aio.ServerInterceptor):
    """Refuses a call, or ends it, once `check` raises NotAuthenticated for its caller."""

    def __init__(self, check: Check) -> None:
        self._check = check

    async def intercept_service(self, continuation: Proceed, handler_call_details: Details) -> Handler:
        """The handler of the call, behind the check."""
        return guarded(await continuation(handler_call_details), self)

    def one(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        """Checks before the call and at each message of its stream."""

        async def checked(request: Any, context: Context) -> Any:
            try:
                self._check(context)
                return await behaviour(_watched(request, self._check, context), context)
            except NotAuthenticated as error:
                await abort(context, getattr(behaviour, "__name__", "call"), error)

        return checked

    def many(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
        """As `one`, and before each reply."""

        async def checked(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                self._check(context)
                async for reply in behaviour(_watched(request, self._check, context), context):
                    self._check(context)
                    yield reply
            except NotAuthenticated as error:
                await abort(context, getattr(behaviour, "__name__", "call"), error)

        return checked


def _watched(request: Any, check: Check, context: Context) -> Any:
    """A stream that is checked at each message; one message as it is."""
    if not isinstance(request, AsyncIterable):
        return request

    async def messages() -> AsyncIterator[Any]:
        async for message in request:
            check(context)
            yield message

    return messages()
