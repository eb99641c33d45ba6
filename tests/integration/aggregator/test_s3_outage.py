"""An S3 server that is out of reach for a while: calls, runs, sites and collections wait for it, nobody else does."""

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deerfield.errors import RunEnded, Unreachable
from deerfield.exchange import Key
from deerfield.wire import codec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import unary
from deerfield.wire.channel import connect as connect_wire
from deerfield.wire.federation_pb2_grpc import FederationStub
from pipelines.embedded.simulation import LocalLink
from services.aggregator.assembly import assemble_aggregator
from services.aggregator.blobstore.bucket import read_place
from services.aggregator.blobstore.collector import Collector, collecting
from services.aggregator.blobstore.retention import KEEP
from services.aggregator.blobstore.s3_blobs import S3Blobs
from services.aggregator.rounds.patience import Patience
from services.aggregator.rounds.recorder import Recorder, Registered
from services.aggregator.sql.database import Database
from services.aggregator.sql.store import Store
from services.objects import EnvironmentProvider, connect
from tests import s3
from tests.cut_link import CutLink
from tests.fakes import Clock, TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import open_aggregator, served

QUICK = Backoff(first_s=0.01, last_s=0.1, patience_s=0.5)


def name(data: bytes) -> str:
    return sha256(data).hexdigest()


@pytest.fixture
def link(s3_server):
    with CutLink(s3_server.port) as link:
        yield link


def behind(link, s3_server, bucket, backoff=QUICK):
    """Blobs of which every byte goes through the link."""
    place = read_place(s3_server.url(bucket, endpoint=link.address))
    blobs = S3Blobs(connect(place, EnvironmentProvider(s3.ENVIRONMENT)), place, backoff=backoff)
    blobs.probe()
    return blobs


def test_a_short_refusal_is_waited_for_within_the_call(link, s3_server, bucket):
    blobs = behind(link, s3_server, bucket, Backoff(first_s=0.05, last_s=0.2, patience_s=30))
    blobs.put(name(b"x"), b"x")
    link.cut()
    threading.Timer(0.5, link.restore).start()
    assert blobs.get(name(b"x")) == b"x"


def test_an_answer_that_breaks_off_is_asked_for_again(link, s3_server, bucket):
    blobs = behind(link, s3_server, bucket, Backoff(first_s=0.05, last_s=0.2, patience_s=30))
    data = b"x" * 1_000_000
    link.cut_at(300_000)  # in the middle of the body that goes up
    threading.Thread(target=lambda: (link.await_cut(), link.restore())).start()
    blobs.put(name(data), data)
    assert blobs.get(name(data)) == data


