"""A call whose caller has hung up: gRPC says so only when the status is sent, by failing."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from services.aggregator.bounds import Bounds
from services.aggregator.rpc.identity import Identity
from services.aggregator.rpc.throttle import Throttle
from tests.fakes import Clock


class Gone:
    """The context of such a call."""

    async def abort(self, code, details, trailing_metadata):
        raise grpc.aio.InternalError("Failed execute_batch")


async def nothing():
    return
    yield


async def throttled(behaviour, form):
    handler = getattr(grpc, f"{form}_rpc_method_handler")(behaviour)

    async def found(details):
        return handler

    throttle = Throttle(Bounds(), lambda context: Identity(role="site", site="north"), Clock(), lambda site: None)
    return await throttle.intercept_service(found, SimpleNamespace(method="/f/Hello"))


def test_a_call_that_is_hung_up_before_its_message_ends_as_cancelled_and_not_as_a_fault():
    async def one(request, context):
        raise AssertionError("there is no message")

    async def many(request, context):
        yield await one(request, context)

    async def main():
        unary, stream = await throttled(one, "unary_unary"), await throttled(many, "unary_stream")
        with pytest.raises(asyncio.CancelledError):
            await unary.stream_unary(nothing(), Gone())
        with pytest.raises(asyncio.CancelledError):
            await anext(stream.stream_stream(nothing(), Gone()))

    asyncio.run(main())
