"""Updates over gRPC: what is refused, and what a lost answer costs."""

from dataclasses import replace
from hashlib import sha256

import grpc
import numpy as np
import pytest

from deerfield.errors import (
    BadRequest,
    ChunksMissing,
    DigestMismatch,
    NotFinite,
    RoundClosed,
    StaleBase,
    TooLarge,
    UnknownTensor,
    WrongDtype,
    WrongShape,
)
from deerfield.exchange import announce
from deerfield.manifest import pieces
from deerfield.wire import codec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import unary, upstream
from deerfield.wire.channel import connect
from deerfield.wire.client import SiteClient
from tests.attesting import again
from tests.fakes import LosesAnswers, TeachingSite, adapter, run_spec
from tests.integration.aggregator.teaching import announcement

LAYER = "base_model.model.layer.0.lora_B.weight"


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


def test_another_dtype_is_refused(north, stub):
    message = announcement(north)
    message.manifest.tensors[0].dtype = 0
    with pytest.raises(WrongDtype):
        unary(stub.BeginUpload, message, 5)


def test_a_commit_before_its_chunks_is_refused_and_the_status_says_what_is_missing(north, stub):
    message = announcement(north)
    commit = pb.CommitRequest(key=message.key, digest=message.manifest.digest)
    with pytest.raises(BadRequest, match="BeginUpload comes first"):
        unary(stub.Commit, commit, 5)
    missing = unary(stub.BeginUpload, message, 5).missing
    with pytest.raises(ChunksMissing):
        unary(stub.Commit, commit, 5)
    status = codec.decode_status(unary(stub.UploadStatus, pb.UploadStatusRequest(key=message.key), 5))
    assert (status.announced, status.sealed, len(status.missing)) == (True, False, len(missing))


def test_chunks_that_were_not_announced_or_are_damaged_are_refused(north, stub):
    message = announcement(north)
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
