"""What the calls of the fuzz tests say: good messages of a fresh run, faulty ones, and updates that no run takes."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from random import Random
from typing import Any, Literal

import numpy as np
from google.protobuf.message import DecodeError, Message

from deerfield.exchange import Announcement, announce
from deerfield.link import Assignment
from deerfield.manifest import describe, pieces
from deerfield.roster import PopulationReport, SiteReport
from deerfield.types import Update
from deerfield.wire import codec, limits
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from deerfield.wire.roster import encode_report
from tests.fakes import TeachingSite, adapter, attested, run_spec, spend
from tests.messages import faulty, scrambled
from tests.registry import verdict

BOUNDS = {"unit": "patient", "units_low": 200, "units_high": 400}
PATIENTS = PopulationReport(name="patients", commitment="ab" * 32, **BOUNDS)
REPORT = SiteReport(populations=(PATIENTS, PopulationReport(name="scans", on_start=True)), complete=True)
Fault = Literal["none", "fields", "bytes", "noise", "huge", "empty"]
FAULTS: tuple[Fault, ...] = ("none", "none", "none", "fields", "fields", "bytes", "noise", "huge", "empty")


def wrong(message: Message, fault: Fault, random: Random) -> bytes:
    """The bytes of a message that has a fault."""
    raw = message.SerializeToString()
    match fault:
        case "fields":
            return faulty(message, random).SerializeToString()
        case "bytes":
            return scrambled(raw, random)
        case "noise":
            return random.randbytes(random.choice([1, 10, 1000]))
        case "huge":
            return _huge(message, random)
        case "empty":
            return b""
    return raw


def _huge(message: Message, random: Random) -> bytes:
    """Far more of one field than anybody needs, or more bytes than a message may have."""
    made = type(message).FromString(message.SerializeToString())
    match made:
        case pb.Chunk():
            made.data = bytes(random.choice([(1 << 20) + 1, 9 << 20]))
        case pb.BeginUploadRequest():
            made.manifest.tensors.extend([pb.TensorInfo(name="x")] * random.choice([1000, 30_000]))
        case pb.GetChunksRequest():
            made.sha256.extend([random.randbytes(32)] * random.choice([4000, 5000]))
        case pb.EvaluatedRequest():
            made.metrics.update({str(number): 0.0 for number in range(10_000)})
        case _:
            texts = [each for each in made.DESCRIPTOR.fields if each.type == each.TYPE_STRING and not each.is_repeated]
            if texts:
                setattr(made, random.choice(texts).name, "9" * random.choice([1000, 100_000, 9 << 20]))
    return made.SerializeToString()


def limited(method: Any, raw: bytes) -> bytes:
    """The same, but for a long poll, which waits for an instant only."""
    if method.name != "NextTask":
        return raw
    try:
        request = pb.NextTaskRequest.FromString(raw)
    except DecodeError:
        return raw
    request.wait_ms = min(request.wait_ms, 20)
    return request.SerializeToString()


def good_messages(address: str, number: int) -> dict[str, Sequence[Any]]:
    """Messages that are good for a fresh run, by method; a tuple is a stream."""
    with RunsClient.connect(address) as runs:
        run = runs.start(run_spec("north", "south", rounds=1000, name=f"fuzzed {number}"), f"fuzzed {number}")
    with connect(address, role="site", site="north") as channel:
        site = TeachingSite("north", SiteClient(channel, run=run), adapter(1))
        assignment = site.link.next_task()
        update = site.update(assignment)
    told, key = announce(update), codec.encode_key(assignment.key)
    chunks = _chunks(update)
    bad = bad_updates(assignment, update)
    announced = [told] * len(bad) + [announce(each) for each in bad] + [_of_doubles(told)]
    foreign = codec.encode_chunk(sha256(b"foreign").hexdigest(), b"foreign")
    later = pb.TaskKey(run=run, incarnation=1, round=9, phase=1)
    shas = [chunk.sha256 for chunk in chunks]
    return {
        "Hello": [
            pb.HelloRequest(protocol_min=1, protocol_max=limits.PROTOCOL, build="test"),
            pb.HelloRequest(protocol_min=1, protocol_max=limits.PROTOCOL, report=encode_report(REPORT)),
            pb.HelloRequest(protocol_min=limits.PROTOCOL + 1, protocol_max=99, build="of a later year"),
        ],
        "NextTask": [pb.NextTaskRequest(run=run, wait_ms=10), pb.NextTaskRequest()],
        "BeginUpload": [codec.encode_announcement(assignment.key, each) for each in announced],
        "PutChunks": [chunks, (*chunks, *chunks), (*chunks, foreign), (), *map(_chunks, bad)],
        "Commit": [pb.CommitRequest(key=key, digest=each.manifest.digest) for each in announced],
        "UploadStatus": [pb.UploadStatusRequest(key=key), pb.UploadStatusRequest(key=later)],
        "LedgerHead": [pb.LedgerHeadRequest(population="patients")],
        "GetChunks": [
            pb.GetChunksRequest(sha256=shas),
            pb.GetChunksRequest(sha256=codec.encode_shas(describe(assignment.task.start).chunks)),
        ],
        "Heartbeat": [pb.HeartbeatRequest(key=key, steps_done=3, steps=8)],
        "Decline": [pb.DeclineRequest(key=later, reason=pb.NOT_MAPPED, detail="no")],
        "Leave": [pb.LeaveRequest(run=run, detail="bye")],
        "Start": [
            pb.StartRequest(request_id=f"again {n}", spec=run_spec("north", name=f"r{n}").canonical()) for n in range(4)
        ],
        "Watch": [pb.WatchRequest(run=run), pb.WatchRequest(run=run, after=3), pb.WatchRequest(run=run, past=True)],
        "Get": [pb.GetRequest(run=run), pb.GetRequest(run=run, published=pb.PhaseNumber(round=1))],
        "List": [pb.ListRequest(), pb.ListRequest(after=run)],
        "Abort": [pb.AbortRequest(run="another", reason="enough"), pb.AbortRequest(run=run, reason="enough")],
        "Pause": [pb.PauseRequest(run="another", reason="lunch"), pb.PauseRequest(run=run, reason="lunch")],
        "Resume": [pb.ResumeRequest(run="another"), pb.ResumeRequest(run=run)],
        "Repin": [pb.RepinRequest(site="nobody", public_key=bytes(32), reason="lost")],
        "Evaluated": [pb.EvaluatedRequest(run=run, round=0, phase=0, metrics={"accuracy": 0.5})],
        "Promote": [pb.PromoteRequest(model="m", version="1", verdict=verdict("m", "1", ""))],
        "Rollback": [pb.RollbackRequest(model="m", expected_champion="1", reason="worse")],
        "Promotions": [pb.PromotionsRequest(model="m"), pb.PromotionsRequest(model="another")],
        "Attach": [
            pb.AttachRequest(run=run, name="report.html", content=b"a report"),
            pb.AttachRequest(run="another", name="report.html", content=b"a report"),
        ],
        "Sites": [pb.SitesRequest(), pb.SitesRequest(after="north")],
    }


def bad_updates(assignment: Assignment, good: Update) -> list[Update]:
    """Updates that are well formed and signed, and that no run takes: each is about tensors it did not ask for."""
    name, tensor = next(iter(sorted(good.delta.items())))
    rest = {other: kept for other, kept in good.delta.items() if other != name}
    deltas = [
        {**rest, "head.strange": tensor},
        {**rest, name: np.ascontiguousarray(tensor.reshape(-1))},
        {**rest, name: np.full_like(tensor, np.nan)},
        {**rest, name: tensor + np.float32(1.0)},  # good in itself: a second one for the same task
    ]
    spent = spend(assignment, 0.0)
    plain = [replace(good, delta=delta, attestation=None) for delta in deltas]
    plain.append(replace(good, base="0" * 64, attestation=None))
    return [attested(assignment, update, spent) for update in plain]


def _of_doubles(good: Announcement) -> Announcement:
    tensors = tuple(replace(tensor, dtype="float64") for tensor in good.manifest.tensors)
    return replace(good, manifest=replace(good.manifest, tensors=tensors))


def _chunks(update: Update) -> tuple[pb.Chunk, ...]:
    manifest = announce(update).manifest
    return tuple(codec.encode_chunk(*piece) for piece in pieces(update.delta, manifest, manifest.chunks))
