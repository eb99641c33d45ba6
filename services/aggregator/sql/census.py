"""How every run that is not over stands, in a few rows: metrics are asked for often and need no manifests."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, select

from deerfield.errors import REFUSALS
from deerfield.exchange import LIVE
from deerfield.runspec import RunSpec
from services.aggregator.sql.records import spec_of
from services.aggregator.sql.tables import events, phases, runs, tasks

ANSWERED = ("SEALED", "DECLINED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A run that is running or paused, and its newest phase."""

    run: str
    spec: RunSpec
    run_state: str
    paused_at: float | None  # of one that is paused
    round: int
    phase: int
    state: str
    opened_at: float
    fates: Mapping[str, int]  # sites by what they are to this phase
    declined: Mapping[str, int]  # sites by reason
    late: int  # sites that had taken the phase before, and had not answered when it closed
    published: Mapping[str, Any]  # detail of the newest phase_published; empty before the first


class Census:
    """`Edge.census`: reads, and changes nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def standings(self) -> Sequence[Standing]:
        """Every run that is running or paused."""
        columns = (runs.c.run, runs.c.incarnation, runs.c.spec, runs.c.state, runs.c.paused_at)
        query = select(*columns).where(runs.c.state.in_(LIVE))
        return [self._standing(row) for row in self._connection.execute(query.order_by(runs.c.started_at))]

    def _standing(self, run: Any) -> Standing:
        columns = (phases.c.round, phases.c.phase, phases.c.state, phases.c.opened_at)
        mine = and_(phases.c.run == run.run, phases.c.incarnation == run.incarnation)
        order = (phases.c.round.desc(), phases.c.phase.desc())
        newest, *before = self._connection.execute(select(*columns).where(mine).order_by(*order).limit(2))
        now = self._tasks(run, newest)
        return Standing(
            run=run.run,
            spec=spec_of(run.spec),
            run_state=run.state,
            paused_at=run.paused_at,
            round=newest.round,
            phase=newest.phase,
            state=newest.state,
            opened_at=newest.opened_at,
            fates=Counter(_fate(task) for task in now),
            declined=Counter(_reason(task) for task in now if task.state == "DECLINED"),
            late=sum(task.state == "TAKEN" for each in before for task in self._tasks(run, each)),
            published=self._published(run.run),
        )

    def _tasks(self, run: Any, phase: Any) -> Sequence[Any]:
        mine = and_(tasks.c.run == run.run, tasks.c.incarnation == run.incarnation)
        here = and_(mine, tasks.c.round == phase.round, tasks.c.phase == phase.phase)
        return self._connection.execute(select(tasks.c.state, tasks.c.away, tasks.c.detail).where(here)).all()

    def _published(self, run: str) -> Mapping[str, Any]:
        last = select(func.max(events.c.number)).where(events.c.run == run, events.c.kind == "phase_published")
        text = self._connection.execute(
            select(events.c.detail).where(events.c.number == last.scalar_subquery())
        ).scalar_one_or_none()
        found: Mapping[str, Any] = json.loads(text) if text else {}
        return found


def _fate(task: Any) -> str:
    away = "" if task.state in ANSWERED else str(task.away)
    return (away or str(task.state)).lower()


def _reason(task: Any) -> str:
    reason = str(task.detail).partition(":")[0]
    return reason if reason in REFUSALS else "OTHER"
