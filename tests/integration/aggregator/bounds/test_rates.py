"""Who calls too often is told when to come again, and is served then."""

import threading
from contextlib import ExitStack

import grpc
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from deerfield.errors import TooBusy
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import unary
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from deerfield.wire.federation_pb2_grpc import FederationStub, RunsStub
from services.aggregator.rpc.seldom import LINES
from tests.fakes import run_spec
from tests.integration.aggregator.bounds.conftest import assert_served, site_stub
from tests.integration.aggregator.security import channel_of
from tests.integration.federation import wait_for
from tests.scraped import figure


def test_a_site_that_is_told_to_come_again_later_was_there(bounded, clock):
    server, hello = bounded(rate=1, burst=1), pb.HelloRequest(protocol_min=1, protocol_max=9)
    with ExitStack() as stack:
        stub = site_stub(server, stack)
        unary(stub.Hello, hello, 5)
        clock.advance(50)
        with pytest.raises(TooBusy):
            unary(stub.Hello, hello, 5)
    assert server.aggregator.desk.presence.last_seen("north", 0.0) == clock.now


def test_who_calls_too_often_is_told_when_to_come_again_and_others_are_served(bounded):
    server = bounded(rate=1, burst=3)
    with ExitStack() as stack:
        stub, hello = site_stub(server, stack), pb.HelloRequest(protocol_min=1, protocol_max=9)
        for _ in range(3):
            unary(stub.Hello, hello, 5)
        with pytest.raises(TooBusy, match="more than 3 calls of Hello at once, and 1 a second") as caught:
            unary(stub.Hello, hello, 5)
        assert 0 < caught.value.retry_s <= 1
        assert_served(server)
        operator = RunsStub(stack.enter_context(connect(server.ports.listening, role="operator")))
        for _ in range(3):
            unary(operator.List, pb.ListRequest(), 5)
        with pytest.raises(TooBusy, match="of List"):
            unary(operator.List, pb.ListRequest(), 5)
    told = {"call": "Hello", "reason": "TOO_BUSY"}
    wait_for(lambda: figure(server.ports.metrics, "deerfield_calls_refused_total", **told) == 1, 10)


def test_a_refusal_before_the_message_is_read_is_logged_with_its_site_and_a_flood_does_not_fill_the_log(
    bounded, consortium
):
    server, hello = bounded(gate=consortium.gate(), rate=0.01, burst=1), pb.HelloRequest(protocol_min=1, protocol_max=9)
    with ExitStack() as stack, capture_logs([merge_contextvars]) as lines:
        channel = stack.enter_context(channel_of(server.ports.listening, consortium.files("site", "north")))
        stub, silent = FederationStub(channel), channel.stream_unary("/deerfield.wire.v1.Federation/NextTask")
        with pytest.raises(grpc.RpcError, match="the call ended without its message"):
            silent(iter(()), timeout=5)
        unary(stub.Hello, hello, 5)
        for _ in range(3 * LINES):
            with pytest.raises(TooBusy):
                unary(stub.Hello, hello, 5)
    told = [line for line in lines if line["event"] == "refused"]
    assert [(line["call"], line["site"], line["error"]) for line in told] == [
        ("NextTask", "north", "BadRequest"),
        *[("Hello", "north", "TooBusy")] * LINES,
    ]
    assert "more than 1 calls of Hello at once" in told[1]["message"]


def test_a_client_that_is_told_to_wait_waits_and_gets_its_answer(bounded):
    server = bounded(rate=20, burst=1)
    waited = []
    with connect(server.ports.listening, role="operator") as channel:
        runs = RunsClient(
            channel,
            backoff=Backoff(first_s=0.06, patience_s=20, sleep=lambda s: waited.append(s) or threading.Event().wait(s)),
        )
        assert [len(runs.list()) for _ in range(4)] == [0] * 4
    assert waited


def test_a_site_that_leaves_while_it_is_told_to_wait_leaves(bounded):
    server = bounded(rate=20, burst=1)
    run, waited = server.runs.start(run_spec("north", "south", quorum=1, strategy="fedavg"), "once"), []
    with connect(server.ports.listening, role="site", site="north") as channel:
        backoff = Backoff(
            first_s=0.06, patience_s=20, sleep=lambda s: waited.append(s) or threading.Event().wait(min(s, 0.1))
        )
        link = SiteClient(channel, run=run, backoff=backoff)
        for _ in range(4):
            link.leave(run, "its budget is spent")
    assert waited
    assert server.aggregator.runs.get(run).sites["north"] == "LEFT"
