"""Uploads take turns: one that brings nothing gives its turn up, one too many is told when to come again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from deerfield.errors import TooBusy
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import upstream
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.bounds.conftest import assert_served, site_stub
from tests.integration.federation import wait_for
from tests.scraped import figure


def under_way(server):
    return sum(figure(server.ports.metrics, f"deerfield_uploads_{which}") for which in ("admitted", "waiting"))


def test_an_upload_that_brings_nothing_gives_its_turn_to_who_waits(bounded):
    server = bounded(uploads=1, idle_s=0.5)
    run = server.runs.start(run_spec("north", "south", rounds=1, strategy="fedavg"), "once")
    sites = [TeachingSite(name, server.site(name, run), adapter(i)) for i, name in enumerate(("north", "south"))]
    hang = threading.Event()

    def trickle():
        hang.wait(20)
        yield pb.Chunk()

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        stack.callback(hang.set)
        stuck = pool.submit(upstream, site_stub(server, stack).PutChunks, trickle(), 20)
        assert sites[1].step()
        with pytest.raises(TooBusy, match=r"too little within 0\.5 s"):
            stuck.result(20)
        hang.set()
        assert sites[0].step()
    assert [event.kind for event in server.runs.watch(run)][-1] == "run_finished"


def test_an_upload_beyond_the_queue_is_told_when_to_come_again_and_arrives(bounded):
    server = bounded(uploads=1, queue=1, idle_s=20)
    run = server.runs.start(run_spec("north", "south", "west", rounds=1), "once")
    south = TeachingSite("south", server.site("south", run), adapter(1))
    hang = threading.Event()

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        stack.callback(hang.set)
        held = []
        for name in ("north", "west"):  # one is let in, one waits
            held.append(pool.submit(upstream, site_stub(server, stack, name).PutChunks, holding(hang), 20))
            wait_for(lambda: under_way(server) == len(held), 20)
        with (
            capture_logs([merge_contextvars]) as lines,
            pytest.raises(TooBusy, match="1 uploads are under way and 1 wait") as caught,
        ):
            upstream(site_stub(server, stack, "east").PutChunks, iter(()), 5)
        assert caught.value.retry_s == 5
        refused = [line for line in lines if line["event"] == "refused"]
        assert [(line["call"], line["site"], line["error"]) for line in refused] == [("PutChunks", "east", "TooBusy")]
        waited = []
        link = south.link
        link._backoff = Backoff(sleep=lambda pause: (waited.append(pause), hang.set()))
        assert south.step()  # refused, told to wait, and taken in
        assert waited[0] >= 5
        assert [each.result(20).stored for each in held] == [0, 0]


def test_a_site_that_waits_for_its_turn_is_not_lost(bounded, clock):
    server = bounded(uploads=1)
    run = server.runs.start(run_spec("south", rounds=1), "once")
    south, presence = TeachingSite("south", server.site("south", run), adapter(1)), server.aggregator.desk.presence
    hang = threading.Event()

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        stack.callback(hang.set)
        held = pool.submit(upstream, site_stub(server, stack, "west").PutChunks, holding(hang), 20)
        wait_for(lambda: under_way(server) == 1, 20)
        sending = pool.submit(south.step)
        wait_for(lambda: under_way(server) == 2, 20)
        for _ in range(3):  # together twice the time after which a site is lost
            clock.advance(40)
            wait_for(lambda: presence.last_seen("south", 0.0) == clock.now, 20)
        hang.set()
        assert held.result(20).stored == 0
        assert sending.result(20)
    assert "lost" not in [event.kind for event in server.aggregator.runs.events(run, 0)]


def holding(hang):
    """An upload of nothing, until it may end."""
    hang.wait(20)
    yield from ()


def impatient(method, messages, timeout_s):
    """An upload by a client that does not wait for its turn."""
    return method(messages, timeout=timeout_s)


@pytest.mark.parametrize(("send", "most"), [(upstream, 0), (impatient, 2)], ids=["ours", "impatient"])
def test_of_an_upload_that_waits_nothing_is_sent_and_never_more_than_the_window_holds(bounded, send, most):
    server = bounded(uploads=1, queue=1)
    hang, pulled = threading.Event(), []

    def eager():
        for number in range(50):
            pulled.append(number)
            yield pb.Chunk(sha256=bytes(32), data=bytes(1 << 20))

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        stack.callback(hang.set)
        pool.submit(upstream, site_stub(server, stack, "west").PutChunks, holding(hang), 20)
        wait_for(lambda: under_way(server) == 1, 20)
        waits = pool.submit(send, site_stub(server, stack).PutChunks, eager(), 20)
        wait_for(lambda: under_way(server) == 2, 20)
        for _ in range(20):  # others go back and forth meanwhile
            assert_served(server)
        assert len(pulled) <= most
        hang.set()
        with pytest.raises(Exception, match="was not announced"):
            waits.result(20)
