"""The same aggregator behind real gRPC: what is refused, what is resumed, what can be watched."""

import threading
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from deerfield.errors import (
    BadRequest,
    ChunksMissing,
    DigestMismatch,
    InvalidInput,
    NotFinite,
    NotMember,
    RoundClosed,
    RunEnded,
    StaleBase,
    TooLarge,
    UnknownRun,
    UnknownTensor,
    Unreachable,
    VersionMismatch,
    WrongDtype,
    WrongShape,
)
from deerfield.exchange import Key, announce
from deerfield.manifest import describe, pieces
from deerfield.wire import codec, limits
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import downstream, unary, upstream
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from deerfield.wire.federation_pb2_grpc import FederationStub, RunsStub
from deerfield.wire.status import from_rpc
from tests.attesting import again
from tests.fakes import LosesAnswers, TeachingSite, adapter, run_spec

LAYER = "base_model.model.layer.0.lora_B.weight"


@pytest.fixture
def run(server):
    return server.runs.start(run_spec("north", "south", rounds=1), "once")


@pytest.fixture
def north(server, run):
    return TeachingSite("north", server.site("north", run), adapter(1))


@pytest.fixture
def stub(server):
    with connect(server.ports.listening, role="site", site="north") as channel:
        yield FederationStub(channel)


def work(site):
    """Answers tasks until the run has ended."""
    with suppress(RunEnded):
        while True:
            site.step()


def test_two_sites_finish_a_run_that_can_be_watched_from_any_event(server, run):
    sites = [TeachingSite(name, server.site(name, run), adapter(seed)) for seed, name in enumerate(("north", "south"))]
    threads = [threading.Thread(target=work, args=(site,)) for site in sites]
    for thread in threads:
        thread.start()
    watched = list(server.runs.watch(run))
    for thread in threads:
        thread.join(10)
    assert watched[0].kind == "run_started"
    assert watched[-1].kind == "run_finished"
    kept = [event for event in watched if event.number]
    assert list(server.runs.watch(run)) == kept
    assert list(server.runs.watch(run, after=kept[3].number)) == kept[4:]
    assert list(server.runs.watch(run, after=kept[-1].number)) == []
    view = server.runs.get(run)
    assert view.state == "FINISHED"
    (last,) = server.runs.published(run, [event for event in kept if event.kind == "phase_published"][-1])
    np.testing.assert_equal(last, server.runs.model(run))
    assert [each.run for each in server.runs.list()] == [run]


def test_the_past_of_a_run_is_told_without_waiting_for_its_end(server, run, north):
    assert [event.kind for event in server.runs.past(run)] == ["run_started"]
    assignment = north.link.next_task()
    assert north.link.heartbeat(assignment, 3, 8)  # progress is not past
    assert [event.kind for event in server.runs.past(run)] == ["run_started", "task_taken"]
    server.runs.abort(run, "seen enough")
    assert server.runs.past(run) == tuple(server.runs.watch(run))
    with pytest.raises(UnknownRun):
        server.runs.past("no-such-run")


def test_progress_is_watched_while_it_happens_and_is_not_kept(server, run, north):
    assignment = north.link.next_task()
    watching = server.runs.watch(run)
    for event in watching:
        if event.kind == "task_taken":
            break
    assert north.link.heartbeat(assignment, 3, 8)
    event = next(watching)
    assert (event.number, event.kind) == (0, "progress")
    assert event.detail == {"site": "north", "steps_done": 3, "steps": 8}
    server.runs.abort(run, "seen enough")
    assert [event.kind for event in watching] == ["run_aborted"]
    assert not north.link.heartbeat(assignment, 4, 8)


