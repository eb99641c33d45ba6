"""How long things stay that are needed no more, as an operator says it."""

import re
from dataclasses import dataclass
from math import inf, isfinite

from deerfield.errors import InvalidInput
from services.aggregator.blobstore.blobs import GRACE_S

DAY_S = 24 * 3600.0
KEEP_UPDATES_S = 7 * DAY_S
UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S}
GRACE_MIN_S = 600.0  # a phase of many sites takes minutes from its first tensor to its row


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long things are kept that are needed no more."""

    gc_grace_s: float = GRACE_S  # what no row names
    keep_updates_s: float = KEEP_UPDATES_S  # of a phase that has closed
    keep_states_s: float | None = None  # of a run that has ended, but for the last ones; None: for ever


KEEP = Retention()


def read_retention(gc_grace: str, keep_updates: str, keep_states: str) -> Retention:
    """What the three flags say.

    Raises:
        InvalidInput: one of them is no length of time, or too short.
    """
    return Retention(
        gc_grace_s=_duration("gc-grace", gc_grace, GRACE_MIN_S),
        keep_updates_s=_duration("keep-updates", keep_updates, 0.0),
        keep_states_s=_duration("keep-states", keep_states, 0.0) if keep_states else None,
    )


def _duration(flag: str, text: str, least_s: float) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    seconds = float(found[1]) * UNITS_S[found[2]] if found else inf
    if not isfinite(seconds):
        raise InvalidInput(f"{flag}: {text!r} is no length of time; write seconds, or such as 90m, 24h, 7d")
    if seconds < least_s:
        raise InvalidInput(f"{flag}: {text} is less than {least_s:g} s")
    return seconds
