"""Carries an intent out: what it says is written to MLflow, and the intent is closed; each step may be done again.

The alias moves behind an edge of its own (MOVING): from then on an alias found where we wanted it is our work, and any
other one somebody else's. MLflow cannot compare and set, so everything is looked at once more right before it moves.
"""

from dataclasses import replace
from typing import TypeAlias

import structlog

from deerfield.documents.evaluation import NAME as EVALUATION
from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.errors import ChunksMissing, DigestMismatch, InvalidInput
from deerfield.gate import Held
from deerfield.promotion import Promotion, PromotionRecord, Verdict
from services.aggregator.champions.checks import Seen, Trouble, allowed
from services.aggregator.champions.models import CHAMPION, Models, Version
from services.aggregator.champions.rejudging import Known, check_verdict
from services.aggregator.desk import Desk
from services.aggregator.ledger_mirror import run_mirror

Outcome: TypeAlias = Promotion | Trouble

log = structlog.get_logger()


class Intents:
    """Those of one aggregator; the caller sees to it that there is one at a time for each model."""

    def __init__(self, desk: Desk, models: Models) -> None:
        self._desk = desk
        self._store = desk.store
        self._models = models

    def carry_out(self, record: PromotionRecord, verdict: Verdict | None) -> Outcome:
        """What came of an intent, which is closed then; a promotion has a verdict.

        Raises:
            Unreachable, InvalidInput, Malfunction: by MLflow; the intent stays as it is, to be carried out later.
        """
        seen = self._see(record)
        with self._store.edge() as edge:
            target = allowed(record, seen, edge)
        if not isinstance(target, Version):
            return self._refused(record, seen, target)
        if record.state == "MOVING":
            return self._move(record, seen, target)
        if verdict is not None:
            if (doubt := self._doubt(verdict, seen, target)) is not None:
                return self._refused(record, seen, doubt)
            self._models.judge(target, verdict)
            self._desk.reached("verdict:written")
            if not verdict.passed:
                return self._settled(record, champion=seen.champion, previous=seen.champion)
        moving = replace(record, state="MOVING", version=target.version)
        with self._store.edge() as edge:
            edge.promoting.move(moving)
        return self.carry_out(moving, verdict)

    def _doubt(self, verdict: Verdict, seen: Seen, target: Version) -> InvalidInput | None:
        """Why the verdict does not count here, in a sentence; None: it does."""
        known = self._known(seen, target)
        try:
            check_verdict(verdict, known)
        except InvalidInput as error:
            return error
        return None

    def _known(self, seen: Seen, target: Version) -> Known:
        champion = self._models.version(target.model, seen.champion) if seen.champion else None
        with self._store.edge() as edge:
            row = edge.run(target.run)
            attached = {name: edge.attachments.known(row.run, name) or "" for name in (MANIFEST, EVALUATION)}
        return Known(
            candidate=_held(target),
            champion=None if champion is None else _held(champion),
            spec=row.spec,
            mirror=run_mirror(self._desk, row),
            manifest=self._attached(target, MANIFEST, attached[MANIFEST]),
            manifest_sha256=attached[MANIFEST],
            evaluation_sha256=attached[EVALUATION],
            rules=self._desk.rules,
        )

    def _attached(self, target: Version, name: str, sha: str) -> bytes | None:
        """The content of a file about the version's run: a blob until it is logged, and then with MLflow."""
        if not sha:
            return None
        try:
            return self._desk.published.get(sha)
        except (ChunksMissing, DigestMismatch):
            return self._models.artifact(target, name)

    def _see(self, record: PromotionRecord) -> Seen:
        aliases = self._models.aliases(record.model)
        champion = (aliases or {}).get(CHAMPION, "")
        version = record.version or (self._before(record.model, champion) if champion else "")
        with self._store.edge() as edge:
            known = edge.promoting.lock(record.model)
        return Seen(
            where=self._models.where,
            exists=aliases is not None,
            champion=champion,
            known=known,
            version=version,
            target=self._models.version(record.model, version) if version else None,
        )

    def _before(self, model: str, champion: str) -> str:
        found = self._models.version(model, champion)
        return found.previous_champion if found else ""

    def _move(self, record: PromotionRecord, seen: Seen, target: Version) -> Promotion:
        if seen.champion != record.version:
            if record.kind == "promotion":
                self._models.remember(target, record.expected_champion)
                self._desk.reached("previous_champion:written")
            self._models.crown(target)
            self._desk.reached("champion:moved")
        if record.kind == "promotion":
            self._models.retire(target)
            self._desk.reached("candidate:retired")
        return self._settled(record, champion=record.version, previous=record.expected_champion)

    def _settled(self, record: PromotionRecord, *, champion: str, previous: str) -> Promotion:
        now = self._desk.clock()
        done = replace(record, state="DONE", champion=champion, previous=previous, ended_at=now)
        with self._store.edge() as edge:
            edge.promoting.settle(done)
        log.info(f"{record.kind} done", model=record.model, number=record.number, champion=champion, previous=previous)
        return Promotion(model=record.model, champion=champion, previous=previous)

    def _refused(self, record: PromotionRecord, seen: Seen, why: Trouble) -> Trouble:
        if record.state == "MOVING" and seen.target and seen.target.previous_champion == record.expected_champion:
            self._models.remember(seen.target, "")  # it was written, and did not come true
        now = self._desk.clock()
        with self._store.edge() as edge:
            edge.promoting.refuse(replace(record, detail=str(why), ended_at=now))
            if seen.by_hand:
                edge.promoting.add(_found(record.model, seen, now))
                edge.promoting.crown(record.model, seen.champion)
        log.warning(f"{record.kind} refused", model=record.model, number=record.number, reason=str(why))
        return why


def _held(version: Version) -> Held:
    return Held(version=version.version, run=version.run, digest=version.digest)


def _found(model: str, seen: Seen, now: float) -> PromotionRecord:
    """The entry for an alias that somebody else has moved."""
    return PromotionRecord(
        number=0,
        model=model,
        kind="by_hand",
        state="DONE",
        version=seen.champion,
        expected_champion=seen.known or "",
        previous=seen.known or "",
        champion=seen.champion,
        began_at=now,
        ended_at=now,
    )
