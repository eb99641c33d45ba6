"""Turns deerfield's errors into gRPC status on the way out; anything else is a bug, is logged, and stays UNKNOWN."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

import grpc
import structlog
from structlog.contextvars import get_contextvars

from deerfield.errors import DeerfieldError, Unreachable
from deerfield.wire.status import to_status
from services.aggregator.auditing.trail import CALL
from services.aggregator.rpc.identity import Context
from services.aggregator.rpc.seldom import Seldom

Reply = TypeVar("Reply")
SELDOM: ContextVar[Seldom | None] = ContextVar("seldom", default=None)  # of the port that a call came to

log = structlog.get_logger()


def refuses(method: Callable[..., Awaitable[Reply]]) -> Callable[..., Awaitable[Reply]]:
    """For methods with one reply."""

    @wraps(method)
    async def translated(self: Any, request: Any, context: Context) -> Reply:
        try:
            return await method(self, request, context)
        except DeerfieldError as error:
            await abort(context, method.__name__, error)
            raise

    return translated


def refuses_stream(method: Callable[..., AsyncIterator[Reply]]) -> Callable[..., AsyncIterator[Reply]]:
    """For methods with a stream of replies."""

    @wraps(method)
    async def translated(self: Any, request: Any, context: Context) -> AsyncIterator[Reply]:
        try:
            async for reply in method(self, request, context):
                yield reply
        except DeerfieldError as error:
            await abort(context, method.__name__, error)

    return translated


async def abort(context: Context, call: str, error: DeerfieldError) -> None:
    """Ends a call with the status of an error, and says so in the log; one whose caller hung up ends as cancelled."""
    if (answered := CALL.get()) is not None:
        answered.refused = error
    if not isinstance(error, Unreachable):  # told once, where it happened
        _tell(call, error)
    status = to_status(error)
    try:
        await context.abort(status.code, status.details, tuple(status.trailing_metadata))
    except grpc.aio.InternalError:  # nobody takes the status; gRPC itself would log it as a fault of ours
        raise asyncio.CancelledError from None


def _tell(call: str, error: DeerfieldError) -> None:
    """Writes a line, unless there were many like it just now: who is refused may ask as fast as the network lets it."""
    name, seldom = type(error).__name__, SELDOM.get()
    left_out = seldom.due((call, get_contextvars().get("site"), name)) if seldom is not None else 0
    if left_out is not None:
        more = {"left_out": left_out} if left_out else {}
        log.info("refused", call=call, error=name, message=str(error), **more)
