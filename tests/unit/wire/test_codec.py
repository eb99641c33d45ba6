from math import inf, nan

import pytest

from deerfield.errors import BadRequest, DigestMismatch, InvalidInput, TooLarge
from deerfield.wire import checks, codec, limits
from deerfield.wire import federation_pb2 as pb
from tests.unit.wire.values import ANNOUNCEMENT, EVENT, KEY, MANIFEST, OFFER, STATUS, VIEW, over_the_wire


def test_every_value_survives_the_wire():
    announcement = over_the_wire(codec.encode_announcement(KEY, ANNOUNCEMENT))
    assert codec.decode_manifest(over_the_wire(codec.encode_manifest(MANIFEST))) == MANIFEST
    assert codec.decode_offer(over_the_wire(codec.encode_offer(OFFER))) == OFFER
    assert codec.decode_offer(over_the_wire(codec.encode_offer(None))) is None
    assert codec.decode_announcement(announcement) == ANNOUNCEMENT
    assert codec.decode_key(announcement.key) == KEY
    assert codec.decode_view(over_the_wire(codec.encode_view(VIEW))) == VIEW
    assert codec.decode_event(over_the_wire(codec.encode_event(EVENT))) == EVENT
    assert codec.decode_status(over_the_wire(codec.encode_status(STATUS))) == STATUS
    assert codec.decode_chunk(codec.encode_chunk("ab" * 32, b"data")) == ("ab" * 32, b"data")
    assert codec.decode_reason(pb.Reason.Value(codec.encode_reason("NOT_MAPPED"))) == "NOT_MAPPED"


def manifest(**changes):
    message = codec.encode_manifest(MANIFEST)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def first(change):
    message = codec.encode_manifest(MANIFEST)
    change(message.tensors[0])
    return message


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (manifest(digest=""), BadRequest),
        (manifest(digest="x" * 64), BadRequest),
        (first(lambda info: setattr(info, "name", "")), BadRequest),
        (first(lambda info: setattr(info, "name", "x" * 300)), BadRequest),
        (first(lambda info: info.chunks.append(b"short")), BadRequest),
        (first(lambda info: info.shape.extend([1] * 9)), TooLarge),
        (pb.Manifest(tensors=[pb.TensorInfo()] * (limits.TENSORS + 1)), TooLarge),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(message, error):
    with pytest.raises(error):
        codec.decode_manifest(message)


@pytest.mark.parametrize("dtype", [0, 7])
def test_an_unknown_dtype_is_kept_for_the_schema_to_refuse(dtype):
    message = first(lambda info: setattr(info, "dtype", dtype))
    assert codec.decode_manifest(message).tensors[0].dtype != "float32"


@pytest.mark.parametrize(
    "spend",
    [
        pb.Spend(unit="record", noise_multiplier=nan),
        pb.Spend(unit="record", noise_multiplier=-1),
        pb.Spend(unit="record", noise_multiplier=inf),
        pb.Spend(unit="record", noise_multiplier=1e300),
        pb.Spend(unit="record", noise_multiplier=1e-300),
        pb.Spend(unit="record", noise_multiplier=1, sample_rate=inf),
        pb.Spend(unit="record", noise_multiplier=1, clip=nan),
        pb.Spend(unit="record", noise_multiplier=1, clip=inf),
        pb.Spend(unit="hospital"),
        pb.Spend(),
    ],
)
def test_a_spend_that_cannot_be_is_refused(spend):
    message = codec.encode_announcement(KEY, ANNOUNCEMENT)
    message.attestation.spend.CopyFrom(spend)
    with pytest.raises(BadRequest):
        codec.decode_announcement(message)


def test_an_infinite_clip_is_a_spend_without_privacy():
    message = codec.encode_announcement(KEY, ANNOUNCEMENT)
    message.attestation.spend.CopyFrom(pb.Spend(unit="none", sample_rate=0.125, steps=8, clip=inf))
    assert codec.decode_announcement(message).attestation.spend.clip == inf


def test_metrics_are_few_finite_and_named():
    for metrics in ({"loss": nan}, {"": 1.0}):
        with pytest.raises(BadRequest):
            checks.finite_metrics(metrics)
    with pytest.raises(TooLarge):
        checks.finite_metrics({str(i): 1.0 for i in range(limits.METRICS + 1)})


def test_words_and_numbers_outside_their_sets_are_refused():
    with pytest.raises(BadRequest):
        codec.decode_key(pb.TaskKey())
    for number in (0, 18, 99):  # unspecified, no refusal of a site's, unknown
        with pytest.raises(BadRequest):
            codec.decode_reason(number)
    with pytest.raises(BadRequest, match="choose one of"):
        codec.encode_reason("TIRED")
    with pytest.raises(TooLarge):
        codec.decode_chunk(pb.Chunk(sha256=b"0" * 32, data=b"0" * ((1 << 20) + 1)))
    with pytest.raises(TooLarge):
        codec.decode_wanted(pb.GetChunksRequest(sha256=[b"0" * 32] * (limits.CHUNKS_PER_CALL + 1)))


def test_a_run_that_cannot_be_names_the_key():
    with pytest.raises(InvalidInput, match="population"):
        codec.decode_spec('{"name": "x"}')


def test_a_run_that_is_not_the_one_it_says_is_refused():
    message = codec.encode_offer(OFFER)
    message.spec_sha256 = "0" * 64
    with pytest.raises(DigestMismatch):
        codec.decode_offer(message)
