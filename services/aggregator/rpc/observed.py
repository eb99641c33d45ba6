"""Sees how calls end, whatever the service and whoever refused them: the outermost of the interceptors."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from deerfield.wire.status import reason_of
from services.aggregator.metrics import Metrics
from services.aggregator.rpc.handlers import Details, Handler, Proceed, guarded
from services.aggregator.rpc.identity import Context
from services.aggregator.rpc.seldom import Seldom
from services.aggregator.rpc.translation import SELDOM


class Observed(grpc.aio.ServerInterceptor):
    """Hands every refusal to the metrics, and sees to it that not too many stand in the log."""

    def __init__(self, metrics: Metrics, seldom: Seldom) -> None:
        self._metrics, self._seldom = metrics, seldom

    async def intercept_service(self, continuation: Proceed, handler_call_details: Details) -> Handler:
        """The handler of the call, with its end watched."""
        call = handler_call_details.method.rpartition("/")[2]
        return guarded(await continuation(handler_call_details), _Watched(self._metrics, self._seldom, call))


@dataclass(frozen=True, slots=True)
class _Watched:
    metrics: Metrics
    seldom: Seldom
    call: str

    def one(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        async def watched(request: Any, context: Context) -> Any:
            with self._counted(context):
                return await behaviour(request, context)

        return watched

    def many(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def watched(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._counted(context):
                async for reply in behaviour(request, context):
                    yield reply

        return watched

    @contextmanager
    def _counted(self, context: Context) -> Iterator[None]:
        SELDOM.set(self.seldom)  # each call is a task of its own
        try:
            yield
        except grpc.aio.AbortError:
            if reason := reason_of(context.trailing_metadata()):
                self.metrics.refused(self.call, reason)
            raise
