"""Models' champions, and what has become of them, as one transaction reads and writes it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from deerfield.promotion import PromotionRecord, State
from services.aggregator.sql.changes import Changes
from services.aggregator.sql.tables import champions, promotions

UNSETTLED: tuple[State, ...] = ("OPEN", "MOVING")  # an intent: it is carried out, if need be by the next start


class Promoting:
    """`Edge.promoting`: the part of a transaction that is about models."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    def lock(self, model: str) -> str | None:
        """Holds the model's row until the transaction ends; answers its champion, None where we have set none."""
        where = select(champions.c.champion).where(champions.c.model == model)
        found = self._connection.execute(where.with_for_update()).one_or_none()
        if found is None:
            self._connection.execute(insert(champions).values(model=model, champion=None))
            return None
        return str(found.champion) if found.champion is not None else None

    def newest(self, model: str) -> PromotionRecord | None:
        """The last entry in a model's history: no other can be unsettled."""
        query = select(promotions).where(promotions.c.model == model).order_by(promotions.c.number.desc()).limit(1)
        row = self._connection.execute(query).one_or_none()
        return _record(row) if row else None

    def history(self, model: str, limit: int) -> Sequence[PromotionRecord]:
        """The last entries in a model's history, oldest first."""
        query = select(promotions).where(promotions.c.model == model).order_by(promotions.c.number.desc()).limit(limit)
        return [_record(row) for row in self._connection.execute(query)][::-1]

    def unsettled(self) -> Sequence[PromotionRecord]:
        """The intents of all models, oldest first."""
        query = select(promotions).where(promotions.c.state.in_(UNSETTLED)).order_by(promotions.c.number)
        return [_record(row) for row in self._connection.execute(query)]

    def verdict(self, number: int) -> str:
        """The verdict of a promotion, as it came."""
        return str(self._connection.execute(select(promotions.c.verdict).where(promotions.c.number == number)).scalar())

    def add(self, record: PromotionRecord, verdict: str = "") -> PromotionRecord:
        """Adds an entry to the history of a model whose row is locked; answers it with its number."""
        values = {**asdict(record), "verdict": verdict}
        del values["number"]
        number = self._connection.execute(insert(promotions).values(values).returning(promotions.c.number)).scalar_one()
        named = {"version": record.version, "expected_champion": record.expected_champion}
        self._note("begun" if record.state in UNSETTLED else "found", record, number, **named)
        return PromotionRecord(**{**asdict(record), "number": number})

    def move(self, record: PromotionRecord) -> None:
        """Notes which version the alias is moved to from here on."""
        self._set(record, state="MOVING", version=record.version)
        self._note("moving", record, record.number, version=record.version)

    def settle(self, record: PromotionRecord) -> None:
        """Closes an intent that was carried out; its `champion` is the model's from now on."""
        behind = {"state": record.state, "previous": record.previous, "champion": record.champion}
        self._set(record, **behind, ended_at=record.ended_at)
        self.crown(record.model, record.champion)
        said = {"verdict_sha256": record.verdict_sha256} if record.kind == "promotion" else {"reason": record.reason}
        self._note("done", record, record.number, previous=record.previous, champion=record.champion, **said)

    def refuse(self, record: PromotionRecord) -> None:
        """Closes an intent that cannot be carried out, with why."""
        self._set(record, state="REFUSED", detail=record.detail, ended_at=record.ended_at)
        self._note("refused", record, record.number, detail=record.detail)

    def crown(self, model: str, champion: str) -> None:
        """Notes a model's champion."""
        self._connection.execute(update(champions).where(champions.c.model == model).values(champion=champion))

    def _set(self, record: PromotionRecord, **values: object) -> None:
        self._connection.execute(update(promotions).where(promotions.c.number == record.number).values(**values))

    def _note(self, what: str, record: PromotionRecord, number: int, **detail: object) -> None:
        self._changes.note(f"{record.kind}_{what}", "", model=record.model, number=number, **detail)


def _record(row: Row[Any]) -> PromotionRecord:
    values = row._asdict()
    del values["verdict"]
    return PromotionRecord(**values)
