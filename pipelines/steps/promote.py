"""Makes a version that the gate has passed the champion, through the aggregator."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from deerfield.errors import InvalidInput
from pipelines.steps.reach import runs_at

if TYPE_CHECKING:
    from deerfield.promotion import Promotion


def promote(aggregator: str, verdict: Path) -> "Promotion":
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
        return runs.promote(*about, text)
