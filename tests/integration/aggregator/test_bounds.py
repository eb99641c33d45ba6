"""What is too much, too often, too slow or never finished ends by itself, and others are served meanwhile."""

import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from deerfield.errors import InvalidInput, TooBusy, TooLarge
from deerfield.runspec import RunSpec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import limits
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import downstream, unary, upstream
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from deerfield.wire.federation_pb2_grpc import FederationStub, RunsStub
from services.aggregator.assembly import assemble_aggregator
from services.aggregator.bounds import Bounds
from services.aggregator.server import Ports
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.integration.aggregator.security import Consortium
from tests.integration.aggregator.test_wire import announcement
from tests.integration.federation import wait_for
from tests.scraped import figure

MEASURED = Ports(listening="127.0.0.1:0", health="127.0.0.1:0", metrics="127.0.0.1:0")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, GOAWAY, HEADERS, DATA = 4, 7, 1, 0


@pytest.fixture
def bounded(tmp_path, clock):
    """Serves an aggregator with bounds of the test's own."""
    with ExitStack() as stack:

        def serve(gate=None, **bounds):
            opened = open_aggregator(tmp_path / "aggregator", clock)
            stack.callback(opened.desk.store.close)
            return stack.enter_context(
                served(assemble_aggregator(opened.desk, bounds=Bounds(**bounds)), gate=gate, asked=MEASURED)
            )

        yield serve


