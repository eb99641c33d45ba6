"""Every call by every kind of caller, each with a request that would be served: only the right cells of one table are.

The requests are about run A, whose one site is north, and run B, whose one site is west. The callers:

    nobody      without a certificate
    foreign     the right caller's name, by another CA
    expired     the right caller's certificate, expired
    revoked     the right caller's certificate, revoked
    other_site  west, with north's request about run A
    wrong_run   north, with a request about run B
    site        north, about run A
    observer, operator

Where a call is for people, the right caller is the operator, and all sites are wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from deerfield.certificates import Files
from deerfield.exchange import announce
from deerfield.link import Assignment
from deerfield.manifest import describe, pieces
from deerfield.types import Update
from deerfield.wire import codec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import RunsClient, SiteClient
from deerfield.wire.federation_pb2_grpc import FederationStub
from tests import pki
from tests.fakes import Clock, TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.integration.aggregator.promoting import attested_by_its_manifest, consortium_spec, judged
from tests.integration.aggregator.security import NOW, OLD, Consortium, channel_of, without_certificate
from tests.registry import Tracked

Code = grpc.StatusCode
MEANING = {
    "none": Code.UNAVAILABLE,  # no connection
    "out": Code.UNAUTHENTICATED,
    "no": Code.PERMISSION_DENIED,
    "bad": Code.INVALID_ARGUMENT,  # of its own uploads, the caller has announced no such chunk
    "ok": Code.OK,
    "own": Code.OK,  # served what is the caller's own, and nothing of anybody else
}
TABLE = """
call                  nobody foreign expired revoked other_site wrong_run site observer operator
Hello                 none   none    none    out     ok         ok        ok   ok       ok
NextTask              none   none    none    out     no         no        ok   no       no
BeginUpload           none   none    none    out     no         no        ok   no       no
PutChunks             none   none    none    out     bad        bad       ok   no       no
Commit                none   none    none    out     no         no        ok   no       no
UploadStatus          none   none    none    out     no         no        ok   no       no
LedgerHead            none   none    none    out     own        own       own  no       no
GetChunks             none   none    none    out     no         no        ok   no       ok
Heartbeat             none   none    none    out     no         no        ok   no       no
Decline               none   none    none    out     no         no        ok   no       no
Leave                 none   none    none    out     no         no        ok   no       no
Start                 none   none    none    out     no         no        no   no       ok
Watch                 none   none    none    out     no         no        no   ok       ok
Get                   none   none    none    out     no         no        no   ok       ok
List                  none   none    none    out     no         no        no   ok       ok
Abort                 none   none    none    out     no         no        no   no       ok
Pause                 none   none    none    out     no         no        no   no       ok
Resume                none   none    none    out     no         no        no   no       ok
Repin                 none   none    none    out     no         no        no   no       ok
Evaluated             none   none    none    out     no         no        no   no       ok
Promote               none   none    none    out     no         no        no   no       ok
Rollback              none   none    none    out     no         no        no   no       ok
Promotions            none   none    none    out     no         no        no   ok       ok
Attach                none   none    none    out     no         no        no   no       ok
Sites                 none   none    none    out     no         no        no   ok       ok
Health/Check          none   none    none    out     ok         ok        ok   ok       ok
Health/Watch          none   none    none    out     ok         ok        ok   ok       ok
ServerReflectionInfo  none   none    none    out     ok         ok        ok   ok       ok
"""
HEADER, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [(row[0], caller, word) for row in ROWS for caller, word in zip(HEADER[1:], row[1:], strict=True)]
FOR_PEOPLE = {method.name for method in pb.DESCRIPTOR.services_by_name["Runs"].methods}


@dataclass(frozen=True)
class Part:
    """One run, the task of its one site, and the update that the site has for it."""

    run: str
    assignment: Assignment
    update: Update

    @property
    def announcement(self) -> pb.BeginUploadRequest:
        return codec.encode_announcement(self.assignment.key, announce(self.update))

    @property
    def key(self) -> pb.TaskKey:
        return codec.encode_key(self.assignment.key)

    def chunks(self) -> dict[str, bytes]:
        manifest = announce(self.update).manifest
        return dict(pieces(self.update.delta, manifest, manifest.chunks))


@dataclass
class World:
    """A live aggregator with two sites at work, and a certificate of every kind."""

    address: str
    consortium: Consortium
    sites: dict[str, grpc.Channel]
    runs: RunsClient
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    parts: dict[str, tuple[Part, Part]] = field(default_factory=dict)  # by call: run A and run B
    kept: dict[str, Files] = field(default_factory=dict)
    verdict: str = ""  # of a version that may be promoted

    def of(self, call: str) -> tuple[Part, Part]:
        """Two new runs for each call, as far as the call needs them to be."""
        if call not in self.parts:
            self.parts[call] = self._part("north", 1, call), self._part("west", 2, call)
        return self.parts[call]

    def _part(self, site: str, seed: int, call: str) -> Part:
        number = next(self.numbers)
        spec = run_spec(site, rounds=1, name=f"run {number}").model_copy(update={"seed": number})
        run = self.runs.start(spec, f"request {number}")
        link = SiteClient(self.sites[site], run=run, backoff=Backoff(patience_s=10))
        teaching = TeachingSite(site, link, adapter(seed))
        if call == "Evaluated":  # of a phase that was published
            teaching.step()
        assignment = link.next_task()
        part = Part(run, assignment, teaching.update(assignment))
        stub = FederationStub(self.sites[site])
        if call in {"PutChunks", "Commit", "UploadStatus", "LedgerHead"}:
            stub.BeginUpload(part.announcement, timeout=10)
        if call == "Commit":
            stub.PutChunks((codec.encode_chunk(*each) for each in part.chunks().items()), timeout=10)
        return part

    def files(self, caller: str, call: str) -> Files:
        """The certificate that a caller shows."""
        wanted = ("operator", "ada") if call in FOR_PEOPLE else ("site", "north")
        role, name = {
            "other_site": ("site", "west"),
            "wrong_run": ("site", "north"),
            "site": ("site", "north"),
            "observer": ("observer", "eve"),
            "operator": ("operator", "ada"),
        }.get(caller, wanted)
        kind = caller if caller in {"foreign", "expired", "revoked"} else "good"
        label = f"{kind}-{role}-{name}"
        if label not in self.kept:
            self.kept[label] = self._make(kind, label, pki.Peer(federation="lungs", role=role, name=name))
        return self.kept[label]

    def _make(self, kind: str, label: str, peer: pki.Peer) -> Files:
        folder = self.consortium.folder / label
        if kind == "expired":
            return pki.files(self.consortium.ca, folder, peer, now=OLD, days=30)
        files = pki.files(self.consortium.ca, folder, peer)
        if kind == "revoked":
            self.consortium.revoke(files)
        return self.consortium.other(files, f"{label}-ca") if kind == "foreign" else files

    @contextmanager
    def channel(self, caller: str, call: str) -> Iterator[grpc.Channel]:
        if caller == "nobody":
            with without_certificate(self.address, self.consortium.server) as channel:
                yield channel
        else:
            with channel_of(self.address, self.files(caller, call), OLD if caller == "expired" else NOW) as channel:
                yield channel


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix")
    consortium = Consortium.found(folder / "consortium")
    aggregator = open_aggregator(folder / "aggregator", Clock())
    tracking = Tracked()
    run = attested_by_its_manifest(aggregator, consortium_spec(1, "promoted"), "promoted")
    tracking.models.add("promoted", "1", run=run, digest=aggregator.runs.get(run).model.digest)
    passed = judged(tracking.models, "1", "", "promoted").text
    tracking.models.add("back", "1")
    tracking.models.add("back", "2", previous="1")
    tracking.models.named["back"]["champion"] = "2"
    with served(aggregator, tracking, gate=consortium.gate()) as found:
        found_world = World(found.ports.listening, consortium, {}, None)
        channels = {
            name: found.stack.enter_context(found_world.channel(caller, "Hello"))
            for caller, name in (("site", "north"), ("other_site", "west"), ("operator", "ada"))
        }
        yield replace(found_world, sites=channels, runs=RunsClient(channels["ada"]), verdict=passed)
    aggregator.desk.store.close()


def chunk_of(it: Part, other: Part) -> pb.Chunk:
    """A chunk of the update of one run that the other's has not."""
    chunks = it.chunks()
    sha = min(set(chunks) - set(other.chunks()))
    return codec.encode_chunk(sha, chunks[sha])


