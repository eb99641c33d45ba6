"""Who has been heard from, how far they say they are, and when each phase last got on.

In memory: a restart gives everybody a fresh start. Times are of `Desk.clock`, which nobody sets.
"""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, replace

from deerfield.exchange import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """An open phase, as long as this process has known it."""

    key: Key
    since: float
    moved_at: float


class Presence:
    """When each site last called, its progress on the open task, and the last progress of each run."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._progress: dict[str, dict[str, tuple[int, int]]] = {}
        self._watched: dict[str, Watched] = {}

    def saw(self, site: str, now: float) -> None:
        """Notes a call."""
        self._seen[site] = now

    def last_seen(self, site: str, otherwise: float) -> float:
        """When the site last called, but not before `otherwise`."""
        return max(self._seen.get(site, otherwise), otherwise)

    def heard(self) -> Collection[str]:
        """The sites that have called."""
        return self._seen.keys()

    def watched(self, key: Key, now: float) -> Watched:
        """What is known of an open phase; one that was not known begins now."""
        known = self._watched.get(key.run)
        if known is None or known.key != key:
            known = self._watched[key.run] = Watched(key=key, since=now, moved_at=now)
        return known

    def is_open(self, key: Key) -> bool:
        """Whether this is the open phase that is known of its run."""
        known = self._watched.get(key.run)
        return known is not None and known.key == key

    def moved(self, key: Key, now: float) -> None:
        """Notes that an open phase got on: a task was taken, a step done, a chunk or an update came."""
        self._watched[key.run] = replace(self.watched(key, now), moved_at=now)

    def report(self, key: Key, site: str, steps_done: int, steps: int) -> bool:
        """Notes a site's progress on the open phase; answers whether it is further than ever."""
        known = self._progress.setdefault(key.run, {})
        further = site not in known or steps_done > known[site][0]
        if further:
            known[site] = (steps_done, steps)
        return further

    def progress(self, run: str) -> Mapping[str, tuple[int, int]]:
        """(steps done, steps) of each site that has reported on the open phase."""
        return dict(self._progress.get(run, {}))

    def watch_only(self, runs: Set[str]) -> None:
        """Forgets the open phases of all other runs: one that goes on later begins anew."""
        for run in self._watched.keys() - runs:
            del self._watched[run]

    def restart(self) -> None:
        """Nobody could be heard until now: everybody gets a fresh start."""
        self._seen.clear()
        self._watched.clear()

    def forget(self, run: str) -> None:
        """The run's open phase has closed."""
        self._progress.pop(run, None)
        self._watched.pop(run, None)