def test_whoever_was_told_more_than_has_happened_hears_what_happens_next(server, run):
    """A database that a backup has replaced knows fewer events than a watcher of the one before."""
    watching = server.runs.watch(run, after=10_000)
    paused = threading.Timer(0.2, server.runs.pause, (run, "lunch"))
    paused.start()
    assert next(watching).kind == "run_paused"
    paused.join()
    server.runs.abort(run, "seen enough")
    assert [event.kind for event in watching] == ["run_aborted"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda update: replace(update, base="0" * 64), StaleBase),
        (lambda update: replace(update, delta={**update.delta, "foreign": np.zeros(3, np.float32)}), UnknownTensor),
        (lambda update: replace(update, delta={k: v for k, v in update.delta.items() if k != LAYER}), UnknownTensor),
        (lambda update: replace(update, delta={**update.delta, LAYER: np.zeros((2, 2), np.float32)}), WrongShape),
        (lambda update: replace(update, delta={**update.delta, LAYER: update.delta[LAYER] * np.nan}), NotFinite),
        (lambda update: again(update, spend=replace(update.attestation.spend, steps=1)), BadRequest),
        (lambda update: replace(update, metrics={str(i): 0.0 for i in range(999)}), TooLarge),
    ],
)
def test_an_update_that_is_not_what_was_asked_for_is_refused_with_its_reason(server, run, north, change, error):
    assignment = north.link.next_task()
    good = north.update(assignment)
    with pytest.raises(error):
        north.link.send(assignment, again(change(good)))
    if error is not NotFinite:  # an announcement that is refused closes nothing, a finished upload is the answer
        north.link.send(assignment, again(good))
        return
    with pytest.raises(RoundClosed, match="has declined round 0"):
        north.link.send(assignment, again(good))


def test_an_update_that_holds_the_frozen_factor_is_refused(run, north):
    assignment = north.link.next_task()
    whole = {name: np.zeros_like(array) for name, array in assignment.task.start.items()}
    with pytest.raises(UnknownTensor, match="lora_A"):
        north.link.send(assignment, again(replace(north.update(assignment), delta=whole)))


def announcement(north, stub):
    """A good announcement as a message, with its key and its update."""
    assignment = north.link.next_task()
    update = north.update(assignment)
    key = Key(run=assignment.run, incarnation=assignment.incarnation, round=0, phase=0)
    return codec.encode_announcement(key, announce(update))


def test_another_dtype_is_refused(north, stub):
    message = announcement(north, stub)
    message.manifest.tensors[0].dtype = 0
    with pytest.raises(WrongDtype):
        unary(stub.BeginUpload, message, 5)


def test_a_commit_before_its_chunks_is_refused_and_the_status_says_what_is_missing(north, stub):
    message = announcement(north, stub)
    commit = pb.CommitRequest(key=message.key, digest=message.manifest.digest)
    with pytest.raises(BadRequest, match="BeginUpload comes first"):
        unary(stub.Commit, commit, 5)
    missing = unary(stub.BeginUpload, message, 5).missing
    with pytest.raises(ChunksMissing):
        unary(stub.Commit, commit, 5)
    status = codec.decode_status(unary(stub.UploadStatus, pb.UploadStatusRequest(key=message.key), 5))
    assert (status.announced, status.sealed, len(status.missing)) == (True, False, len(missing))


def test_chunks_that_were_not_announced_or_are_damaged_are_refused(north, stub):
    message = announcement(north, stub)
    stranger = b"not announced"
    with pytest.raises(BadRequest, match="not announced"):
        upstream(stub.PutChunks, [pb.Chunk(sha256=sha256(stranger).digest(), data=stranger)], 5)
    missing = unary(stub.BeginUpload, message, 5).missing
    with pytest.raises(DigestMismatch):
        upstream(stub.PutChunks, [pb.Chunk(sha256=missing[0], data=b"damaged")], 5)


def test_a_transfer_that_goes_on_is_over_no_deadline(server, clock, stub):
    run = server.runs.start(run_spec("north", "south", deadline_s=100), "slow")
    north = TeachingSite("north", server.site("north", run), adapter(1))
    assignment = north.link.next_task()
    update = north.update(assignment)
    message = codec.encode_announcement(assignment.key, announce(update))
    assert north.link.heartbeat(assignment, 1, 1)
    missing = frozenset(each.hex() for each in unary(stub.BeginUpload, message, 5).missing)

    def slowly():
        for sha, data in pieces(update.delta, announce(update).manifest, missing):
            clock.advance(60)
            yield codec.encode_chunk(sha, data)

    upstream(stub.PutChunks, slowly(), 5)
    assert len(missing) > 1
    for _ in range(2):  # each of them makes the aggregator look at its deadlines
        assert north.link.heartbeat(assignment, 1, 1)
    unary(stub.Commit, pb.CommitRequest(key=message.key, digest=message.manifest.digest), 5)
    assert server.runs.get(run).state == "RUNNING"