def site_stub(server, stack, name="north"):
    return FederationStub(stack.enter_context(connect(server.ports.listening, role="site", site=name)))


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header as HPACK has it without any table."""
    return b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def call_headers(method, site="north"):
    found = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "deerfield-role": "site",
        "deerfield-site": site,
    }
    return b"".join(literal(*pair) for pair in found.items())


@contextmanager
def raw(address):
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        yield line


def read_until_closed(line):
    """What the other side says before it closes; fails after 10 s of silence."""
    said = b""
    try:
        while more := line.recv(65536):
            said += more
    except ConnectionResetError:
        pass
    return said


def under_way(server):
    return sum(figure(server.ports.metrics, f"deerfield_uploads_{which}") for which in ("admitted", "waiting"))


def assert_served(server):
    """Somebody else is answered."""
    assert server.site("south").hello().protocol == limits.PROTOCOL


def test_a_connection_that_never_says_a_word_is_closed(bounded):
    server = bounded(handshake_s=0.5)
    with raw(server.ports.listening) as silent, raw(server.ports.listening) as half:
        half.sendall(PREFACE[:10])
        assert_served(server)
        read_until_closed(silent)
        read_until_closed(half)


def test_a_tls_handshake_that_is_never_finished_is_closed(bounded, tmp_path):
    server = bounded(gate=Consortium.found(tmp_path / "lungs").gate(), handshake_s=0.5)
    with raw(server.ports.listening) as line:
        line.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a hello
        read_until_closed(line)


def test_a_connection_without_calls_is_closed_with_a_word(bounded):
    server = bounded(unused_s=0.5, keepalive_s=60)
    with raw(server.ports.listening) as line:
        line.sendall(PREFACE + frame(SETTINGS))
        assert_served(server)
        assert frame(GOAWAY)[3:4] in read_until_closed(line)


def test_a_peer_that_is_gone_without_a_word_is_noticed_by_its_silence(bounded):
    server = bounded(keepalive_s=0.3, keepalive_timeout_s=0.3, unused_s=60)
    with raw(server.ports.listening) as line:  # which never answers a ping
        line.sendall(PREFACE + frame(SETTINGS))
        read_until_closed(line)
    assert_served(server)


def test_a_call_whose_message_never_comes_is_ended(bounded):
    server = bounded(request_s=0.5)
    with raw(server.ports.listening) as line:
        line.sendall(PREFACE + frame(SETTINGS))
        line.sendall(frame(HEADERS, 4, 1, call_headers("/deerfield.wire.v1.Federation/Hello")))
        line.sendall(frame(DATA, 0, 1, b"\x00\x00\x00\x00\x09half"))
        assert_served(server)
        said = b""
        while b"did not come within 0.5 s" not in said:
            more = line.recv(65536)
            assert more, said
            said += more


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

    def holding():
        hang.wait(20)
        yield from ()

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        stack.callback(hang.set)
        held = []
        for name in ("north", "west"):  # one is let in, one waits
            held.append(pool.submit(upstream, site_stub(server, stack, name).PutChunks, holding(), 20))
            wait_for(lambda: under_way(server) == len(held), 20)
        with pytest.raises(TooBusy, match="1 uploads are under way and 1 wait") as caught:
            upstream(site_stub(server, stack, "east").PutChunks, iter(()), 5)
        assert caught.value.retry_s == 5
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

    def holding():
        hang.wait(20)
        yield from ()

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        stack.callback(hang.set)
        held = pool.submit(upstream, site_stub(server, stack, "west").PutChunks, holding(), 20)
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


def test_a_site_that_is_told_to_come_again_later_was_there(bounded, clock):
    server, hello = bounded(rate=1, burst=1), pb.HelloRequest(protocol_min=1, protocol_max=9)
    with ExitStack() as stack:
        stub = site_stub(server, stack)
        unary(stub.Hello, hello, 5)
        clock.advance(50)
        with pytest.raises(TooBusy):
            unary(stub.Hello, hello, 5)
    assert server.aggregator.desk.presence.last_seen("north", 0.0) == clock.now


def impatient(method, messages, timeout_s):
    """An upload by a client that does not wait for its turn."""
    return method(messages, timeout=timeout_s)


@pytest.mark.parametrize(("send", "most"), [(upstream, 0), (impatient, 2)], ids=["ours", "impatient"])
def test_of_an_upload_that_waits_nothing_is_sent_and_never_more_than_the_window_holds(bounded, send, most):
    server = bounded(uploads=1, queue=1)
    hang, pulled = threading.Event(), []

    def holding():
        hang.wait(20)
        yield from ()

    def eager():
        for number in range(50):
            pulled.append(number)
            yield pb.Chunk(sha256=bytes(32), data=bytes(1 << 20))

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        stack.callback(hang.set)
        pool.submit(upstream, site_stub(server, stack, "west").PutChunks, holding(), 20)
        wait_for(lambda: under_way(server) == 1, 20)
        waits = pool.submit(send, site_stub(server, stack).PutChunks, eager(), 20)
        wait_for(lambda: under_way(server) == 2, 20)
        for _ in range(20):  # others go back and forth meanwhile
            assert_served(server)
        assert len(pulled) <= most
        hang.set()
        with pytest.raises(Exception, match="was not announced"):
            waits.result(20)


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


def test_a_run_that_is_too_large_is_refused_before_anything_is_drawn(bounded):
    server = bounded(sites=2)
    with pytest.raises(TooLarge, match="3 sites in a run; the limit is 2"):
        server.runs.start(run_spec("a", "b", "c"), "sites")

    def start(**adapter_of):
        spec = run_spec("a")
        return server.runs.start(spec.model_copy(update={"adapter": {**spec.adapter, **adapter_of}}), "adapter")

    with pytest.raises(TooLarge, match=r"4000000000000 bytes in head.huge; the limit is 268435456"):
        start(**{"head.huge": (1_000_000, 1_000_000)})
    with pytest.raises(TooLarge, match="bytes in an adapter; the limit is 4294967296"):
        start(**{f"head.{i}": (8000, 8000) for i in range(20)})
    with pytest.raises(TooLarge, match="20006 tensors in an adapter; the limit is 20000"):
        start(**{f"h{i}": (1,) for i in range(20_000)})
    with pytest.raises(TooLarge, match=r"9 dimensions in head\.deep; the limit is 8"):
        start(**{"head.deep": (1,) * 9})
    with pytest.raises(InvalidInput, match="every side is at least 1"):
        start(**{"head.odd": (-3, 2)})


def test_a_text_of_a_run_over_the_limit_is_not_parsed(bounded):
    with (
        connect(bounded().ports.listening, role="operator") as channel,
        pytest.raises(TooLarge, match="characters in a run"),
    ):
        unary(RunsStub(channel).Start, pb.StartRequest(request_id="once", spec=" " * (limits.SPEC_BYTES + 1)), 20)


def test_runs_at_once_have_a_limit_and_the_same_start_again_is_still_the_same_run(bounded):
    server = bounded(runs=1)
    run = server.runs.start(run_spec("north"), "once")
    with connect(server.ports.listening, role="operator") as channel:
        second = pb.StartRequest(request_id="second", spec=run_spec("south").canonical())
        with pytest.raises(TooBusy, match="1 runs are running; the limit is 1"):
            unary(RunsStub(channel).Start, second, 5)
        assert server.runs.start(run_spec("north"), "once") == run
        server.runs.abort(run, "make room")
        assert unary(RunsStub(channel).Start, second, 5).run


def test_a_run_that_was_paused_goes_on_once_there_is_room_for_it(bounded):
    server = bounded(runs=1)
    paused = server.runs.start(run_spec("north"), "once")
    server.runs.pause(paused, "let another run first")
    other = server.runs.start(run_spec("south"), "second")
    with connect(server.ports.listening, role="operator") as channel:
        resume = pb.ResumeRequest(run=paused)
        with pytest.raises(TooBusy, match="1 runs are running; the limit is 1: wait for one, or pause or abort one"):
            unary(RunsStub(channel).Resume, resume, 5)
        assert server.runs.get(paused).state == "PAUSED"
        assert server.runs.resume(other).state == "RUNNING"  # it runs already, and takes no more room
        server.runs.pause(other, "")
        unary(RunsStub(channel).Resume, resume, 5)
    assert server.runs.get(paused).state == "RUNNING"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m.tensors[0].shape.__setitem__(slice(None), [1 << 40]), f"{4 << 40} bytes in"),
        (lambda m: m.tensors[0].shape.extend([1] * 8), "dimensions in"),
        (lambda m: m.tensors[0].chunks.extend([bytes(32)] * limits.CHUNKS), "chunks in a manifest; the limit is 32768"),
        (lambda m: [m.tensors.add(shape=[1 << 26]) for _ in range(17)], "bytes in a manifest; the limit is 4294967296"),
        (lambda m: [m.tensors.add(shape=[1]) for _ in range(limits.TENSORS)], "tensors in a manifest; the limit is"),
    ],
)
def test_a_manifest_over_a_limit_is_refused_with_value_and_limit(bounded, change, sentence):
    server = bounded()
    run = server.runs.start(run_spec("north", "south"), "once")
    with ExitStack() as stack:
        stub = site_stub(server, stack)
        message = announcement(TeachingSite("north", server.site("north", run), adapter(1)), stub)
        change(message.manifest)
        with pytest.raises(TooLarge, match=sentence):
            unary(stub.BeginUpload, message, 10)


def test_metadata_over_the_limit_is_refused_by_gRPC_with_value_and_limit(bounded):
    server = bounded()
    with ExitStack() as stack:
        stub = site_stub(server, stack)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Hello(pb.HelloRequest(), timeout=5, metadata=(("x-large", "x" * limits.METADATA_BYTES),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(limits.METADATA_BYTES) in caught.value.details()
        assert_served(server)


def test_a_sentence_that_is_too_long_for_metadata_is_cut_and_keeps_its_reason(bounded):
    server = bounded()
    for letter in ("a", "\N{DEER}"):
        spec = RunSpec.model_validate({**run_spec("a").model_dump(), "labels": [letter * 30_000, "no"]})
        with ExitStack() as stack:
            operator = RunsStub(stack.enter_context(connect(server.ports.listening, role="operator")))
            text = spec.canonical().replace('"population"', f'"{letter * 30_000}":1,"population"')
            with pytest.raises(InvalidInput, match=letter * 100):
                unary(operator.Start, pb.StartRequest(request_id="once", spec=text), 10)


def test_connections_hold_no_more_calls_at_once_than_they_may(bounded):
    server = bounded(streams=2)
    run = server.runs.start(run_spec("north", "south"), "once")
    with connect(server.ports.listening, role="operator") as channel:
        watches = [downstream(RunsStub(channel).Watch, pb.WatchRequest(run=run), 20) for _ in range(2)]
        assert [next(each).kind for each in watches] == ["run_started"] * 2
        with pytest.raises(grpc.RpcError) as caught:  # it waits for room on its own side until its deadline
            RunsStub(channel).List(pb.ListRequest(), timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        watches[0].close()
        assert unary(RunsStub(channel).List, pb.ListRequest(), 10).runs
        watches[1].close()
