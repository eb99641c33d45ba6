"""The aggregator's memory: each edge of the state machine is one transaction on one of these."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, insert, or_, select, tuple_, update
from sqlalchemy.exc import DBAPIError

from deerfield.errors import UnknownRun
from deerfield.exchange import ENDINGS, Event, Key, RunState
from deerfield.manifest import Manifest
from services.aggregator.auditing.trail import CALL, Trail
from services.aggregator.sql.attachments import Attachments
from services.aggregator.sql.census import Census
from services.aggregator.sql.changes import Changes
from services.aggregator.sql.database import Database
from services.aggregator.sql.failures import failure
from services.aggregator.sql.heads import Heads
from services.aggregator.sql.kept import Kept
from services.aggregator.sql.operations import Operations
from services.aggregator.sql.promoting import Promoting
from services.aggregator.sql.records import (
    Away,
    PhaseRow,
    PhaseState,
    RunRow,
    StateRecord,
    TaskRow,
    TaskState,
    manifest_of,
    schema_of,
    spec_of,
    state_of,
    to_text,
)
from services.aggregator.sql.roster import Roster
from services.aggregator.sql.tables import PHASE, cursors, events, of_phase, phases, runs, tasks
from services.aggregator.sql.uploads import Uploads

UNTRAINED = (  # reasons to decline before anything leaves the site
    "BUDGET_EXHAUSTED",
    "NOT_MAPPED",
    "ENGINE_FAULT",
    "LEDGER_BEHIND",
    "LEDGER_UNUSABLE",
    "POLICY_REFUSED",
)
LAST = 2**63 - 1  # no event has a higher number, and no database can be asked for one


class Store:
    """Opens transactions; may be used from several threads, each in its own.

    `on_edge` is told every change of state as `KIND:before_commit` and `KIND:after_commit`: tests stop here.
    """

    def __init__(self, database: Database, on_edge: Callable[[str], None] = lambda _: None) -> None:
        self._engine = database.engine
        self._keeper = database.keeper
        self._on_edge = on_edge
        self.close = database.close  # gives every connection back, and lets another aggregator have the database

    @contextmanager
    def edge(self) -> Iterator["Edge"]:
        """One transaction: all of it is kept, or, after an exception, none.

        Raises:
            Superseded: another aggregator has the database.
            Unreachable: the database is gone; it may have committed, and asking again must be harmless.
            NoRoom: its disk is full or read-only, and nothing was written.
        """
        self._keeper.check()
        try:
            with self._engine.begin() as connection:
                edge = Edge(connection)
                yield edge
                changed = edge.trail.close(edge.changes.made)
                self._tell(edge, "before_commit")
            if changed and (call := CALL.get()) is not None:
                call.wrote = True
            self._tell(edge, "after_commit")
        except DBAPIError as error:
            if (trouble := failure(error)) is None:
                raise
            self._keeper.failed(trouble)
            raise trouble from error
        self._keeper.worked(wrote=bool(edge.changes.made))

    def _tell(self, edge: "Edge", when: str) -> None:
        for change in edge.changes.made:
            self._on_edge(f"{change.kind}:{when}")


class Edge:
    """What one transaction may read and write."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.changes = Changes()
        self.uploads = Uploads(connection, self.changes)
        self.heads = Heads(connection, self.changes)
        self.kept = Kept(connection, self.changes)
        self.operations = Operations(connection, self.changes)
        self.promoting = Promoting(connection, self.changes)
        self.attachments = Attachments(connection, self.changes)
        self.roster = Roster(connection, self.changes)
        self.trail = Trail(connection, time.time)
        self.census = Census(connection)

    def run(self, run: str) -> RunRow:
        """One run; raises UnknownRun."""
        row = self._connection.execute(select(runs).where(runs.c.run == run)).one_or_none()
        if row is None:
            raise UnknownRun(f"no run is called {run[:80]!r}")
        return _run(row)

    def run_of_request(self, request_id: str) -> RunRow | None:
        """The run that a Start with this request_id made."""
        row = self._connection.execute(select(runs).where(runs.c.request_id == request_id)).one_or_none()
        return _run(row) if row else None

    def runs(self, *states: RunState) -> Sequence[RunRow]:
        """Every run, or those in one of `states`, oldest first."""
        query = select(runs).order_by(runs.c.started_at, runs.c.run)
        found = self._connection.execute(query.where(runs.c.state.in_(states)) if states else query)
        return [_run(row) for row in found]

    def runs_after(self, run: str, count: int) -> Sequence[str]:
        """The names of the `count` oldest runs, or of the next ones behind `run`; raises UnknownRun."""
        query = select(runs.c.run).order_by(*(place := (runs.c.started_at, runs.c.run))).limit(count)
        if run:
            query = query.where(tuple_(*place) > (self.run(run).started_at, run))
        return self._connection.execute(query).scalars().all()

    def finished_with(self, digest: str) -> RunRow | None:
        """The first finished run whose shared model has this digest."""
        is_its_end = (events.c.kind == "run_finished", events.c.detail == json.dumps({"digest": digest}))
        name = self._connection.execute(
            select(events.c.run).where(*is_its_end).order_by(events.c.number).limit(1)
        ).scalar_one_or_none()
        return None if name is None else self.run(name)

    def add_run(self, row: RunRow) -> None:
        """Adds a run."""
        self._connection.execute(insert(runs).values({**_fields(row), "spec": row.spec.canonical()}))
        self.changes.note("run_started", row.run)

    def end_run(self, run: str, state: RunState, reason: str) -> None:
        """Gives a run its last state."""
        self._connection.execute(update(runs).where(runs.c.run == run).values(state=state, reason=reason))
        self.changes.note(f"run_{state.lower()}", run, reason=reason)

    def newest_phase(self, run: RunRow) -> PhaseRow:
        """The phase that is open, or the last one of a run that has ended."""
        query = select(phases).where(phases.c.run == run.run, phases.c.incarnation == run.incarnation)
        return _phase(
            self._connection.execute(query.order_by(phases.c.round.desc(), phases.c.phase.desc()).limit(1)).one()
        )

    def published(self, key: Key) -> StateRecord | None:
        """The state that a phase published, under the key's incarnation or, before a restore, under an earlier one."""
        if (found := self.published_key(key)) is None:
            return None
        query = select(phases.c.after).where(*of_phase(phases, found))
        return state_of(self._connection.execute(query).scalar_one())

    def published_key(self, key: Key) -> Key | None:
        """Under which incarnation, the key's own or an earlier one, a phase was published."""
        where = (phases.c.run == key.run, phases.c.round == key.round, phases.c.phase == key.phase)
        until = (phases.c.incarnation <= key.incarnation, phases.c.after.is_not(None))
        query = select(func.max(phases.c.incarnation)).where(*where, *until)
        incarnation = self._connection.execute(query).scalar_one_or_none()
        return None if incarnation is None else replace(key, incarnation=incarnation)

    def add_phase(self, row: PhaseRow, planned: Sequence[TaskRow]) -> None:
        """Opens a phase with its tasks."""
        plain = {"state": row.state, "opened_at": row.opened_at, "noise_key": row.noise_key}
        self._connection.execute(insert(phases).values({**asdict(row.key), **plain, "before": to_text(row.before)}))
        for task in planned:
            texts = {"start": to_text(task.start), "schema": json.dumps(task.schema)}
            self._connection.execute(insert(tasks).values({**asdict(row.key), **_fields(task), **texts}))
        self.changes.note_phase(f"phase_{row.state.lower()}", row.key)

    def set_phase(self, key: Key, state: PhaseState, after: StateRecord | None = None) -> None:
        """Moves a phase along; with the state that it published its noise can never be needed again."""
        values = {"state": state, **({"after": to_text(after), "noise_key": None} if after else {})}
        self._connection.execute(update(phases).where(*of_phase(phases, key)).values(values))
        self.changes.note_phase(f"phase_{state.lower()}", key)

    def tasks(self, key: Key) -> Sequence[TaskRow]:
        """The tasks of a phase, by site."""
        query = select(tasks).where(*of_phase(tasks, key)).order_by(tasks.c.site)
        return [_task(row) for row in self._connection.execute(query)]

    def task(self, key: Key, site: str) -> TaskRow | None:
        """A site's task in a phase."""
        row = self._connection.execute(select(tasks).where(*of_phase(tasks, key), tasks.c.site == site)).one_or_none()
        return _task(row) if row else None

    def held(self, key: Key, site: str) -> frozenset[str]:
        """The chunks that `site` fetched for the last task before `key` that it answered: it still has them."""
        earlier = or_(tasks.c.round < key.round, and_(tasks.c.round == key.round, tasks.c.phase < key.phase))
        same = (tasks.c.run == key.run, tasks.c.incarnation == key.incarnation, tasks.c.site == site)
        query = select(tasks).where(*same, tasks.c.state == "SEALED", earlier)
        newest = query.order_by(tasks.c.round.desc(), tasks.c.phase.desc()).limit(1)
        row = self._connection.execute(newest).one_or_none()
        return _task(row).start.chunks if row else frozenset()

    def starts(self, site: str) -> Iterator[Manifest]:
        """The start tensors of every task of a site, newest first; read as far as they are asked for."""
        same = and_(*(tasks.c[name] == phases.c[name] for name in PHASE))
        query = select(tasks.c.start).join(phases, same).where(tasks.c.site == site)
        for row in self._connection.execute(query.order_by(phases.c.opened_at.desc())):
            yield manifest_of(row.start)

    def set_task(self, key: Key, site: str, state: TaskState, detail: str = "") -> None:
        """Moves a site's task along; taking one makes the site a joined one."""
        values = {"state": state, "detail": detail, **({"joined": True} if state == "TAKEN" else {})}
        self._connection.execute(update(tasks).where(*of_phase(tasks, key), tasks.c.site == site).values(values))
        self.changes.note_phase(f"task_{state.lower()}", key, site=site)

    def set_away(self, key: Key, site: str, away: Away, detail: str = "") -> None:
        """Notes that a site is away, or back; why it declined stays, because what it is charged hangs on that."""
        where = (*of_phase(tasks, key), tasks.c.site == site)
        kept = case((tasks.c.state == "DECLINED", tasks.c.detail), else_=detail)
        self._connection.execute(update(tasks).where(*where).values(away=away, detail=kept))
        self.changes.note_phase(f"site_{away.lower() or 'back'}", key, site=site)

    def taken(self, run: RunRow) -> Sequence[tuple[str, int]]:
        """(site, epochs) of each task of a run's incarnation that a site took and may have trained, by phase."""
        same = (tasks.c.run == run.run, tasks.c.incarnation == run.incarnation)
        query = select(tasks.c.site, tasks.c.epochs).where(*same, _trained())
        found = self._connection.execute(query.order_by(tasks.c.round, tasks.c.phase))
        return [(row.site, row.epochs) for row in found]

    def took(self, key: Key) -> Sequence[tuple[str, int]]:
        """(site, epochs) of each task of a phase that a site took and may have trained, by site."""
        query = select(tasks.c.site, tasks.c.epochs).where(*of_phase(tasks, key), _trained()).order_by(tasks.c.site)
        return [(row.site, row.epochs) for row in self._connection.execute(query)]

    def add_event(self, run: str, kind: str, detail: Mapping[str, object], time: float) -> None:
        """Appends to what has happened."""
        text = json.dumps(detail, sort_keys=True, allow_nan=False)
        self._connection.execute(insert(events).values(run=run, kind=kind, detail=text, time=time))

    def has_event(self, run: str, kind: str, detail: Mapping[str, object]) -> bool:
        """Whether this very thing is already written down."""
        text = json.dumps(detail, sort_keys=True, allow_nan=False)
        query = select(func.count()).where(events.c.run == run, events.c.kind == kind, events.c.detail == text)
        return bool(self._connection.execute(query).scalar_one())

    def has_kind(self, run: str, kind: str) -> bool:
        """Whether anything of this kind has happened to a run."""
        query = select(func.count()).where(events.c.run == run, events.c.kind == kind)
        return bool(self._connection.execute(query).scalar_one())

    def ending(self, run: str) -> int | None:
        """The number of the event that ended a run."""
        query = select(func.min(events.c.number)).where(events.c.run == run, events.c.kind.in_(ENDINGS))
        return self._connection.execute(query).scalar_one_or_none()

    def events(self, after: int, run: str | None = None, limit: int = 1000) -> Sequence[Event]:
        """What has happened since the event `after`, to all runs or to one."""
        query = select(events).where(events.c.number > min(after, LAST)).order_by(events.c.number).limit(limit)
        return [_event(row) for row in self._connection.execute(query.where(events.c.run == run) if run else query)]

    def events_of(self, run: str, kind: str) -> Sequence[Event]:
        """All of one kind that has happened to a run."""
        query = select(events).where(events.c.run == run, events.c.kind == kind).order_by(events.c.number)
        return [_event(row) for row in self._connection.execute(query)]

    def newest_event(self, run: str) -> int:
        """The number of the last thing that happened to a run."""
        query = select(func.max(events.c.number)).where(events.c.run == run)
        return int(self._connection.execute(query).scalar() or 0)

    def newest_event_time(self) -> float | None:
        """When the last thing happened, in seconds since the epoch."""
        query = select(events.c.time).order_by(events.c.number.desc()).limit(1)
        return self._connection.execute(query).scalar_one_or_none()

    def cursor(self, reader: str) -> int:
        """The last event that `reader` has dealt with."""
        number = self._connection.execute(select(cursors.c.number).where(cursors.c.reader == reader)).scalar()
        return int(number or 0)

    def set_cursor(self, reader: str, number: int) -> None:
        """Notes that `reader` has dealt with everything up to `number`."""
        self._connection.execute(cursors.delete().where(cursors.c.reader == reader))
        self._connection.execute(insert(cursors).values(reader=reader, number=number))
        self.changes.note("cursor_moved")


