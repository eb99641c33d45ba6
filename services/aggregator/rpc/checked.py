"""Checks the caller of every call of a port, whatever the service, and again at each message of a stream."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from deerfield.errors import NotAuthenticated
from services.aggregator.rpc.handlers import Details, Handler, Proceed, guarded
from services.aggregator.rpc.identity import Context
from services.aggregator.rpc.log_context import log_context
from services.aggregator.rpc.translation import abort

Check = Callable[[Context], None]
Shown = Callable[[Context], Mapping[str, str]]  # whom a caller's certificate names, whether or not it is let in


class Checked(grpc.aio.ServerInterceptor):
    """Refuses a call, or ends it, once `check` raises NotAuthenticated for its caller."""

    def __init__(self, check: Check, shown: Shown) -> None:
        self._check, self._shown = check, shown

    async def intercept_service(self, continuation: Proceed, handler_call_details: Details) -> Handler:
        """The handler of the call, behind the check."""
        call = str(handler_call_details.method).rpartition("/")[2]
        return guarded(await continuation(handler_call_details), _Behind(self._check, self._shown, call))


@dataclass(frozen=True, slots=True)
class _Behind:
    """The guard of one method."""

    check: Check
    shown: Shown
    call: str

    def one(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        """Checks before the call and at each message of its stream."""

        async def checked(request: Any, context: Context) -> Any:
            try:
                self.check(context)
                return await behaviour(_watched(request, self.check, context), context)
            except NotAuthenticated as error:
                await self._refuse(context, error)

        return checked

    def many(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
        """As `one`, and before each reply."""

        async def checked(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                self.check(context)
                async for reply in behaviour(_watched(request, self.check, context), context):
                    self.check(context)
                    yield reply
            except NotAuthenticated as error:
                await self._refuse(context, error)

        return checked

    async def _refuse(self, context: Context, error: NotAuthenticated) -> None:
        named = self.shown(context)
        with log_context(self.call, None, named.get("name", "") if named["role"] == "site" else ""):
            await abort(context, self.call, error)


def _watched(request: Any, check: Check, context: Context) -> Any:
    """A stream that is checked at each message; one message as it is."""
    if not isinstance(request, AsyncIterable):
        return request

    async def messages() -> AsyncIterator[Any]:
        async for message in request:
            check(context)
            yield message

    return messages()
