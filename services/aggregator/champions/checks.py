"""Whether a champion may be moved, by what the registry and our own rows say at this moment."""

from dataclasses import dataclass
from typing import TypeAlias

from deerfield.errors import ChampionMoved, InvalidInput, UnknownRun
from deerfield.promotion import PromotionRecord
from services.aggregator.champions.models import Version
from services.aggregator.sql.store import Edge

Trouble: TypeAlias = ChampionMoved | InvalidInput
LIST = "deerfield models list shows what there is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is of a model."""

    where: str  # the registry
    exists: bool
    champion: str  # by the alias; empty: none
    known: str | None  # the champion that we have made; None: we have not touched the model yet
    version: str  # that is to become champion; empty: a champion without one before it
    target: Version | None  # that version; None: it is not there

    @property
    def by_hand(self) -> bool:
        """Whether somebody else has moved the alias."""
        return self.exists and self.known is not None and self.known != self.champion


def allowed(record: PromotionRecord, seen: Seen, edge: Edge) -> Version | Trouble:
    """The version that an intent is about, or, in a sentence, why the intent cannot be carried out."""
    model = record.model
    if not seen.exists:
        return InvalidInput(f"{seen.where} has no model {model!r} (any more); {LIST}")
    moved_by_us = record.state == "MOVING" and seen.champion == record.version
    if not moved_by_us and (moved := _moved(record, seen)):
        return moved
    if record.kind == "rollback" and (none := _nothing_before(record, seen)):
        return none
    if seen.target is None:
        return InvalidInput(f"{model!r} has no version {seen.version}, or it was deleted from {seen.where}; {LIST}")
    if record.passed and seen.champion == record.version and not moved_by_us:
        return InvalidInput(f"version {record.version} of {model!r} is its champion already; there is nothing to do")
    return _origin(record, seen.target, edge) or seen.target


def _moved(record: PromotionRecord, seen: Seen) -> ChampionMoved | None:
    now = f"version {seen.champion}" if seen.champion else "none"
    if seen.by_hand:
        ours = f"version {seen.known}" if seen.known else "none"
        return ChampionMoved(
            f"the alias champion of {record.model!r} was moved by hand, not by this aggregator: it is {now}, and was "
            f"{ours}. Nothing was overwritten, and it now stands in the history; compare with {now} and ask again, or "
            "set the alias back first"
        )
    if seen.champion != record.expected_champion:
        expected = f"version {record.expected_champion}" if record.expected_champion else "none"
        return ChampionMoved(
            f"the champion of {record.model!r} is {now}, and the call expects {expected}; compare with {now} and ask "
            "again"
        )
    return None


def _nothing_before(record: PromotionRecord, seen: Seen) -> InvalidInput | None:
    if not seen.champion:
        return InvalidInput(f"{record.model!r} has no champion, so there is none to go back from; promote a version")
    if not seen.version:
        return InvalidInput(
            f"version {seen.champion} of {record.model!r} had no champion before it (it has no tag "
            "deerfield.previous_champion); promote another version instead"
        )
    if seen.target is None:
        return InvalidInput(
            f"version {seen.version} of {record.model!r}, the champion before version {seen.champion}, was deleted "
            f"from {seen.where}; version {seen.champion} stays the champion, promote another one instead"
        )
    return None


def _origin(record: PromotionRecord, target: Version, edge: Edge) -> InvalidInput | None:
    """A version is of a run that finished here; one to go back to may have been champion before this aggregator."""
    it = f"version {target.version} of {target.model!r}"
    try:
        run = edge.run(target.run)
    except UnknownRun:
        if record.kind == "rollback":
            return None
        return InvalidInput(
            f"{it} is of {f'run {target.run[:80]!r}' if target.run else 'no run'} (tag deerfield.run), which this "
            "aggregator does not know; promote it where it was trained"
        )
    if run.state != "FINISHED" or run.spec.name != target.model:
        return InvalidInput(
            f"{it} is said to be of run {run.run} (tag deerfield.run), which is {run.state} and trains "
            f"{run.spec.name!r}; only what a finished run of that name has made can be champion"
        )
    published = edge.published(edge.newest_phase(run).key)
    if published is None or published.shared.digest != target.digest:
        return InvalidInput(
            f"{it} has digest {target.digest[:64]!r} (tag deerfield.digest), and run {run.run} has published "
            f"{published.shared.digest if published else 'nothing'}: its tags were changed; promote another version"
        )
    return None
