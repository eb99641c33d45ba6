"""The mirror of a run's ledgers: for each published phase one JSON object with all that was signed about it.

Each sealed update's attestation, with every field that its site signed, and the aggregator's countersigned head of it;
around them what the aggregator says of the phase, signed after the line `deerfield mirrored phase v1` as `attestation`
has it. Numbers come back from the text as they went into it, so every signature verifies again from the object alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import inf, isfinite
from typing import Any, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deerfield import record
from deerfield.attestation import canonical, countersign, is_signed, plain, public_key
from deerfield.errors import BadAttestation, InvalidInput
from deerfield.exchange import Key
from deerfield.types import Attestation, Countersigned, Spend, Unit

SCHEMA = 1
FOLDER = "ledger"
FIRST = 1  # the incarnation of a run that was never restored
PHASE = b"deerfield mirrored phase v1\n"
WHOLE = ("incarnation", "round", "phase", "epochs", "steps", "ledger_sequence", "restores")
NUMBERS = ("noise_multiplier", "sample_rate", "clip", "epsilon_before", "epsilon_after", "delta_after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What was signed about one sealed update."""

    attestation: Attestation
    head: Countersigned


@dataclass(frozen=True, slots=True, kw_only=True)
class Taker:
    """A site that took the phase's task and may have trained it, whatever became of its update."""

    site: str
    epochs: int  # local


@dataclass(frozen=True, slots=True, kw_only=True)
class Repinned:
    """Another signing key of a site, which an operator has pinned while the run was on; keys in hex."""

    site: str
    before: str  # empty: none was pinned
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """One published phase, as the aggregator vouches for it."""

    key: Key
    spec: str  # sha256 of the run, hex
    digest: str  # of the shared state that the phase published
    restores: int  # how often the run had been restored from a backup by then
    took: tuple[Taker, ...]  # by site
    sealed: tuple[Sealed, ...]  # by site
    repinned: tuple[Repinned, ...] = ()  # in this run until the phase was published, in their order
    aggregator_key: str = ""  # Ed25519, hex; empty until it is signed
    signature: str = ""  # hex


def name(step: int, incarnation: int) -> str:
    """Where a phase's object is among a run's artifacts; `step` counts the phases of the whole run from 0.

    After a restore a phase may be published once more, with other updates: no object is ever written over.
    """
    again = "" if incarnation == FIRST else f".{incarnation}"
    return f"{FOLDER}/{step:06d}{again}.json"


def signed(key: Ed25519PrivateKey, mirror: Mirror, attestations: Sequence[Attestation]) -> Mirror:
    """The mirror with the `attestations` of its updates, countersigned, and signed; the same again for the same."""
    sealed = tuple(Sealed(attestation=each, head=countersign(key, each)) for each in attestations)
    whole = replace(mirror, sealed=sealed, aggregator_key=public_key(key))
    return replace(whole, signature=key.sign(_statement(whole)).hex())


def verify(mirror: Mirror) -> None:
    """Raises BadAttestation unless the signature is of exactly this, by the key that it names."""
    if not is_signed(_statement(mirror), mirror.aggregator_key, mirror.signature):
        raise BadAttestation("the record of the phase is not signed by the aggregator's key that it names")


def encode(mirror: Mirror) -> bytes:
    """The object as JSON; equal mirrors have equal bytes."""
    return json.dumps(_document(mirror), indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def parse(document: Mapping[str, Any]) -> Mirror:
    """The mirror in a parsed object; whose keys signed it, and whether they did, is for `deerfield.proof`.

    Raises:
        InvalidInput: it is none, or of a schema that is not known here.
    """
    try:
        if document["schema"] != SCHEMA:
            raise InvalidInput(
                f"it has schema {document['schema']!r}, and this version of deerfield reads {SCHEMA}; update it"
            )
        values = {each: value for each, value in document.items() if each != "schema"}
        key = Key(**{each.name: _value(each.name, values.pop(each.name)) for each in fields(Key)})
        took = tuple(
            Taker(**{each: _value(each, value) for each, value in taker.items()}) for taker in _list(values.pop("took"))
        )
        sealed = tuple(
            Sealed(attestation=_attestation(each["attestation"]), head=record.parse(each["head"]))
            for each in _list(values.pop("sealed"))
        )
        repinned = tuple(
            Repinned(**{each: _text(value) for each, value in pinned.items()}) for pinned in values.pop("repinned", ())
        )
        plain = {each: _value(each, value) for each, value in values.items()}
        return Mirror(key=key, took=took, sealed=sealed, repinned=repinned, **plain)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"it is no record of a phase ({type(error).__name__}: {error})") from error


def _statement(mirror: Mirror) -> bytes:
    return PHASE + canonical(_document(mirror))


def _document(mirror: Mirror) -> dict[str, Any]:
    values = asdict(mirror)
    if not mirror.repinned:  # so that what was signed before there was such a thing still verifies
        del values["repinned"]
    return {"schema": SCHEMA, **plain({**values.pop("key"), **values})}


def _attestation(document: Mapping[str, Any]) -> Attestation:
    values = dict(document)
    spend, beside = _spend(values.pop("spend")), tuple(map(_spend, _list(values.pop("beside"))))
    return Attestation(spend=spend, beside=beside, **{each: _value(each, value) for each, value in values.items()})


def _spend(document: Mapping[str, Any]) -> Spend:
    if document["unit"] not in get_args(Unit):
        raise ValueError(f"unit {document['unit']!r}")
    return Spend(**{each: _value(each, value) for each, value in document.items()})


def _list(value: object) -> list[Any]:
    """A list as such; an empty object or text in its place would read as one."""
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is no list")
    return value


def _value(field: str, value: object) -> Any:
    """A field as it must be; raises ValueError for one that cannot be."""
    return _number(value) if field in NUMBERS else _whole(value) if field in WHOLE else _text(value)


def _number(value: object) -> float:
    if value == "infinity":
        return inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is no number from 0")
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no whole number from 0")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value
