"""A site's signature without a site: one key for each name, and entries that grow over a whole test session."""

from dataclasses import replace
from hashlib import sha256
from itertools import count

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deerfield.attestation import sign
from deerfield.link import Assignment
from deerfield.privacy import epsilon
from deerfield.strategies import make
from deerfield.tensors import digest
from deerfield.types import Attestation, Spend, Update

ENTRIES = count(1)


def key_of(name: str) -> Ed25519PrivateKey:
    """The same key for the same name, so that a site that is made twice is still itself."""
    return Ed25519PrivateKey.from_private_bytes(sha256(f"a test's key of {name}".encode()).digest())


def attested(assignment: Assignment, update: Update, spend: Spend, /, **changes: object) -> Update:
    """The update with an attestation of a new ledger entry, signed after the `changes`."""
    return replace(update, attestation=attestation(assignment, update, spend, **changes))


def attestation(assignment: Assignment, update: Update, spend: Spend, /, **changes: object) -> Attestation:
    """An attestation of the first run that a ledger was charged with, whole, but for the entry's number."""
    number, spec = next(ENTRIES), assignment.spec
    declares = make(spec).declares
    honest = Attestation(
        site=update.site,
        population=spec.population,
        run=assignment.run,
        incarnation=assignment.incarnation,
        round=update.round,
        phase=update.phase,
        update=digest(update.delta),
        spend=spend,
        accountant="dp-accounting PLD",
        epsilon_before=0.0,
        epsilon_after=epsilon([spend] * declares.rounds * len(declares.phases), spec.privacy.delta),
        delta_after=spec.privacy.delta,
        ledger_sequence=number,
        ledger_head=sha256(f"entry {number}".encode()).hexdigest(),
        data_commitment=sha256(f"the data of {update.site}".encode()).hexdigest(),
    )
    return sign(key_of(update.site), replace(honest, **changes))


def again(update: Update, /, **changes: object) -> Update:
    """What the site signs once more, about the tensors as they are, after the `changes` to its attestation."""
    number = next(ENTRIES)
    place = {"ledger_sequence": number, "ledger_head": sha256(f"entry {number}".encode()).hexdigest()}
    fresh = replace(update.attestation, **{"update": digest(update.delta), **place, **changes})
    return replace(update, attestation=sign(key_of(update.site), fresh))


def by_another_key(update: Update) -> Update:
    """What a stranger signs in the site's place."""
    return replace(update, attestation=sign(Ed25519PrivateKey.generate(), update.attestation))
