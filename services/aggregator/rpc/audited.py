"""Notes who calls what on a port, and with what answer, whatever the service."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from services.aggregator.auditing.decisions import Decisions
from services.aggregator.auditing.trail import CALL, Call
from services.aggregator.rpc.handlers import Details, Handler, Proceed, guarded
from services.aggregator.rpc.identity import Context

Whose = Callable[[Context], Mapping[str, str]]  # who makes a call, as far as that is known


class Audited(grpc.aio.ServerInterceptor):
    """Tells `decisions` of every call."""

    def __init__(self, decisions: Decisions, whose: Whose) -> None:
        self._decisions, self._whose = decisions, whose

    async def intercept_service(self, continuation: Proceed, handler_call_details: Details) -> Handler:
        """The handler of the call, inside the note."""
        name = str(handler_call_details.method).rpartition("/")[2]
        return guarded(await continuation(handler_call_details), _Noted(self._decisions, self._whose, name))


@dataclass(frozen=True, slots=True)
class _Noted:
    decisions: Decisions
    whose: Whose
    name: str

    def one(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        async def noted(request: Any, context: Context) -> Any:
            call, answered = self._begin(context), False
            try:
                reply = await behaviour(request, context)
                answered = True
                return reply
            finally:
                self.decisions.made(call, broken_off=not answered)

        return noted

    def many(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def noted(request: Any, context: Context) -> AsyncIterator[Any]:
            """Noted with its first reply, because a stream may be open for days; and once more if it is refused."""
            call, answered = self._begin(context), False
            try:
                async for reply in behaviour(request, context):
                    if not answered:
                        answered = True
                        self.decisions.made(call)
                    yield reply
                if not answered:
                    answered = True
                    self.decisions.made(call)
            finally:
                if not answered or call.refused is not None:
                    self.decisions.made(call, broken_off=True)

        return noted

    def _begin(self, context: Context) -> Call:
        """Each call is a task of its own, so that what is set here is seen by what works for this call alone."""
        call = Call(self.name, self.whose(context))
        CALL.set(call)
        return call
