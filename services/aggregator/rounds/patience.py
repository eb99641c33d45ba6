"""How often something is tried again that another machine is to do, and for how long."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

PATIENCE_S = 600.0  # an MLflow pod that moves to another node, with its volume and its database's migration
QUICK_S = (1.0, 2.0, 4.0)
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The pauses between attempts: `quick_s` after any failure, then growing ones while the other side is away."""

    quick_s: Sequence[float] = QUICK_S
    patience_s: float = PATIENCE_S  # how long something may wait for who is away
    wait: Callable[[float], bool] | None = None  # lets seconds pass, True: was stopped; None: whoever waits has its own

    def pause_s(self, tries: int, waited_s: float, *, is_away: bool) -> float | None:
        """Seconds until the next attempt, after `tries` that failed, of what has waited `waited_s`; None: give up."""
        if tries <= len(self.quick_s):
            return self.quick_s[tries - 1]
        left_s = self.patience_s - waited_s
        if not is_away or left_s <= 0:
            return None
        return min(2.0 ** min(tries - 1, 5), LONGEST_PAUSE_S, left_s)


PATIENT = Patience()
