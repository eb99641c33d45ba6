"""Lines of the log that a caller could cause without end: a few of each kind are written, and then they are counted."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

LINES = 10
PERIOD_S = 60.0
KINDS = 4096  # to remember; of the one that was silent longest, the count is forgotten


@dataclass(slots=True)
class _Period:
    since: float
    written: int = 0
    left_out: int = 0


class Seldom:
    """At most `LINES` of each kind in `PERIOD_S`."""

    def __init__(self, clock: Callable[[], float], size: int = KINDS) -> None:
        self._clock = clock
        self._size = size
        self._periods: OrderedDict[Hashable, _Period] = OrderedDict()

    def __len__(self) -> int:
        return len(self._periods)

    def due(self, kind: Hashable) -> int | None:
        """How many of a kind were left out before the line that is to be written now; None: leave it out too."""
        now = self._clock()
        period = self._periods.setdefault(kind, _Period(now))
        self._periods.move_to_end(kind)
        if len(self._periods) > self._size:
            self._periods.popitem(last=False)
        if now - period.since >= PERIOD_S:
            period.since, period.written = now, 0
        if period.written >= LINES:
            period.left_out += 1
            return None
        period.written += 1
        left_out, period.left_out = period.left_out, 0
        return left_out