def test_a_message_over_the_limit_is_a_typed_error(stub):
    huge = pb.Chunk(sha256=b"0" * 32, data=bytes(limits.MESSAGE_BYTES + 1))
    with pytest.raises(TooLarge):
        upstream(stub.PutChunks, [huge], 5)
    with pytest.raises(TooLarge, match="bytes in a chunk"):
        upstream(stub.PutChunks, [pb.Chunk(sha256=b"0" * 32, data=bytes((1 << 20) + 1))], 5)


def test_nobody_is_served_beyond_what_they_are(server, run, stub):
    with pytest.raises(NotMember, match="not one of the sites"):
        server.site("west", run).next_task()
    with pytest.raises(UnknownRun):
        server.site("north", "nonesuch").next_task()
    with connect(server.ports.listening, role="site", site="north") as channel, pytest.raises(NotMember):
        RunsClient(channel).abort(run, "a site may not")
    with connect(server.ports.listening, role="operator") as channel, pytest.raises(NotMember):
        SiteClient(channel, run=run).next_task()
    with grpc.insecure_channel(server.ports.listening) as channel, pytest.raises(NotMember, match="names no caller"):
        unary(RunsStub(channel).List, pb.ListRequest(), 5)


def test_what_a_site_sent_is_never_served_again(server, run, north, stub):
    assignment = north.link.next_task()
    update = north.update(assignment)
    north.link.send(assignment, update)
    chunk = describe(update.delta).tensors[0].chunks[0]
    with pytest.raises(ChunksMissing):
        server.runs.fetch(describe(update.delta))
    assert server.aggregator.desk.uploads.has(chunk)


def chunks_read(server, site, manifest):
    request = pb.GetChunksRequest(sha256=codec.encode_shas(manifest.chunks))
    with connect(server.ports.listening, role="site", site=site) as channel:
        return len(list(downstream(FederationStub(channel).GetChunks, request, 5)))


def test_a_site_reads_the_chunks_of_its_own_tasks_and_of_no_others(server):
    run = server.runs.start(run_spec("north", "south", rounds=2, strategy="local"), "own models")
    start = server.runs.get(run).model
    for seed, name in enumerate(("north", "south")):
        assert TeachingSite(name, server.site(name, run), adapter(seed)).step()
        assert chunks_read(server, name, start) == len(start.chunks)
    assert [event.kind for event in server.runs.watch(run)][-1] == "run_finished"
    own = server.runs.get(run).personal["north"]
    for site, manifest in (("south", own), ("west", own), ("west", start)):
        with pytest.raises(NotMember, match=f"of no task of {site}"):
            chunks_read(server, site, manifest)
    server.runs.fetch(own)  # an operator reads all


def test_leaving_and_declining_reach_the_run(server, run, north):
    assignment = north.link.next_task()
    north.link.decline(assignment, "NOT_MAPPED", "no such population")
    north.link.leave(run, "closing for the night")
    reasons = [event.detail for event in server.runs.watch(run) if event.kind == "run_failed"]
    assert "north declined (NOT_MAPPED: no such population)" in reasons[0]["reason"]


def test_texts_and_numbers_that_a_database_could_not_keep_are_refused_or_mended(server, run, north, stub):
    with pytest.raises(BadRequest, match="no NUL"):
        server.runs.get("a\0b")
    with pytest.raises(BadRequest, match="no NUL"):
        server.runs.start(run_spec("north"), "a\0b")
    with pytest.raises(UnknownRun):
        server.runs.get("x" * limits.NAME_CHARS)
    late = pb.TaskKey(run=run, incarnation=2**32 - 1, round=2**32 - 1, phase=2**32 - 1)
    assert not unary(stub.UploadStatus, pb.UploadStatusRequest(key=late), 5).announced
    with pytest.raises(BadRequest, match="published nothing"):
        server.runs.evaluated(run, 2**32 - 1, 2**32 - 1, {"accuracy": 0.5})
    north.link.leave(run, "a\0b \N{DEER}" + "x" * limits.DETAIL_CHARS)
    assert "north left (a\N{REPLACEMENT CHARACTER}b \N{DEER}x" in server.runs.get(run).reason
    with connect(server.ports.listening, role="operator") as channel:
        assert list(downstream(RunsStub(channel).Watch, pb.WatchRequest(run=run, after=2**64 - 1), 5)) == []


