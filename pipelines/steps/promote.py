"""Makes a version that the gate has passed the champion, through the aggregator."""

import json
from hashlib import sha256
from pathlib import Path

from deerfield.errors import ChampionMoved, InvalidInput
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
    try:
        text = verdict.read_text("utf-8")
        found = json.loads(text)
        about = (str(found["model"]), str(found["version"]), str(found["expected_champion"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{verdict} is no verdict of a gate ({error}); run the gate again") from None
    with runs_at(aggregator) as runs:
        try:
            return runs.promote(*about, text)
        except ChampionMoved:
            if (done := _done(runs, about[0], text)) is not None:
                return done
            raise


def _done(runs: RunsClient, model: str, text: str) -> Promotion | None:
    """What an earlier try of this task has come to, where others have asked since."""
    mine = sha256(text.encode()).hexdigest()
    for each in runs.promotions(model):
        if each.verdict_sha256 == mine and each.state == "DONE":
            return Promotion(model=model, champion=each.champion, previous=each.previous)
    return None
