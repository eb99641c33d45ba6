"""Calls under way at once, of one caller and of all, are no more than they may be."""

import threading
from contextlib import ExitStack

import pytest

from deerfield.errors import TooBusy
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.calls import downstream, unary
from deerfield.wire.channel import connect
from deerfield.wire.federation_pb2_grpc import RunsStub
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.bounds.conftest import assert_served, site_stub
from tests.integration.federation import wait_for


def test_one_caller_may_not_fill_the_aggregator_with_waiting_calls(bounded):
    server = bounded(calls_each=3, watches_each=2)
    run = server.runs.start(run_spec("north", "south"), "once")
    with ExitStack() as stack:
        channel = stack.enter_context(connect(server.ports.listening, role="operator"))
        watches = [downstream(RunsStub(channel).Watch, pb.WatchRequest(run=run), 20) for _ in range(3)]
        assert [next(each).kind for each in watches[:2]] == ["run_started"] * 2
        with pytest.raises(TooBusy, match="2 Watch streams of yours are open; the limit is 2"):
            next(watches[2])
        for each in watches[:2]:
            each.close()
        stub = site_stub(server, stack)
        assert TeachingSite("north", server.site("north", run), adapter(0)).step()  # now it has to wait for the other
        polls = [stub.NextTask.future(pb.NextTaskRequest(run=which, wait_ms=25_000)) for which in (run, "")]
        polls.append(stub.PutChunks.future(endless(stack)))
        wait_for(lambda: refused_for_room(stub), 20)
        assert_served(server)
        for poll in polls:
            poll.cancel()


def endless(stack):
    done = threading.Event()
    stack.callback(done.set)
    done.wait(20)
    yield from ()


def refused_for_room(stub):
    try:
        unary(stub.Hello, pb.HelloRequest(protocol_min=1, protocol_max=9), 5)
    except TooBusy as busy:
        return "calls of yours are under way" in str(busy)
    return False


def test_all_callers_together_have_a_limit_too_and_gRPCs_own_is_read_as_ours(bounded):
    server = bounded(calls=1)
    run = server.runs.start(run_spec("north", "south"), "once")
    with ExitStack() as stack:
        channel = stack.enter_context(connect(server.ports.listening, role="operator"))
        watch = downstream(RunsStub(channel).Watch, pb.WatchRequest(run=run), 20)
        next(watch)
        with pytest.raises(TooBusy, match="1 calls are under way; the limit is 1"):
            unary(site_stub(server, stack).Hello, pb.HelloRequest(protocol_min=1, protocol_max=9), 5)
        watch.close()


def test_a_site_that_asks_again_is_not_waited_for_twice(bounded):
    server = bounded()
    run = server.runs.start(run_spec("north", "south", rounds=1), "once")
    assert TeachingSite("north", server.site("north", run), adapter(0)).step()
    with ExitStack() as stack:
        stub, ask = site_stub(server, stack), pb.NextTaskRequest(run=run, wait_ms=25_000)
        older = stub.NextTask.future(ask, timeout=20)
        newer = stub.NextTask.future(ask, timeout=20)
        first = older.result(10) if wait_for_either(older, newer) is older else newer.result(10)
        assert not first.HasField("task")
        assert [older.done(), newer.done()].count(True) == 1
        for each in (older, newer):
            each.cancel()


def wait_for_either(*futures):
    wait_for(lambda: any(each.done() for each in futures), 10)
    return next(each for each in futures if each.done())
