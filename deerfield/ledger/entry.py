"""One entry of a ledger: a line of canonical JSON that names the entry before it and is signed by the site.

hash = sha256 of the canonical JSON of everything but hash and signature; the signature (Ed25519, RFC 8032) is over
`CONTEXT` and the 32 bytes of the hash. Canonical: keys sorted, no spaces, ASCII, floats as the shortest text that reads
back the same, an infinity as the string "infinity". One value has one line, so no byte of a line can change unseen.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf, isnan
from typing import Any, Literal, TypeAlias, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Kind: TypeAlias = Literal["open", "terms", "run", "task", "commit", "infinite", "reconcile"]
KINDS: frozenset[str] = frozenset(get_args(Kind))
CONTEXT = b"deerfield ledger entry v1\n"
GENESIS = "0" * 64  # what the first entry names as the one before it
INFINITY = "infinity"
FIELDS = frozenset({"sequence", "time", "kind", "detail", "previous", "hash", "signature"})
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
SIGNATURE = re.compile(r"[0-9a-f]{128}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a chain ends."""

    sequence: int
    hash: str  # hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One fact about a population, in its place in the chain."""

    sequence: int  # from 0; grows by 1, but a `reconcile` entry jumps over the numbers that it replaces
    time: float  # seconds since the epoch; never less than that of the entry before
    kind: Kind
    detail: Mapping[str, Any]  # JSON; see `details`
    previous: str  # hash of the entry before, hex
    hash: str = ""  # hex
    signature: str = ""  # hex

    @property
    def head(self) -> Head:
        """The chain's end, while this is the newest entry."""
        return Head(sequence=self.sequence, hash=self.hash)


def seal(entry: Entry, key: Ed25519PrivateKey) -> Entry:
    """The entry with its hash and signature; the same for the same entry and key."""
    value = content_hash(entry)
    return replace(entry, hash=value, signature=key.sign(CONTEXT + bytes.fromhex(value)).hex())


def content_hash(entry: Entry) -> str:
    """sha256 (hex) of what the entry says, whatever hash it claims."""
    fields = _fields(entry)
    del fields["hash"], fields["signature"]
    return sha256(canonical(fields)).hexdigest()


def is_signed(entry: Entry, public_key: str) -> bool:
    """Whether the signature is of the entry's hash, by this key (hex)."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(entry.signature), CONTEXT + bytes.fromhex(entry.hash))
    except (InvalidSignature, ValueError):  # ValueError: no hex, or no key
        return False
    return True


def line(entry: Entry) -> bytes:
    """The entry as it stands in the file, newline included."""
    return canonical(_fields(entry)) + b"\n"


def parse(text: bytes) -> Entry:
    """The entry of a line without its newline.

    Raises:
        ValueError: these are not the bytes of an entry.
    """
    found = json.loads(text.decode("ascii"), parse_constant=_refuse)
    if not isinstance(found, dict) or set(found) != FIELDS:
        raise ValueError(f"an entry has the fields {', '.join(sorted(FIELDS))} and no other")
    entry = Entry(**found)
    if not _is_formed(entry):
        raise ValueError("a field of it has a form that no entry has")
    if line(entry) != text + b"\n":
        raise ValueError("it is not written as the ledger writes")
    return entry


def canonical(value: Mapping[str, Any]) -> bytes:
    """The one text of a JSON mapping.

    Raises:
        ValueError: it holds a NaN.
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def number(value: float | str | None) -> float:
    """A number of a detail, where infinity is a word and what is not known costs as much."""
    return inf if value is None or value == INFINITY else float(value)


def _fields(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in FIELDS}


def _is_formed(entry: Entry) -> bool:
    return (
        type(entry.sequence) is int
        and entry.sequence >= 0
        and type(entry.time) is float
        and 0 <= entry.time < inf
        and entry.kind in KINDS
        and isinstance(entry.detail, dict)
        and all(isinstance(text, str) for text in (entry.previous, entry.hash, entry.signature))
        and SHA256.match(entry.previous) is not None
        and SHA256.match(entry.hash) is not None
        and SIGNATURE.match(entry.signature) is not None
    )


def plain(value: Any) -> Any:
    """A value as its canonical JSON reads back: lists for tuples, a word for infinity.

    Raises:
        ValueError: it holds a NaN.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and (value == inf or isnan(value)):
        if isnan(value):
            raise ValueError("a ledger holds no NaN")
        return INFINITY
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of a ledger")
