"""Puts a guard before the handlers of a port: what every interceptor of the data port does."""

from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isasyncgenfunction
from typing import Any, Protocol, TypeAlias

import grpc

from services.aggregator.rpc.identity import Context

FORMS = {False: "unary", True: "stream"}  # as gRPC names the handlers
Details: TypeAlias = grpc.HandlerCallDetails
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Proceed: TypeAlias = Callable[[Details], Awaitable[Handler]]


class Guard(Protocol):
    """What is done around every call; implementers iterate over `messages`, which are read as they are asked for."""

    def one(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        """Around a method with one reply, or one that writes its replies itself."""
        ...

    def many(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
        """Around a method that yields its replies."""
        ...


def guarded(handler: Handler, guard: Guard, read: Callable[[bytes], Any] | None = None) -> Handler:
    """The handler behind a guard, with its messages made by `read`; it stays None for a method that does not exist."""
    return None if handler is None else _made(handler, guard, handler.request_streaming, read)


def streamed(handler: Handler, guard: Guard) -> Handler:
    """As `guarded`, where the guard is always handed a stream of messages: a caller sees no difference."""
    return None if handler is None else _made(handler, guard, True, None)


def _made(
    handler: "grpc.RpcMethodHandler[Any, Any]", guard: Guard, streams: bool, read: Callable[[bytes], Any] | None
) -> Handler:
    behaviour = getattr(handler, f"{FORMS[handler.request_streaming]}_{FORMS[handler.response_streaming]}")
    make = getattr(grpc, f"{FORMS[streams]}_{FORMS[handler.response_streaming]}_rpc_method_handler")
    found: Handler = make(
        guard.many(behaviour) if isasyncgenfunction(behaviour) else guard.one(behaviour),
        request_deserializer=read or handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
    return found
