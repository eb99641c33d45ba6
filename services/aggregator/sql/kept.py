"""Which chunks the rows name, and which rows let go of theirs, as one transaction reads and writes it.

A row with `held` names chunks that are in the blob store: they are pinned by it. Once it is not held, it stays for what
else it says (attestations, digests), and its chunks may go, unless another row holds them. No row is ever held again.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, update

from deerfield.exchange import ENDINGS, Key
from services.aggregator.sql.changes import Changes
from services.aggregator.sql.records import manifest_of, state_of
from services.aggregator.sql.tables import PHASE, events, identity, of_phase, phases, runs, tasks, uploads


class Kept:
    """`Edge.kept`: the part of a transaction that is about what must stay in the blob store."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    def identity(self) -> str:
        """Which database this is, of all that there are."""
        return str(self._connection.execute(select(identity.c.identity)).scalar_one())

    def runs(self) -> Sequence[str]:
        """Every run."""
        return list(self._connection.execute(select(runs.c.run).order_by(runs.c.run)).scalars())

    def updates(self, run: str) -> frozenset[str]:
        """The chunks of every update of a run that is held."""
        query = select(uploads.c.manifest).where(uploads.c.run == run, uploads.c.held).distinct()
        return frozenset(chain.from_iterable(manifest_of(text).chunks for text in self._texts(query)))

    def states(self, run: str) -> frozenset[str]:
        """The chunks of every state and start of a run that is held: the newest are among them."""
        held = (phases.c.run == run, phases.c.held)
        same = and_(*(tasks.c[name] == phases.c[name] for name in PHASE))
        starts = select(tasks.c.start).join(phases, same).where(*held).distinct()
        states = (select(column).where(*held).distinct() for column in (phases.c.before, phases.c.after))
        found = [state_of(text) for query in states for text in self._texts(query)]
        manifests = chain(
            (manifest_of(text) for text in self._texts(starts)),
            (manifest for state in found for manifest in (state.shared, *state.personal.values())),
        )
        return frozenset(chain.from_iterable(manifest.chunks for manifest in manifests))

    def release_updates(self, run: str, before: float) -> int:
        """Lets go of the updates of phases that closed before that time, and of all that can be sealed no more."""
        released = 0
        for key, closed_at in self._closed(run):
            where = (*of_phase(uploads, key), uploads.c.held)
            if closed_at >= before:
                where = (*where, uploads.c.sealed.is_(False))
            released += self._connection.execute(update(uploads).where(*where).values(held=False)).rowcount
        if released:
            self._changes.note("updates_released", run, updates=released)
        return released

    def release_states(self, run: str, before: float) -> int:
        """Lets go of the states of a run that ended before that time, but for those of its last phase."""
        ended_at = self._ended_at(run)
        if ended_at is None or ended_at >= before:
            return 0
        released = 0
        for row in self._phases(run)[:-1]:
            where = (*of_phase(phases, _key(row)), phases.c.held)
            released += self._connection.execute(update(phases).where(*where).values(held=False)).rowcount
        if released:
            self._changes.note("states_released", run, phases=released)
        return released

    def _closed(self, run: str) -> Iterator[tuple[Key, float]]:
        """The phases that hold updates and need them no more, with the time when that began."""
        held = select(*(uploads.c[name] for name in PHASE)).where(uploads.c.run == run, uploads.c.held).distinct()
        holding = {_key(row) for row in self._connection.execute(held)}
        if not holding:
            return
        known = self._phases(run)
        for row, successor in pairwise(known):
            if _key(row) in holding:
                yield _key(row), successor.opened_at
        ended_at = self._ended_at(run)
        if ended_at is not None and _key(known[-1]) in holding:
            yield _key(known[-1]), ended_at

    def _phases(self, run: str) -> Sequence[Row[Any]]:
        columns = [phases.c[name] for name in PHASE]
        query = select(*columns, phases.c.opened_at).where(phases.c.run == run).order_by(*columns)
        return list(self._connection.execute(query))

    def _ended_at(self, run: str) -> float | None:
        query = select(func.min(events.c.time)).where(events.c.run == run, events.c.kind.in_(ENDINGS))
        return self._connection.execute(query).scalar_one_or_none()

    def _texts(self, query: Any) -> Iterator[str]:
        return (text for text in self._connection.execute(query).scalars() if text)


def _key(row: Row[Any]) -> Key:
    return Key(run=row.run, incarnation=row.incarnation, round=row.round, phase=row.phase)
