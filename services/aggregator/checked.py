"""Checks the caller of every call of a port, whatever the service, and again at each message of a stream."""

from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isasyncgenfunction
from typing import Any, TypeAlias

import grpc

from deerfield.errors import NotAuthenticated
from services.aggregator.identity import Context
from services.aggregator.translation import abort

Check = Callable[[Context], None]
FORMS = {False: "unary", True: "stream"}  # as gRPC names the handlers
Details: TypeAlias = grpc.HandlerCallDetails
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Wrap: TypeAlias = Callable[[Callable[..., Any], bool], Callable[..., Any]]


class Checked(grpc.aio.ServerInterceptor):
    """Refuses a call, or ends it, once `check` raises NotAuthenticated for its caller."""

    def __init__(self, check: Check) -> None:
        self._check = check

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler]], handler_call_details: Details
    ) -> Handler:
        """The handler of the call, behind the check."""
        handler = await continuation(handler_call_details)
        return rewrap(
            handler,
            lambda behaviour, streams: _guard(behaviour, self._check, streams),
            lambda behaviour, streams: _guard_stream(behaviour, self._check, streams),
        )


def rewrap(handler: Handler, one: Wrap, stream: Wrap) -> Handler:
    """The handler with its behaviour inside another: `one` for one reply, `stream` for a stream of them.

    Either is given the behaviour, and whether its request is a stream.
    """
    if handler is None:  # no such method; gRPC says so
        return handler
    kind = f"{FORMS[handler.request_streaming]}_{FORMS[handler.response_streaming]}"
    behaviour = getattr(handler, kind)
    wrap = stream if isasyncgenfunction(behaviour) else one
    wrapped: Handler = getattr(grpc, f"{kind}_rpc_method_handler")(
        wrap(behaviour, handler.request_streaming),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
    return wrapped


def _guard(behaviour: Callable[..., Awaitable[Any]], check: Check, streams: bool) -> Callable[..., Awaitable[Any]]:
    async def guarded(request: Any, context: Context) -> Any:
        try:
            check(context)
            return await behaviour(_watched(request, check, context) if streams else request, context)
        except NotAuthenticated as error:
            await abort(context, getattr(behaviour, "__name__", "call"), error)

    return guarded


def _guard_stream(
    behaviour: Callable[..., AsyncIterator[Any]], check: Check, streams: bool
) -> Callable[..., AsyncIterator[Any]]:
    async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            check(context)
            async for reply in behaviour(_watched(request, check, context) if streams else request, context):
                check(context)
                yield reply
        except NotAuthenticated as error:
            await abort(context, getattr(behaviour, "__name__", "call"), error)

    return guarded


async def _watched(messages: AsyncIterator[Any], check: Check, context: Context) -> AsyncIterator[Any]:
    async for message in messages:
        check(context)
        yield message
