"""The part of the codec for what is signed: attestations of sites and the aggregator's word on their ledgers' heads.

Forms are checked here, signatures in `deerfield.attestation`: what is decoded has the very bytes that were signed.
"""

from collections.abc import Mapping, Sequence
from math import inf, isinf
from typing import get_args

from deerfield.errors import BadAttestation, BadRequest
from deerfield.restoration import Restoration
from deerfield.types import Attestation, Countersigned, Spend, Unit
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import limits
from deerfield.wire.checks import exactly, named, one_of, population_name, run_id, sha256_hex, sha256_name

UNITS: Mapping[str, Unit] = {word: word for word in get_args(Unit)}
KEY_BYTES = 32  # Ed25519
SIGNATURE_BYTES = 64


def encode_attestation(attestation: Attestation) -> pb.Attestation:
    """What a site signed; raises BadAttestation where it did not."""
    if not attestation.signature:
        raise BadAttestation("the attestation is not signed; sign it with the site's key")
    return pb.Attestation(
        site=attestation.site,
        population=attestation.population,
        key=pb.TaskKey(
            run=attestation.run,
            incarnation=attestation.incarnation,
            round=attestation.round,
            phase=attestation.phase,
        ),
        update=attestation.update,
        spend=_encode_spend(attestation.spend),
        beside=map(_encode_spend, attestation.beside),
        accountant=attestation.accountant,
        epsilon_before=attestation.epsilon_before,
        epsilon_after=attestation.epsilon_after,
        delta_after=attestation.delta_after,
        ledger_sequence=attestation.ledger_sequence,
        ledger_head=bytes.fromhex(attestation.ledger_head),
        data_commitment=bytes.fromhex(attestation.data_commitment),
        public_key=bytes.fromhex(attestation.public_key),
        signature=bytes.fromhex(attestation.signature),
    )


def decode_attestation(message: pb.Attestation) -> Attestation:
    """What a site signed, checked for form.

    Raises:
        BadRequest: a name, number, hash, key or signature that cannot be.
    """
    return Attestation(
        site=named(message.site, "a site's name"),
        population=population_name(message.population),
        run=run_id(message.key.run),
        incarnation=message.key.incarnation,
        round=message.key.round,
        phase=message.key.phase,
        update=sha256_hex(message.update),
        spend=_spend(message.spend),
        beside=_beside(message.beside),
        accountant=named(message.accountant, "an accountant's name"),
        epsilon_before=_epsilon(message.epsilon_before),
        epsilon_after=_epsilon(message.epsilon_after),
        delta_after=_delta(message.delta_after),
        ledger_sequence=_sequence(message.ledger_sequence),
        ledger_head=sha256_name(message.ledger_head),
        data_commitment=exactly(KEY_BYTES, message.data_commitment, "a data commitment")
        if message.data_commitment
        else "",
        public_key=exactly(KEY_BYTES, message.public_key, "a public key"),
        signature=exactly(SIGNATURE_BYTES, message.signature, "a signature"),
    )


def encode_head(record: Countersigned | None) -> pb.CountersignedHead | None:
    """The aggregator's word on a head; None leaves the field out."""
    if record is None:
        return None
    return pb.CountersignedHead(
        site=record.site,
        population=record.population,
        sequence=record.sequence,
        head=bytes.fromhex(record.head),
        epsilon_after=record.epsilon_after,
        delta_after=record.delta_after,
        aggregator_key=bytes.fromhex(record.aggregator_key),
        signature=bytes.fromhex(record.signature),
    )


def decode_head(message: pb.CommitReply | pb.UploadStatusReply | pb.LedgerHeadReply) -> Countersigned | None:
    """The head that a reply carries, if any; raises BadRequest for one that cannot be."""
    if not message.HasField("head"):
        return None
    head = message.head
    return Countersigned(
        site=named(head.site, "a site's name"),
        population=population_name(head.population),
        sequence=_sequence(head.sequence),
        head=sha256_name(head.head),
        epsilon_after=_epsilon(head.epsilon_after),
        delta_after=_delta(head.delta_after),
        aggregator_key=exactly(KEY_BYTES, head.aggregator_key, "a public key"),
        signature=exactly(SIGNATURE_BYTES, head.signature, "a signature"),
    )


def decode_public_key(raw: bytes) -> str:
    """An Ed25519 public key in hex; raises BadRequest for another number of bytes."""
    return exactly(KEY_BYTES, raw, "a public key")


def encode_restoration(restoration: Restoration | None) -> pb.Restoration | None:
    """What an operator signed; None leaves the field out."""
    if restoration is None:
        return None
    return pb.Restoration(
        statement=restoration.statement,
        certificates=restoration.certificates,
        signature=bytes.fromhex(restoration.signature),
    )


def decode_restoration(message: pb.NextTaskReply) -> Restoration | None:
    """What an operator signed, if anything; whether it is to be believed is for the site to check."""
    if not message.HasField("restoration"):
        return None
    found = message.restoration
    return Restoration(
        statement=found.statement, certificates=found.certificates, signature=bytes(found.signature).hex()
    )


def _epsilon(value: float) -> float:
    if not value >= 0:  # NaN is not
        raise BadRequest(f"epsilon {value:g} is no number from 0 to infinity")
    return value


def _delta(value: float) -> float:
    if not 0 <= value < inf:  # of a population whose epsilon is infinite they add up without end
        raise BadRequest(f"delta {value:g} is no finite number from 0")
    return value


def _sequence(number: int) -> int:
    if number > limits.LEDGER_ENTRIES:
        raise BadRequest(f"ledger sequence {number} is above {limits.LEDGER_ENTRIES}")
    return number


def _encode_spend(spend: Spend) -> pb.Spend:
    return pb.Spend(
        unit=spend.unit,
        noise_multiplier=spend.noise_multiplier,
        sample_rate=spend.sample_rate,
        steps=spend.steps,
        clip=spend.clip,
    )


def _beside(messages: Sequence[pb.Spend]) -> tuple[Spend, ...]:
    if len(messages) > limits.RELEASES:
        raise BadRequest(f"{len(messages)} releases beside an update are above {limits.RELEASES}")
    return tuple(map(_spend, messages))


def _spend(message: pb.Spend) -> Spend:
    unit, z, (least, most) = one_of(message.unit, UNITS, "unit"), message.noise_multiplier, limits.NOISE
    if z and not least <= z <= most:
        raise BadRequest(f"noise multiplier {z:g} is neither 0 nor from {least:g} to {most:g}")
    if not 0 <= message.sample_rate <= 1:
        raise BadRequest(f"sample rate {message.sample_rate:g} is not from 0 to 1")
    if not message.clip >= 0 or (isinf(message.clip) and unit != "none"):
        raise BadRequest(f"clip {message.clip:g} bounds nothing; only unit none may go without")
    return Spend(
        unit=unit,
        noise_multiplier=message.noise_multiplier,
        sample_rate=message.sample_rate,
        steps=message.steps,
        clip=message.clip,
    )
