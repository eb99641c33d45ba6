"""Whatever arrives, decoding it ends in a value or in one of our errors."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deerfield.attestation import verify, verify_head
from deerfield.errors import DeerfieldError
from deerfield.manifest import check
from deerfield.wire import checks, codec, roster, signed
from deerfield.wire import federation_pb2 as pb
from tests.fakes import ADAPTER, run_spec
from tests.messages import faulty, messages
from tests.unit.wire.values import ANNOUNCEMENT, EVENT, HEAD, KEY, KNOWN, MANIFEST, OFFER, STATUS, VIEW

GOOD = {  # what decodes, and a message that it takes
    codec.decode_manifest: codec.encode_manifest(MANIFEST),
    codec.decode_wanted: pb.GetChunksRequest(sha256=[b"0" * 32]),
    codec.decode_chunk: codec.encode_chunk("ab" * 32, b"data"),
    codec.decode_key: codec.encode_key(KEY),
    codec.decode_offer: codec.encode_offer(OFFER),
    codec.decode_announcement: codec.encode_announcement(KEY, ANNOUNCEMENT),
    codec.decode_status: codec.encode_status(STATUS),
    codec.decode_event: codec.encode_event(EVENT),
    codec.decode_published: pb.GetRequest(run="run-1", published=pb.PhaseNumber(round=1, phase=1)),
    codec.decode_view: codec.encode_view(VIEW),
    roster.decode_site: roster.encode_site(KNOWN),  # and so `decode_report`
    signed.decode_attestation: codec.encode_announcement(KEY, ANNOUNCEMENT).attestation,
    signed.decode_head: pb.CommitReply(head=signed.encode_head(HEAD)),
    signed.decode_restoration: pb.NextTaskReply(
        restoration=pb.Restoration(statement='{"runs": {"run-1": 2}}', certificates="none", signature=b"0" * 64)
    ),
}
USED = {  # what is done next with what was decoded
    codec.decode_manifest: lambda manifest: check(manifest, ADAPTER),
    codec.decode_announcement: lambda announcement: verify(announcement.attestation),
    signed.decode_attestation: verify,
    signed.decode_head: lambda head: head and verify_head(head, "patients"),
}
DECODERS = pytest.mark.parametrize("decode", GOOD, ids=lambda decode: decode.__name__)
MANY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def decoded(decode, message):
    """Whether it was taken; any error but ours comes out."""
    try:
        USED.get(decode, lambda _: None)(decode(message))
    except DeerfieldError:
        return False
    return True


NO_MESSAGE = {"decode_spec", "decode_reason", "decode_public_key"}  # what these are given
INSIDE = {"decode_report"}  # of `decode_site`


def test_every_decoder_is_tried_and_takes_what_is_good():
    names = {name for module in (codec, signed, roster) for name in vars(module) if name.startswith("decode_")}
    assert {decode.__name__ for decode in GOOD} == names - NO_MESSAGE - INSIDE
    assert all(decoded(decode, message) for decode, message in GOOD.items())


@DECODERS
@MANY
@given(data=st.data())
def test_arbitrary_messages(decode, data):
    decoded(decode, data.draw(messages(type(GOOD[decode]))))


@DECODERS
@MANY
@given(seed=st.integers(0, 2**32))
def test_good_messages_with_faults(decode, seed):
    decoded(decode, faulty(GOOD[decode], Random(seed)))


@MANY
@given(
    text=st.text() | st.binary().map(lambda raw: raw.decode(errors="replace")), number=st.integers(-(2**31), 2**31 - 1)
)
def test_texts_and_numbers(text, number):
    for decode in (codec.decode_spec, checks.sha256_hex, checks.run_id, checks.population_name, checks.detail):
        decoded(decode, text)
    decoded(codec.decode_event, pb.Event(detail=text))
    decoded(codec.decode_reason, number)
    decoded(lambda raw: checks.exactly(32, raw, "a key"), text.encode(errors="replace"))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"seed": ' + "9" * 5000 + "}", "null", "[]", "NaN"], ids=range(5))
def test_texts_that_break_a_parser(text):
    for decode in (codec.decode_spec, lambda detail: codec.decode_event(pb.Event(detail=detail))):
        assert not decoded(decode, text)


@MANY
@given(seed=st.integers(0, 2**32))
def test_runs_with_faults(seed):
    random, good = Random(seed), list(run_spec("north").canonical())
    for _ in range(random.randint(1, 4)):
        good[random.randrange(len(good))] = random.choice(["", '"', "{", "]", "9", "-", "e9", "null", "\0", "\\u0000"])
    decoded(codec.decode_spec, "".join(good))
