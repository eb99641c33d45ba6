"""Refuses bytes that are no message with a reason; gRPC itself would answer UNKNOWN and log a traceback."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from deerfield.errors import BadRequest
from services.aggregator.rpc.handlers import Details, Handler, Proceed, guarded
from services.aggregator.rpc.identity import Context
from services.aggregator.rpc.translation import abort


class Readable(grpc.aio.ServerInterceptor):
    """Goes right before every method of a port, whatever the service."""

    async def intercept_service(self, continuation: Proceed, handler_call_details: Details) -> Handler:
        """The handler of the call, which now sees messages alone."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        return guarded(handler, self, _reader(handler.request_deserializer))

    def one(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        """Refuses before the call, or at the message of its stream."""

        async def readable(request: Any, context: Context) -> Any:
            try:
                return await behaviour(_read(request), context)
            except BadRequest as error:
                await abort(context, getattr(behaviour, "__name__", "call"), error)

        return readable

    def many(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
        """As `one`."""

        async def readable(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async for reply in behaviour(_read(request), context):
                    yield reply
            except BadRequest as error:
                await abort(context, getattr(behaviour, "__name__", "call"), error)

        return readable


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands in the place of the message that could not be made."""

    error: BadRequest


def _reader(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError as error:
            return _Unreadable(BadRequest(f"{len(raw)} bytes came that are no message of this call: {error}"))

    return parsed


def _read(request: Any) -> Any:
    """The message, or the stream of them; raises BadRequest for one that is none."""
    if isinstance(request, _Unreadable):
        raise request.error
    return _messages(request) if isinstance(request, AsyncIterable) else request


async def _messages(requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _read(request)
