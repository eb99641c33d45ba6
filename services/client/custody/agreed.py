"""The newest head of a ledger that its site and the aggregator both have: what a later reconciliation builds on."""

from dataclasses import dataclass
from pathlib import Path

import structlog

from deerfield import durable
from deerfield.record import decode, encode
from deerfield.types import Countersigned

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Agreed:
    """Two small files beside a population's ledger, so that they are copied and restored with it."""

    folder: Path

    def newest(self) -> Countersigned | None:
        """The head; raises InvalidInput if the file holds none."""
        return decode(self._head.read_bytes(), str(self._head)) if self._head.exists() else None

    def compare(self, record: Countersigned | None) -> None:
        """Takes what the aggregator has on record, which the ledger holds; None if that is nothing.

        An aggregator that has less than it had has lost its memory. What it sees from then on need not be in the
        record that it may find again, so nothing newer is agreed on until an operator has reconciled the two.
        """
        held = self.newest()
        if held is not None and (record is None or record.sequence < held.sequence) and not self._over.exists():
            log.warning("the aggregator has lost its record of this ledger", population=held.population)
            durable.kept(self._over, b"")
        if record is not None:
            self.advance(record)

    def advance(self, record: Countersigned) -> None:
        """Takes a head that the aggregator has just countersigned."""
        held = self.newest()
        if not self._over.exists() and (held is None or record.sequence > held.sequence):
            durable.replaced(self._head, encode(record))

    def reconciled(self, record: Countersigned) -> None:
        """Begins anew from a record that the ledger was charged by."""
        durable.replaced(self._head, encode(record))
        self._over.unlink(missing_ok=True)

    @property
    def _head(self) -> Path:
        return self.folder / "agreed.json"

    @property
    def _over(self) -> Path:
        return self.folder / "agreed.over"