def test_a_start_that_cannot_be_run_is_a_sentence(server):
    with pytest.raises(InvalidInput, match="adapter is empty"):
        server.runs.start(run_spec("north").model_copy(update={"adapter": {}}), "once")


def test_hello_agrees_on_a_version_or_names_both(server, stub):
    assert server.site("north").hello().protocol == limits.PROTOCOL
    with pytest.raises(VersionMismatch, match="you speak protocol 8 to 9"):
        unary(stub.Hello, pb.HelloRequest(protocol_min=8, protocol_max=9), 5)


def test_unchanged_tensors_are_downloaded_once(server, run, north):
    first = north.link.next_task()
    fetched = []
    fetcher = north.link._fetcher
    download = fetcher._download
    fetcher._download = lambda shas: (fetched.extend(shas), download(shas))[1]
    again = north.link.next_task()
    np.testing.assert_equal(again.task.start, first.task.start)
    assert fetched == []


def test_health_answers_on_both_ports_and_reflection_lists_the_services(server):
    for address in (server.ports.listening, server.ports.health):
        with grpc.insecure_channel(address) as channel:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
    with grpc.insecure_channel(server.ports.listening) as channel:
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        replies = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), timeout=5)
        names = {service.name for service in next(replies).list_services_response.service}
    assert {"deerfield.wire.v1.Federation", "deerfield.wire.v1.Runs", "grpc.health.v1.Health"} <= names
    with grpc.insecure_channel(server.ports.health) as channel, pytest.raises(VersionMismatch):
        unary(RunsStub(channel).List, pb.ListRequest(), 5)


@pytest.mark.parametrize("method", ["BeginUpload", "Commit"])
def test_a_lost_answer_is_looked_up_and_the_update_is_sent_once(server, run, method):
    pauses = Backoff(first_s=0.01, patience_s=5)
    losing = LosesAnswers(method, losses=1)
    with connect(server.ports.listening, role="site", site="north") as channel:
        link = SiteClient(grpc.intercept_channel(channel, losing), run=run, backoff=pauses)
        assert TeachingSite("north", link, adapter(1)).step()
    again = [] if method == "Commit" else ["BeginUpload", "Commit"]
    assert losing.calls[losing.calls.index(method) + 1 :] == ["UploadStatus", *again]
    server.runs.abort(run, "done")
    assert [event.kind for event in server.runs.watch(run)].count("update_sealed") == 1


def test_a_client_without_its_aggregator_gives_up_when_its_patience_ends():
    with connect("127.0.0.1:1", role="operator") as channel, pytest.raises(Unreachable):
        RunsClient(channel, backoff=Backoff(first_s=0.01, patience_s=0.05)).list()


def first(answer, streams):
    return next(answer) if streams else answer


@pytest.mark.parametrize("method", ["unary_unary", "stream_unary", "unary_stream", "stream_stream"])
def test_bytes_that_are_no_message_are_refused_with_a_reason(server, method):
    path = {
        "unary_unary": "/deerfield.wire.v1.Federation/Hello",
        "stream_unary": "/deerfield.wire.v1.Federation/PutChunks",
        "unary_stream": "/deerfield.wire.v1.Runs/Watch",
        "stream_stream": "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }[method]
    with grpc.insecure_channel(server.ports.listening) as channel:
        streams, call = method.endswith("stream"), getattr(channel, method)(path)
        request = b"\xff\xff" if method.startswith("unary") else iter([b"\xff\xff"])
        caller = (("deerfield-role", "operator" if "Watch" in path else "site"), ("deerfield-site", "north"))
        with pytest.raises(grpc.RpcError) as caught:
            first(call(request, metadata=caller, timeout=10), streams)
    assert isinstance(from_rpc(caught.value), BadRequest)
    assert "2 bytes came that are no message" in caught.value.details()
