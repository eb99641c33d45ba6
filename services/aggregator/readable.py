"""Refuses bytes that are no message with a reason; gRPC itself would answer UNKNOWN and log a traceback."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from inspect import isasyncgenfunction
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from deerfield.errors import BadRequest
from services.aggregator.identity import Context
from services.aggregator.translation import abort

FORMS = {False: "unary", True: "stream"}  # as gRPC names the handlers
Details: TypeAlias = grpc.HandlerCallDetails
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class Readable(grpc.aio.ServerInterceptor):
    """Goes before every method of a port, whatever the service."""

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler]], handler_call_details: Details
    ) -> Handler:
        """The handler of the call, which now sees messages alone."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        kind = f"{FORMS[handler.request_streaming]}_{FORMS[handler.response_streaming]}"
        behaviour = getattr(handler, kind)
        read = _messages if handler.request_streaming else _message
        made: Handler = getattr(grpc, f"{kind}_rpc_method_handler")(
            (_many if isasyncgenfunction(behaviour) else _one)(behaviour, read),
            request_deserializer=_reader(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return made


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


def _message(request: Any) -> Any:
    if isinstance(request, _Unreadable):
        raise request.error
    return request


async def _messages(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _message(request)


def _one(behaviour: Callable[..., Awaitable[Any]], read: Callable[[Any], Any]) -> Callable[..., Awaitable[Any]]:
    async def readable(request: Any, context: Context) -> Any:
        try:
            return await behaviour(read(request), context)
        except BadRequest as error:
            await abort(context, getattr(behaviour, "__name__", "call"), error)

    return readable


def _many(
    behaviour: Callable[..., AsyncIterator[Any]], read: Callable[[Any], Any]
) -> Callable[..., AsyncIterator[Any]]:
    async def readable(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for reply in behaviour(read(request), context):
                yield reply
        except BadRequest as error:
            await abort(context, getattr(behaviour, "__name__", "call"), error)

    return readable
