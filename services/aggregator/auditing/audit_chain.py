"""One entry of the audit log, and whether a sequence of entries is the chain that was written.

hash = sha256 of the canonical JSON of everything but the hash itself, the hash of the entry before included: whoever
changes, removes, inserts or moves an entry has to write all that come after it anew, and the newest hash with them.
Canonical JSON and the first entry's `previous` are those of a site's ledger (`deerfield.ledger.entry`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from deerfield.attestation import public_key
from deerfield.ledger.chain import Finding
from deerfield.ledger.entry import GENESIS, SHA256, Head, canonical

# edge: a state has changed; decision: a caller was let in or not; head: the aggregator's signature of the chain so far;
# process: an aggregator started or ended
Kind: TypeAlias = Literal["edge", "decision", "head", "process"]
CONTEXT = b"deerfield audit head v1\n"
FIRST = 1  # the number of the first entry
START = Head(sequence=FIRST - 1, hash=GENESIS)  # of a log without entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What an entry says, before it has its place."""

    kind: Kind
    what: str  # the name of the edge or of the call
    actor: Mapping[str, str]  # role, and where they are known name and serial of the certificate
    run: str = ""
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One entry in its place; every field is as it stands in the table."""

    sequence: int  # from 1, each number once
    time: float  # seconds since the epoch, by the aggregator's clock
    kind: str
    what: str
    actor: str  # canonical JSON
    run: str
    detail: str  # canonical JSON
    previous: str  # hash of the entry before, hex
    hash: str = ""  # hex

    @property
    def head(self) -> Head:
        """The chain's end, while this is the newest entry."""
        return Head(sequence=self.sequence, hash=self.hash)


FORMS = {"sequence": int, "time": float, **dict.fromkeys(("kind", "actor", "detail", "previous", "hash"), str)}
FIELDS = frozenset(AuditEntry.__dataclass_fields__)


def chained(before: Head, draft: Draft, time: float) -> AuditEntry:
    """The entry that follows `before`."""
    entry = AuditEntry(
        sequence=before.sequence + 1,
        time=time,
        kind=draft.kind,
        what=draft.what,
        actor=canonical(draft.actor).decode(),
        run=draft.run,
        detail=canonical(draft.detail).decode(),
        previous=before.hash,
    )
    return replace(entry, hash=content_hash(entry))


def content_hash(entry: AuditEntry) -> str:
    """sha256 (hex) of what the entry says, whatever hash it claims."""
    fields = asdict(entry)
    del fields["hash"]
    return sha256(canonical(fields)).hexdigest()


def parse(line: str) -> AuditEntry:
    """An entry of an export.

    Raises:
        ValueError: the line is not one.
    """
    found = _mapping(line)
    if set(found) != FIELDS or not all(isinstance(found[name], kind) for name, kind in FORMS.items()):
        raise ValueError(f"an entry has the fields {', '.join(sorted(FIELDS))} and no other")
    return AuditEntry(**found)


def signed(key: Ed25519PrivateKey, head: Head) -> dict[str, Any]:
    """The aggregator's word that its chain had this head: JSON to keep, or to give to somebody who keeps it."""
    signature = key.sign(CONTEXT + canonical(asdict(head))).hex()
    return {**asdict(head), "key": public_key(key), "signature": signature}


def is_signed(statement: Mapping[str, Any]) -> bool:
    """Whether a signed head has the signature of the key that it names."""
    try:
        head = Head(sequence=statement["sequence"], hash=statement["hash"])
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(statement["key"]))
        key.verify(bytes.fromhex(statement["signature"]), CONTEXT + canonical(asdict(head)))
    except (InvalidSignature, ValueError, KeyError, TypeError):  # no signature, no hex, no key, or another form
        return False
    return True


@dataclass
class Walk:
    """Goes along a chain once, in the order in which the entries are read, and keeps only the last one."""

    kept: Head | None = None  # what somebody has kept of an earlier day
    key: str | None = None  # the public key (hex) that every signed head must be by
    head: Head = START
    seen: bool = False  # the kept head

    def findings(self, entries: Iterable[AuditEntry]) -> Iterator[Finding]:
        """All that is wrong, in the order of the entries; in full only once this has ended."""
        for entry in entries:
            for what in (*_content(entry), *self._place(entry), *self._signature(entry), *self._as_kept(entry)):
                yield Finding(entry=entry.sequence, what=what)
            self.head = entry.head
        if self.kept is not None and not self.seen:
            yield Finding(
                entry=self.head.sequence + 1,
                what=f"the log ends at entry {self.head.sequence}, and a head of entry {self.kept.sequence} was kept: "
                "entries at its end are missing",
            )

    def _place(self, entry: AuditEntry) -> Iterator[str]:
        number, expected = entry.sequence, self.head.sequence + 1
        if number > expected:
            missing = f"entry {expected} is" if number == expected + 1 else f"entries {expected} to {number - 1} are"
            yield f"{missing} missing before it"
        elif number < expected:
            yield f"it comes after entry {expected - 1}: the log forks, or its order was changed"
        if entry.previous != self.head.hash:
            yield (
                f"it names {entry.previous[:16]}... as the hash of the entry before it, which has "
                f"{self.head.hash[:16]}...: an entry was changed, removed or put in, or the log forks"
            )

    def _signature(self, entry: AuditEntry) -> Iterator[str]:
        if entry.kind != "head":
            return
        statement = _mapping(entry.detail)
        if (statement.get("sequence"), statement.get("hash")) != (entry.sequence - 1, entry.previous):
            yield "the head that it signs is not that of the entry before it"
        elif not is_signed(statement):
            yield "its signature is not by the key that it names"
        if self.key is not None and statement.get("key") != self.key:
            yield f"it is signed by key {str(statement.get('key'))[:16]}..., not by {self.key[:16]}..."

    def _as_kept(self, entry: AuditEntry) -> Iterator[str]:
        if self.kept is not None and entry.sequence == self.kept.sequence:
            self.seen = True
            if entry.hash != self.kept.hash:
                yield f"its hash is not the {self.kept.hash[:16]}... of the head that was kept: the log was rewritten"


def _content(entry: AuditEntry) -> Iterator[str]:
    """What is wrong with an entry by itself."""
    try:
        if content_hash(entry) != entry.hash:
            yield "its content does not have the hash that stands in it"
    except ValueError as error:
        yield f"its content cannot be hashed: {error}"


def _mapping(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def parse_head(text: str) -> dict[str, Any]:
    """What stands in a kept head: `SEQUENCE:HASH`, or the JSON of a signed one.

    Raises:
        ValueError: it is neither.
    """
    found = _mapping(text)
    if not found:
        number, _, value = text.strip().partition(":")
        found = {"sequence": int(number) if number.isascii() and number.isdigit() else None, "hash": value}
    if type(found.get("sequence")) is not int or SHA256.match(str(found.get("hash"))) is None:
        raise ValueError("a head is SEQUENCE:HASH, or the JSON that `deerfield audit-log head` prints")
    return dict(found)
