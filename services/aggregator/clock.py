"""The aggregator's time: one that nobody sets while it runs, held against what the database has seen."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from deerfield.errors import InvalidInput
from services.aggregator.sql.store import Store

CLOCK_SKEW_S = 300.0


def steady_clock() -> Callable[[], float]:
    """Seconds since the epoch, as this machine has them now; a clock that is set later moves no deadline."""
    elapsed = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine sleeps
    ahead = time.time() - time.clock_gettime(elapsed)
    return lambda: ahead + time.clock_gettime(elapsed)


def check_clock(store: Store, now: float, skew_s: float) -> None:
    """Raises InvalidInput where the newest event lies more than `skew_s` after `now`: times would go back."""
    with store.edge() as edge:
        newest = edge.newest_event_time()
    if newest is not None and newest > now + skew_s:
        raise InvalidInput(
            f"clock: the database's newest event is of {_shown(newest)}, and this machine's clock says {_shown(now)}; "
            f"set this clock, or, if an earlier machine's was wrong, set clock-skew to {newest - now + 1:.0f} s or more"
        )


def _shown(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
