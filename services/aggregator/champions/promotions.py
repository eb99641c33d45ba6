"""Moves a model's champion, once: an intent in our own database first, then MLflow, then the intent is closed.

An intent that is open after a crash, or because MLflow was away, is carried out later: by `redo`, or by the next call
about the model before it does anything of its own.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import structlog

from deerfield.errors import InvalidInput, Malfunction, TooBusy, Unreachable
from deerfield.promotion import Kind, Promotion, PromotionRecord, Verdict
from deerfield.wire import limits
from deerfield.wire.promoting import read_verdict
from services.aggregator.auditing.trail import CALL
from services.aggregator.champions.intents import Intents, Outcome
from services.aggregator.champions.models import Models
from services.aggregator.desk import Desk
from services.aggregator.sql.promoting import UNSETTLED

AT_ONCE = 8  # models that are worked on; each has a thread
RETRY_S = 1.0
STAYS = (Unreachable, InvalidInput, Malfunction)  # from MLflow: the intent stays, and is tried again

log = structlog.get_logger()


class Promotions:
    """Promotions and rollbacks; may be called from any thread. Without `models` there is nothing to promote."""

    def __init__(self, desk: Desk, models: Models | None) -> None:
        self._desk = desk
        self._store = desk.store
        self._intents = Intents(desk, models) if models else None
        self._busy: set[str] = set()
        self._changed = threading.Condition()
        self._stopping = False

    def promote(self, verdict: Verdict) -> Promotion:
        """Writes a verdict to its version; one that passed makes the version the champion.

        The same verdict again, as long as nothing else has happened to the model, gets the same answer.

        Raises:
            ChampionMoved: the champion is not the one of the verdict, or somebody has moved the alias by hand.
            InvalidInput: no such version of a run that finished here, or MLflow does not let us in.
            TooBusy: another call about the model is under way.
            Unreachable: MLflow is away; the promotion is carried out once it answers.
        """
        draft = self._draft("promotion", verdict.model, verdict.expected_champion)
        told = replace(draft, version=verdict.version, passed=verdict.passed, verdict_sha256=verdict.sha256)
        return self._answer(told, verdict.text)

    def rollback(self, model: str, expected_champion: str, reason: str) -> Promotion:
        """Makes the champion before this one the champion again; raises as `promote`."""
        return self._answer(replace(self._draft("rollback", model, expected_champion), reason=reason), "")

    def history(self, model: str) -> Sequence[PromotionRecord]:
        """What has become of a model's champion so far: the newest entries, oldest first."""
        with self._store.edge() as edge:
            return edge.promoting.history(model, limits.PROMOTIONS)

    def redo(self) -> bool:
        """Carries out every intent that is open; answers whether none is left."""
        if self._intents is None:
            return True
        with self._store.edge() as edge:
            waiting = edge.promoting.unsettled()
        done = [self._redone(each) for each in waiting]  # each of them, whatever becomes of the others
        return all(done)

    def stop(self, timeout_s: float) -> None:
        """Begins nothing more, and waits for what is under way; the next start does the rest."""
        with self._changed:
            self._stopping = True
            self._changed.wait_for(lambda: not self._busy, timeout_s)

    def _draft(self, kind: Kind, model: str, expected_champion: str) -> PromotionRecord:
        call = CALL.get()
        actor = call.actor if call else {}
        return PromotionRecord(
            number=0,
            model=model,
            kind=kind,
            state="OPEN",
            version="",
            expected_champion=expected_champion,
            operator=actor.get("name", "") or actor.get("role", ""),
            began_at=self._desk.clock(),
        )

    def _answer(self, asked: PromotionRecord, verdict: str) -> Promotion:
        if self._intents is None:
            raise InvalidInput("this aggregator keeps no models, so it has no champions; start it with --tracking URI")
        with self._alone(asked.model):
            while not _same(record := self._begun(asked, verdict), asked):
                self._carry_out(self._intents, record)  # what an earlier call has left
            if record.state == "DONE":
                return Promotion(model=record.model, champion=record.champion, previous=record.previous)
            outcome = self._carry_out(self._intents, record)
        if not isinstance(outcome, Promotion):
            raise outcome
        return outcome

    def _begun(self, asked: PromotionRecord, verdict: str) -> PromotionRecord:
        """The intent of this call, now or from before; or one of another call that is to be carried out first."""
        with self._store.edge() as edge:
            edge.promoting.lock(asked.model)
            newest = edge.promoting.newest(asked.model)
            if newest and (newest.state in UNSETTLED or (newest.state == "DONE" and _same(newest, asked))):
                return newest
            return edge.promoting.add(asked, verdict)

    def _redone(self, record: PromotionRecord) -> bool:
        try:
            with self._alone(record.model):
                with self._store.edge() as edge:
                    newest = edge.promoting.newest(record.model)
                if self._intents and newest and newest.number == record.number and newest.state in UNSETTLED:
                    self._carry_out(self._intents, newest)
        except TooBusy:  # a call is at it
            return False
        except STAYS as error:
            if not isinstance(error, Unreachable):  # which is told where it happened, once
                log.warning("a promotion waits", model=record.model, number=record.number, error=str(error))
            return False
        return True

    def _carry_out(self, intents: Intents, record: PromotionRecord) -> Outcome:
        with self._store.edge() as edge:
            text = edge.promoting.verdict(record.number)
        verdict = read_verdict(record.model, record.version, record.expected_champion, text) if text else None
        try:
            return intents.carry_out(record, verdict)
        except STAYS as error:
            kept = f"{record.kind} {record.number} of {record.model!r} is written down, and done when that is over"
            raise type(error)(f"{error}; {kept}") from error

    @contextmanager
    def _alone(self, model: str) -> Iterator[None]:
        """The only work on a model while the block runs; raises TooBusy where there is some."""
        with self._changed:
            if self._stopping:
                raise Unreachable("the aggregator is ending; ask again")
            if model in self._busy:
                raise TooBusy(f"a promotion of {model!r} is under way; the limit is 1 at a time", RETRY_S)
            if len(self._busy) >= AT_ONCE:
                raise TooBusy(f"{len(self._busy)} models are worked on; the limit is {AT_ONCE} at a time", RETRY_S)
            self._busy.add(model)
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(model)
                self._changed.notify_all()


def _same(record: PromotionRecord, asked: PromotionRecord) -> bool:
    """Whether a record is of this very call; the version of a rollback is not known when it is asked for."""
    said = ("kind", "expected_champion", "reason", "verdict_sha256")
    return all(getattr(record, name) == getattr(asked, name) for name in said)