def test_a_long_refusal_is_unreachable_for_every_call_and_ends_with_it(link, s3_server, bucket):
    blobs, sha = behind(link, s3_server, bucket), name(b"x")
    blobs.put(sha, b"x")
    link.cut()
    for call in (
        lambda: blobs.put(sha, b"x"),
        lambda: blobs.get(sha),
        lambda: blobs.has(sha),
        lambda: blobs.missing([sha, name(b"y")]),
        lambda: blobs.drop(sha, time.time() + 9),
        lambda: list(blobs.kept()),
    ):
        with pytest.raises(Unreachable, match="the S3 server does not"):
            call()
    link.restore()
    assert blobs.get(sha) == b"x"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_and_in_the_end_is_unreachable(status):
    asked = []

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            busy = len(asked) < 3 or "gone" in self.path
            body = b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>" if busy else b"x"
            self.send_response(status if busy else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        place = read_place(f"s3://bucket?endpoint=127.0.0.1:{server.server_port}&secure=false")
        blobs = S3Blobs(connect(place, EnvironmentProvider(s3.ENVIRONMENT)), place, backoff=QUICK)
        assert blobs.get(name(b"x")) == b"x"
        assert len(asked) == 3
        with pytest.raises(Unreachable, match="SlowDown"):
            blobs.get("gone")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


# --- a run ---


def work(site):
    with suppress(RunEnded):
        while True:
            site.step()


@pytest.fixture
def edges():
    """What to do at which edge of the state machine."""
    return {}


@pytest.fixture
def over_link(tmp_path, clock, link, s3_server, edges):
    """A served aggregator whose blobs are behind the link; a call of them gives up after half a second."""
    first = open_aggregator(tmp_path, clock)
    uploads, published = (behind(link, s3_server, s3_server.bucket()) for _ in range(2))
    opened, close = first.desk.store, first.desk.store.close
    store = Store(
        Database(engine=opened._engine, keeper=opened._keeper, close=close),
        on_edge=lambda edge: edges.get(edge, lambda: None)(),
    )
    aggregator = assemble_aggregator(replace(first.desk, store=store, uploads=uploads, published=published))
    with served(aggregator) as server:
        yield server
    store.close()


def undisturbed(folder, *names):
    """The digest of the model when nothing goes wrong."""
    aggregator = open_aggregator(folder, Clock())
    run = aggregator.runs.start(run_spec(*names, rounds=1), "once")
    sites = [TeachingSite(each, LocalLink(aggregator, each, run), adapter(seed)) for seed, each in enumerate(names)]
    with suppress(RunEnded):
        while True:
            for site in sites:
                site.step()
            aggregator.coordinator.close_due()
    aggregator.desk.store.close()
    return aggregator.runs.get(run).model.digest


def said(capsys, words, times=1):
    """Waits until the log has said it so often; answers the log so far."""
    found, end = "", time.monotonic() + 30
    while found.count(words) < times:
        assert time.monotonic() < end, found
        threading.Event().wait(0.05)
        found += capsys.readouterr().out
    return found


def test_a_server_that_refuses_while_a_phase_is_computed_holds_the_run_up_and_does_not_end_it(
    tmp_path, over_link, link, edges, capsys
):
    edges["phase_aggregating:after_commit"] = link.cut
    run = over_link.runs.start(run_spec("north", "south", rounds=1), "once")
    names = ("north", "south")
    sites = [TeachingSite(each, over_link.site(each, run), adapter(seed)) for seed, each in enumerate(names)]
    for site in sites:
        assert site.step()
    assert said(capsys, "aggregation waits for its tensors", 2).count("Traceback") == 0
    assert over_link.runs.get(run).state == "RUNNING"
    edges.clear()
    link.restore()
    threads = [threading.Thread(target=work, args=(site,)) for site in sites]
    for thread in threads:
        thread.start()
    assert [event.kind for event in over_link.runs.watch(run)][-1] == "run_finished"
    for thread in threads:
        thread.join(30)
    (tmp_path / "other").mkdir()
    assert over_link.runs.get(run).model.digest == undisturbed(tmp_path / "other", *names)


@pytest.mark.parametrize("passed", [1, 1500, 4000])
def test_a_server_that_breaks_off_in_an_upload_is_gone_for_a_while_and_nothing_is_lost(over_link, link, passed):
    run = over_link.runs.start(run_spec("north", rounds=1, strategy="fedavg"), "once")
    north = TeachingSite("north", over_link.site("north", run), adapter(1))
    assignment = north.link.next_task()
    update = north.update(assignment)
    link.cut_at(link.up + passed)
    sending = threading.Thread(target=north.link.send, args=(assignment, update))
    sending.start()
    link.await_cut()
    threading.Timer(1.0, link.restore).start()
    sending.join(30)
    assert not sending.is_alive()
    assert [event.kind for event in over_link.runs.watch(run)][-1] == "run_finished"


def test_a_server_that_hangs_keeps_nobody_else_waiting(over_link, link):
    run = over_link.runs.start(run_spec("north", "south", rounds=1), "once")
    north = TeachingSite("north", over_link.site("north", run), adapter(1))
    assignment = north.link.next_task()
    update = north.update(assignment)
    link.stall()
    sending = threading.Thread(target=north.link.send, args=(assignment, update))
    sending.start()
    key = Key(run=run, incarnation=1, round=0, phase=0)
    end = time.monotonic() + 30
    while not over_link.aggregator.intake.expected("north"):  # its BeginUpload is at the stalled server now
        assert time.monotonic() < end
        threading.Event().wait(0.02)
    with connect_wire(over_link.ports.listening, role="site", site="south") as channel:
        reply = unary(FederationStub(channel).Heartbeat, pb.HeartbeatRequest(key=codec.encode_key(key)), 5)
    assert reply.open
    assert over_link.runs.get(run).state == "RUNNING"
    assert sending.is_alive()
    link.restore()
    sending.join(30)
    assert not sending.is_alive()
    assert over_link.aggregator.intake.status("north", key).sealed


def test_a_run_that_waits_for_its_tensors_can_be_aborted(over_link, link, edges, capsys):
    edges["phase_aggregating:after_commit"] = link.cut
    run = over_link.runs.start(run_spec("north", rounds=1), "once")
    assert TeachingSite("north", over_link.site("north", run), adapter(1)).step()
    said(capsys, "aggregation waits for its tensors")
    assert over_link.runs.abort(run, "enough").state == "ABORTED"
    link.restore()
    assert [event.kind for event in over_link.runs.watch(run)][-1] == "run_aborted"


def test_a_site_that_cannot_be_given_its_start_asks_until_it_can(over_link, link, capsys):
    run = over_link.runs.start(run_spec("north", rounds=1), "once")
    north = TeachingSite("north", over_link.site("north", run), adapter(1))
    link.cut()
    stepping = threading.Thread(target=north.step)
    stepping.start()
    assert "the S3 server does not get objects" in said(capsys, "a store failed")
    link.restore()
    stepping.join(30)
    assert not stepping.is_alive()
    key = Key(run=run, incarnation=1, round=0, phase=0)
    assert over_link.aggregator.intake.status("north", key).sealed


def test_a_collection_that_breaks_off_is_done_later(over_link, link, capsys):
    aggregator = over_link.aggregator
    aggregator.desk.uploads.put(name(b"x"), b"x")
    later = replace(aggregator.desk, clock=lambda: time.time() + 2 * 24 * 3600)
    link.cut()

    async def until_gone() -> None:
        task = asyncio.create_task(collecting(Collector(later, KEEP), first_s=0.0, period_s=0.05))
        await asyncio.to_thread(said, capsys, "collection broke off")
        link.restore()
        async with asyncio.timeout(30):
            while await asyncio.to_thread(aggregator.desk.uploads.has, name(b"x")):
                await asyncio.sleep(0.05)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(until_gone())


def test_a_model_that_is_out_of_reach_is_told_later_and_not_lost(tmp_path, clock, capsys):
    class Reads:
        """Tracking that needs the blobs, which are away for its first calls."""

        def __init__(self) -> None:
            self.calls = 0

        def record(self, event):
            self.calls += 1
            if self.calls == 1:
                raise Unreachable("the S3 server does not get objects (SlowDown)")
            return Registered(name="model", version="1") if event.kind == "phase_published" else None

    aggregator = open_aggregator(tmp_path, clock)
    run = aggregator.runs.start(run_spec("north", rounds=1, strategy="fedavg"), "once")
    recorder = Recorder(aggregator.desk.store, tracking := Reads(), clock, patience=Patience(quick_s=()))
    with pytest.raises(Unreachable):  # a thread of its own asks again, later
        recorder.drain()
    recorder.drain()
    assert tracking.calls == 2
    kinds = [event.kind for event in aggregator.runs.events(run, 0)]
    assert "tracking_failed" not in kinds
    aggregator.desk.store.close()
