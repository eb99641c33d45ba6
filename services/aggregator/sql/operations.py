"""What operators do to runs beside starting them, as one transaction reads and writes it."""

from collections.abc import Mapping

from sqlalchemy import Connection, func, insert, select, update

from deerfield.exchange import Key
from deerfield.restoration import Restoration
from services.aggregator.sql.changes import Changes
from services.aggregator.sql.records import RunRow
from services.aggregator.sql.tables import of_phase, phases, restorations, runs


class Operations:
    """`Edge.operations`: the part of a transaction that is about pauses and restores."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    def pause(self, run: str, now: float) -> None:
        """Stops a running run's clock."""
        self._connection.execute(update(runs).where(runs.c.run == run).values(state="PAUSED", paused_at=now))
        self._changes.note("run_paused", run)

    def resume(self, row: RunRow, open_phase: Key, now: float) -> float:
        """Lets a paused run go on, as if its open phase had opened later by the answer: the seconds it was paused."""
        began: float = self._connection.execute(
            select(phases.c.opened_at).where(*of_phase(phases, open_phase))
        ).scalar_one()
        # a phase that a restore opened in the middle of a pause was paused since then
        paused_s = max(0.0, now - max(row.paused_at or now, began))
        later = update(phases).where(*of_phase(phases, open_phase)).values(opened_at=began + paused_s)
        self._connection.execute(later)
        self._connection.execute(update(runs).where(runs.c.run == row.run).values(state="RUNNING", paused_at=None))
        self._changes.note("run_resumed", row.run)
        return paused_s

    def restoration(self, run: str, incarnation: int) -> Restoration | None:
        """What an operator signed for an incarnation."""
        where = (restorations.c.run == run, restorations.c.incarnation == incarnation)
        row = self._connection.execute(select(restorations).where(*where)).one_or_none()
        if row is None:
            return None
        return Restoration(statement=row.statement, certificates=row.certificates, signature=row.signature)

    def restores(self, run: str, until: int | None = None) -> int:
        """How many times a run was restored, in all or up to its incarnation `until`."""
        query = select(func.count()).where(restorations.c.run == run)
        if until is not None:
            query = query.where(restorations.c.incarnation <= until)
        return self._connection.execute(query).scalar_one()

    def restored(self, incarnations: Mapping[str, int], signed: Restoration) -> None:
        """Gives runs their new incarnations, with what was signed for them."""
        for run, incarnation in incarnations.items():
            said = {"statement": signed.statement, "certificates": signed.certificates, "signature": signed.signature}
            self._connection.execute(insert(restorations).values(run=run, incarnation=incarnation, **said))
            self._connection.execute(update(runs).where(runs.c.run == run).values(incarnation=incarnation))
            self._changes.note("run_restored", run, incarnation=incarnation)