def _trained() -> ColumnElement[bool]:
    """Whether a task may have been trained, whatever became of it."""
    untrained = or_(*(tasks.c.detail.startswith(f"{reason}:", autoescape=True) for reason in UNTRAINED))
    return or_(tasks.c.state.in_(("TAKEN", "SEALED")), and_(tasks.c.state == "DECLINED", ~untrained))


def _fields(row: RunRow | TaskRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def _event(row: Row[Any]) -> Event:
    return Event(number=row.number, run=row.run, kind=row.kind, detail=json.loads(row.detail), time=row.time)


def _key(row: Row[Any]) -> Key:
    return Key(run=row.run, incarnation=row.incarnation, round=row.round, phase=row.phase)


def _run(row: Row[Any]) -> RunRow:
    return RunRow(**{**row._asdict(), "spec": spec_of(row.spec)})


def _phase(row: Row[Any]) -> PhaseRow:
    return PhaseRow(
        key=_key(row),
        state=row.state,
        opened_at=row.opened_at,
        before=state_of(row.before),
        noise_key=row.noise_key,
    )


def _task(row: Row[Any]) -> TaskRow:
    return TaskRow(
        site=row.site,
        factors=row.factors,
        epochs=row.epochs,
        start=manifest_of(row.start),
        schema=schema_of(row.schema),
        state=row.state,
        away=row.away,
        detail=row.detail,
        joined=row.joined,
    )