def start_chunk(it: Part, other: Part) -> bytes:
    """A chunk of the start tensors of one run that the other's have not."""
    mine, theirs = (describe(each.assignment.task.start).chunks for each in (it, other))
    return bytes.fromhex(min(set(mine) - set(theirs)))


REQUESTS: dict[str, Callable[[World, Part, Part], Any]] = {  # (the world, the run it is about, the other run)
    "Hello": lambda world, it, other: pb.HelloRequest(protocol_min=1, protocol_max=99),
    "NextTask": lambda world, it, other: pb.NextTaskRequest(run=it.run),
    "BeginUpload": lambda world, it, other: it.announcement,
    "PutChunks": lambda world, it, other: chunk_of(it, other),
    "Commit": lambda world, it, other: pb.CommitRequest(key=it.key, digest=announce(it.update).manifest.digest),
    "UploadStatus": lambda world, it, other: pb.UploadStatusRequest(key=it.key),
    "LedgerHead": lambda world, it, other: pb.LedgerHeadRequest(population="patients"),
    "GetChunks": lambda world, it, other: pb.GetChunksRequest(sha256=[start_chunk(it, other)]),
    "Heartbeat": lambda world, it, other: pb.HeartbeatRequest(key=it.key, steps_done=1, steps=2),
    "Decline": lambda world, it, other: pb.DeclineRequest(
        key=it.key, reason=codec.encode_reason("NOT_MAPPED"), detail="no such data"
    ),
    "Leave": lambda world, it, other: pb.LeaveRequest(run=it.run, detail="enough"),
    "Start": lambda world, it, other: pb.StartRequest(
        request_id=f"request {next(world.numbers)}", spec=run_spec("north").canonical()
    ),
    "Watch": lambda world, it, other: pb.WatchRequest(run=it.run),
    "Get": lambda world, it, other: pb.GetRequest(run=it.run),
    "List": lambda world, it, other: pb.ListRequest(),
    "Abort": lambda world, it, other: pb.AbortRequest(run=it.run, reason="enough"),
    "Pause": lambda world, it, other: pb.PauseRequest(run=it.run, reason="maintenance"),
    "Resume": lambda world, it, other: pb.ResumeRequest(run=it.run),
    "Repin": lambda world, it, other: pb.RepinRequest(site="nobody", public_key=bytes(32), reason="lost"),
    "Evaluated": lambda world, it, other: pb.EvaluatedRequest(run=it.run, metrics={"accuracy": 0.5}),
    "Promote": lambda world, it, other: pb.PromoteRequest(model="promoted", version="1", verdict=world.verdict),
    "Rollback": lambda world, it, other: pb.RollbackRequest(model="back", expected_champion="2", reason="it is worse"),
    "Promotions": lambda world, it, other: pb.PromotionsRequest(model="promoted"),
    "Sites": lambda world, it, other: pb.SitesRequest(),
    "Attach": lambda world, it, other: pb.AttachRequest(run=it.run, name="report.html", content=b"a report"),
    "Health/Check": lambda world, it, other: health_pb2.HealthCheckRequest(),
    "Health/Watch": lambda world, it, other: health_pb2.HealthCheckRequest(),
    "ServerReflectionInfo": lambda world, it, other: reflection_pb2.ServerReflectionRequest(list_services=""),
}


