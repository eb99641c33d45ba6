"""Makes a version that the gate has passed the champion, through the aggregator."""

from hashlib import sha256
from pathlib import Path

from deerfield.documents import reading
from deerfield.documents.verdict import Verdict
from deerfield.errors import ChampionMoved
from deerfield.promotion import Promotion
from deerfield.wire.client import RunsClient
from pipelines.steps.reach import runs_at


def promote(aggregator: str, verdict: Path) -> Promotion:
    """Hands the gate's verdict in, and answers the champion behind it and before; again is the same.

    Raises:
        InvalidInput: the file is no verdict, or the version is no longer there.
        ChampionMoved: the champion is no longer the one that was compared with.
        Unreachable: the aggregator does not answer.
    """
    content = reading.content(verdict, Verdict.WHAT)
    found = reading.parsed(Verdict, content, str(verdict))
    with runs_at(aggregator) as runs:
        try:
            return runs.promote(found.model, found.version, found.expected_champion, content.decode())
        except ChampionMoved:
            if (done := _done(runs, found.model, content)) is not None:
                return done
            raise


def _done(runs: RunsClient, model: str, content: bytes) -> Promotion | None:
    """What an earlier try of this task has come to, where others have asked since."""
    mine = sha256(content).hexdigest()
    for each in runs.promotions(model):
        if each.verdict_sha256 == mine and each.state == "DONE":
            return Promotion(model=model, champion=each.champion, previous=each.previous)
    return None
