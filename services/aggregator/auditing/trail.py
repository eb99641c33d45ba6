"""The audit log as one transaction writes it: what a transaction has changed, and whose call it was, go in with it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, insert, select

from deerfield.errors import DeerfieldError
from deerfield.ledger.entry import Head
from services.aggregator.auditing.audit_chain import START, AuditEntry, Draft, chained, signed
from services.aggregator.sql.changes import Change
from services.aggregator.sql.tables import audit

AGGREGATOR = {"role": "aggregator"}  # what happens of itself: phases that fall due, sites that are lost
BOOKKEEPING = frozenset({"cursor_moved"})  # how far a reader of events is: no state of a run, and one for each event
BATCH = 1000  # rows in memory while a log is read


@dataclass(slots=True)
class Call:
    """A call that is being answered."""

    name: str
    actor: Mapping[str, str]
    wrote: bool = False  # an edge that names the caller
    refused: DeerfieldError | None = None


CALL: ContextVar[Call | None] = ContextVar("call", default=None)  # a thread that works for a call has its own copy


class Trail:
    """`Edge.trail`: the part of a transaction that is about the audit log."""

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self._signs_with: Ed25519PrivateKey | None = None

    def sign(self, key: Ed25519PrivateKey) -> None:
        """Has the chain's head signed at the end of this transaction, behind all that it changes."""
        self._signs_with = key

    def close(self, changes: Sequence[Change]) -> bool:
        """Writes what the transaction has changed, its last step; answers whether there was anything."""
        call = CALL.get()
        drafts = [_draft(change, call) for change in changes if change.kind not in BOOKKEEPING]
        self.append(drafts)
        if self._signs_with is not None:
            statement = signed(self._signs_with, self.head())
            self.append([Draft(kind="head", what="signed", actor=AGGREGATOR, detail=statement)])
        return bool(drafts)

    def append(self, drafts: Sequence[Draft]) -> None:
        """Adds entries to the chain's end; transactions run one after another, so that it has only one."""
        if not drafts:
            return
        rows, before, now = [], self.head(), float(self._clock())
        for draft in drafts:
            entry = chained(before, draft, now)
            rows.append(asdict(entry))
            before = entry.head
        self._connection.execute(insert(audit), rows)

    def head(self) -> Head:
        """The newest number and hash."""
        return newest(self._connection)


def newest(connection: Connection) -> Head:
    """The chain's head."""
    row = connection.execute(select(audit.c.sequence, audit.c.hash).order_by(audit.c.sequence.desc()).limit(1)).first()
    return Head(sequence=row.sequence, hash=row.hash) if row else START


def entries(connection: Connection, after: int = 0) -> Iterator[AuditEntry]:
    """The log in the order of its numbers, from the one after `after`; a few rows in memory at a time."""
    query = select(audit).where(audit.c.sequence > after).order_by(audit.c.sequence)
    for row in connection.execute(query.execution_options(yield_per=BATCH)):
        yield AuditEntry(**row._asdict())


def _draft(change: Change, call: Call | None) -> Draft:
    during: dict[str, Any] = {} if call is None else {"call": call.name}
    actor = AGGREGATOR if call is None else call.actor
    return Draft(kind="edge", what=change.kind, actor=actor, run=change.run, detail={**change.detail, **during})
