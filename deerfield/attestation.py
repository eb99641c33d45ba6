"""What a site signs about an update, and what the aggregator signs about a ledger's head: Ed25519 (RFC 8032).

Signed is a line that names the context, then canonical JSON of every field but the signature: keys sorted, no spaces,
ASCII, floats as the shortest text that reads back the same, an infinity as the string "infinity". Equal values have
equal bytes on both sides of the wire, and no signature of one kind of statement passes for another. A data commitment
that is empty is left out, so that what was signed before there was one still verifies.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from math import inf
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from deerfield.errors import BadAttestation
from deerfield.types import Attestation, Countersigned

ATTESTATION = b"deerfield attestation v1\n"
HEAD = b"deerfield countersigned head v1\n"
FLOATS = ("noise_multiplier", "sample_rate", "clip", "epsilon_before", "epsilon_after", "delta_after")


def public_key(key: Ed25519PrivateKey) -> str:
    """The public half of a key, in hex."""
    return key.public_key().public_bytes_raw().hex()


def statement(attestation: Attestation) -> bytes:
    """The bytes that a site signs."""
    said = asdict(attestation)
    if not attestation.data_commitment:
        del said["data_commitment"]
    return ATTESTATION + canonical(said)


def sign(key: Ed25519PrivateKey, attestation: Attestation) -> Attestation:
    """The attestation with the public key and signature of its site; signing the same again gives the same."""
    named = replace(attestation, public_key=public_key(key))
    return replace(named, signature=key.sign(statement(named)).hex())


def verify(attestation: Attestation) -> None:
    """Raises BadAttestation unless the signature is of exactly this, by the key that it names."""
    if not is_signed(statement(attestation), attestation.public_key, attestation.signature):
        raise BadAttestation(
            f"the attestation of site {attestation.site} for round {attestation.round}, phase {attestation.phase} "
            "is not signed by the key it names; sign it again after the last change"
        )


def head_statement(record: Countersigned) -> bytes:
    """The bytes that the aggregator signs."""
    return HEAD + canonical(asdict(record))


def countersign(key: Ed25519PrivateKey, attestation: Attestation) -> Countersigned:
    """The aggregator's word that it has seen this head; for the same attestation and key, the same."""
    named = replace(_record(attestation), aggregator_key=public_key(key))
    return replace(named, signature=key.sign(head_statement(named)).hex())


def verify_head(record: Countersigned, population: str) -> None:
    """Raises BadAttestation unless the record is of `population` and signed by the key it names, whosever that is."""
    if record.population != population:
        raise BadAttestation(f"the aggregator answered for {record.population}, not {population}; ask its operator")
    if not is_signed(head_statement(record), record.aggregator_key, record.signature):
        raise BadAttestation(
            f"the aggregator's record of the ledger of {population} at {record.site} is not signed by the key that it "
            "names; ask its operator"
        )


def check_receipt(attestation: Attestation, record: Countersigned | None) -> Countersigned:
    """The aggregator's answer to a sealed update, once it is a countersignature of the very head that was attested.

    Raises:
        BadAttestation: there is none, it is of another head, or its signature is wrong.
    """
    if record is None:
        raise BadAttestation("the aggregator sealed the update without countersigning its head; bring it up to date")
    if replace(record, aggregator_key="", signature="") != _record(attestation):
        raise BadAttestation(
            f"the aggregator countersigned entry {record.sequence} ({record.head}) of {record.population} at "
            f"{record.site}, this site attested entry {attestation.ledger_sequence} ({attestation.ledger_head}) of "
            f"{attestation.population} at {attestation.site}; ask its operator"
        )
    verify_head(record, attestation.population)
    return record


def _record(attestation: Attestation) -> Countersigned:
    """What of an attestation is countersigned."""
    return Countersigned(
        site=attestation.site,
        population=attestation.population,
        sequence=attestation.ledger_sequence,
        head=attestation.ledger_head,
        epsilon_after=attestation.epsilon_after,
        delta_after=attestation.delta_after,
    )


def is_signed(message: bytes, key: str, signature: str) -> bool:
    """Whether `signature` is of these bytes by `key`, both in hex; False where they are no hex, or no key."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):  # ValueError: no hex, or no key
        return False
    return True


def canonical(value: Mapping[str, Any]) -> bytes:
    """The JSON that is signed: everything but the signature."""
    said = plain({name: each for name, each in value.items() if name != "signature"})
    return json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it stands in JSON: what travels as doubles as doubles, for 1 and 1.0 differ as texts; infinities as a word."""
    found: dict[str, Any] = {}
    for name, each in value.items():
        if isinstance(each, Mapping):
            found[name] = plain(each)
        elif isinstance(each, tuple):
            found[name] = [plain(one) for one in each]
        elif name in FLOATS:
            found[name] = "infinity" if each == inf else float(each)
        else:
            found[name] = each
    return found
