"""Attestations on the wire: what is signed arrives as it was signed, and nothing else gets through as if it were."""

from math import inf, isnan

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deerfield.attestation import countersign, sign, statement, verify
from deerfield.errors import BadAttestation, BadRequest, Refusal
from deerfield.restoration import Restoration
from deerfield.types import Attestation, Spend
from deerfield.wire import codec, limits, signed
from deerfield.wire import federation_pb2 as pb
from tests.attesting import key_of
from tests.unit.wire.values import ANNOUNCEMENT, ATTESTATION, HEAD, KEY, over_the_wire

WHOLE = st.integers(0, 2**32 - 1)
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=limits.NAME_CHARS
)
HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
EPSILONS = st.floats(0, allow_nan=False)
DELTAS = st.floats(0, allow_nan=False, allow_infinity=False)
SPENDS = st.builds(
    Spend,
    unit=st.sampled_from(sorted(signed.UNITS)),
    noise_multiplier=st.just(0.0) | st.floats(*limits.NOISE),
    sample_rate=st.floats(0, 1),
    steps=WHOLE,
    clip=st.floats(0, allow_nan=False, allow_infinity=False),
)
ATTESTATIONS = st.builds(
    Attestation,
    site=NAMES,
    population=NAMES,
    run=NAMES,
    incarnation=WHOLE,
    round=WHOLE,
    phase=WHOLE,
    update=HASHES,
    spend=SPENDS,
    beside=st.lists(SPENDS, max_size=limits.RELEASES).map(tuple),
    accountant=NAMES,
    epsilon_before=EPSILONS,
    epsilon_after=EPSILONS,
    delta_after=DELTAS,
    ledger_sequence=st.integers(0, limits.LEDGER_ENTRIES),
    ledger_head=HASHES,
    data_commitment=st.just("") | HASHES,
)


@given(ATTESTATIONS)
def test_every_attestation_arrives_with_the_bytes_that_were_signed(unsigned):
    sent = sign(key_of("north"), unsigned)
    arrived = signed.decode_attestation(over_the_wire(signed.encode_attestation(sent)))
    assert arrived == sent
    assert statement(arrived) == statement(sent)
    verify(arrived)


@given(ATTESTATIONS)
def test_every_countersigned_head_arrives_as_it_was_signed(attestation):
    head = countersign(key_of("the aggregator"), attestation)
    assert signed.decode_head(over_the_wire(pb.LedgerHeadReply(head=signed.encode_head(head)))) == head


ANY_BYTES = st.binary(max_size=80)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
MESSAGES = st.builds(
    pb.Attestation,
    site=ANY_TEXT,
    population=ANY_TEXT,
    key=st.builds(pb.TaskKey, run=ANY_TEXT, incarnation=WHOLE, round=WHOLE, phase=WHOLE),
    update=ANY_TEXT | HASHES,
    spend=st.builds(
        pb.Spend,
        unit=ANY_TEXT | st.sampled_from(sorted(signed.UNITS)),
        noise_multiplier=st.floats(),
        sample_rate=st.floats(),
        steps=WHOLE,
        clip=st.floats(),
    ),
    accountant=ANY_TEXT,
    epsilon_before=st.floats(),
    epsilon_after=st.floats(),
    delta_after=st.floats(),
    ledger_sequence=st.integers(0, 2**64 - 1),
    ledger_head=ANY_BYTES,
    public_key=ANY_BYTES,
    signature=ANY_BYTES,
)


@given(MESSAGES)
def test_a_message_of_any_content_is_refused_by_name_or_is_a_value(message):
    try:
        value = signed.decode_attestation(over_the_wire(message))
    except BadRequest:
        return
    assert not isnan(value.epsilon_before)
    assert value.epsilon_after >= 0
    assert len(value.signature) == 128
    with pytest.raises(BadAttestation):
        verify(value)


def flipped(raw, bit):
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


RAW = signed.encode_attestation(ATTESTATION).SerializeToString(deterministic=True)


@settings(max_examples=400)
@given(st.integers(0, 8 * len(RAW) - 1))
@example(0)
def test_no_flipped_bit_gives_another_attestation_that_verifies(bit):
    try:
        arrived = signed.decode_attestation(pb.Attestation.FromString(flipped(RAW, bit)))
        verify(arrived)
    except (DecodeError, Refusal):
        return
    assert arrived == ATTESTATION


@given(st.binary(max_size=400))
def test_an_announcement_of_any_bytes_is_refused_by_name(raw):
    try:
        message = pb.BeginUploadRequest.FromString(raw)
    except DecodeError:
        return
    with pytest.raises(Refusal):
        codec.decode_announcement(message)


def changed(**values):
    message = signed.encode_attestation(ATTESTATION)
    for name, value in values.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (changed(site=""), "site's name"),
        (changed(population="x" * 300), "population's name"),
        (changed(update="ab"), "no sha256"),
        (changed(update="AB" * 32), "no sha256"),
        (changed(accountant=""), "accountant's name"),
        (changed(epsilon_before=float("nan")), "epsilon nan"),
        (changed(epsilon_after=-0.5), "epsilon -0.5"),
        (changed(delta_after=-0.5), "delta -0.5"),
        (changed(delta_after=inf), "delta inf"),
        (changed(ledger_sequence=2**64 - 1), "ledger sequence"),
        (changed(ledger_head=b"short"), "sha256 has 32 bytes"),
        (changed(data_commitment=b"short"), "data commitment has 32 bytes"),
        (changed(public_key=b""), "public key has 32 bytes"),
        (changed(signature=b"0" * 65), "signature has 64 bytes"),
    ],
)
def test_an_attestation_that_cannot_be_is_refused_and_says_where(message, says):
    with pytest.raises(BadRequest, match=says):
        signed.decode_attestation(message)


def test_an_announcement_without_an_attestation_is_refused_and_its_old_field_is_not_reused():
    message = codec.encode_announcement(KEY, ANNOUNCEMENT)
    message.ClearField("attestation")
    with pytest.raises(BadAttestation, match="carries no attestation"):
        codec.decode_announcement(message)
    assert 4 not in pb.BeginUploadRequest.DESCRIPTOR.fields_by_number
    assert "spend" not in pb.BeginUploadRequest.DESCRIPTOR.fields_by_name


def test_a_reply_without_a_head_has_none():
    assert signed.decode_head(pb.CommitReply(digest="ab" * 32)) is None
    assert signed.decode_head(over_the_wire(pb.CommitReply(head=signed.encode_head(HEAD)))) == HEAD


def test_a_restoration_arrives_as_it_was_signed():
    word = Restoration(statement='{"runs": {"r": 2}}', certificates="PEM \N{BULLET}", signature="00ff")
    sent = pb.NextTaskReply(restoration=signed.encode_restoration(word)).SerializeToString()
    assert signed.decode_restoration(pb.NextTaskReply.FromString(sent)) == word
    assert signed.decode_restoration(pb.NextTaskReply(restoration=signed.encode_restoration(None))) is None
