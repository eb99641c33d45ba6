"""The same aggregator behind real gRPC: who is served what, and what is refused in which words."""

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from deerfield.errors import (
    BadRequest,
    ChunksMissing,
    InvalidInput,
    NotMember,
    TooLarge,
    UnknownRun,
    Unreachable,
    VersionMismatch,
)
from deerfield.manifest import describe
from deerfield.wire import codec, limits
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import downstream, unary, upstream
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from deerfield.wire.federation_pb2_grpc import FederationStub, RunsStub
from deerfield.wire.status import from_rpc
from tests.fakes import TeachingSite, adapter, run_spec


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