def methods(*modules):
    """By the name of a call in the table: its descriptor."""
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    return {name_of(service.name, each.name): each for service in services for each in service.methods}


def name_of(service: str, method: str) -> str:
    return f"Health/{method}" if service == "Health" else method


METHODS = methods(pb, health_pb2, reflection_pb2)


def asked(channel: grpc.Channel, method, request) -> tuple[grpc.StatusCode, str, Message | None]:
    """What a call gets: its code, the sentence, and the first answer."""
    forms = {False: "unary", True: "stream"}
    stub = getattr(channel, f"{forms[method.client_streaming]}_{forms[method.server_streaming]}")(
        f"/{method.containing_service.full_name}/{method.name}",
        GetMessageClass(method.input_type).SerializeToString,
        GetMessageClass(method.output_type).FromString,
    )
    try:
        reply = stub(iter([request]) if method.client_streaming else request, timeout=10)
        return Code.OK, "", next(reply) if method.server_streaming else reply
    except grpc.RpcError as error:
        return error.code(), error.details(), None


@pytest.mark.parametrize(("call", "caller", "word"), CELLS, ids=[f"{call}-{caller}" for call, caller, _ in CELLS])
def test_a_cell_of_the_matrix(world, call, caller, word):
    it, other = world.of(call)
    about = (other, it) if caller == "wrong_run" else (it, other)
    request = REQUESTS[call](world, *about)
    with world.channel(caller, call) as channel:
        code, said, reply = asked(channel, METHODS[call], request)
    assert code is MEANING[word], said
    if word == "own":
        assert reply.head.site == {"other_site": "west"}.get(caller, "north")
    if word == "out":
        assert "is revoked" in said


def test_the_table_has_every_call_that_the_aggregator_itself_lists(world):
    with world.channel("operator", "List") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)

        def ask(**question):
            request = reflection_pb2.ServerReflectionRequest(**question)
            return next(stub.ServerReflectionInfo(iter([request]), timeout=10))

        listed = set()
        for service in ask(list_services="").list_services_response.service:
            files = ask(file_containing_symbol=service.name).file_descriptor_response.file_descriptor_proto
            for found in map(FileDescriptorProto.FromString, files):
                listed |= {
                    name_of(each.name, method.name)
                    for each in found.service
                    if f"{found.package}.{each.name}" == service.name
                    for method in each.method
                }
    assert listed == {row[0] for row in ROWS}
