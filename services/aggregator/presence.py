"""Who has been heard from, and how far they say they are. In memory: a restart gives everybody a fresh start."""

from collections.abc import Mapping


class Presence:
    """When each site last called, and its progress on the open task."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._progress: dict[str, dict[str, tuple[int, int]]] = {}

    def saw(self, site: str, now: float) -> None:
        """Notes a call."""
        self._seen[site] = now

    def last_seen(self, site: str, otherwise: float) -> float:
        """When the site last called, but not before `otherwise`."""
        return max(self._seen.get(site, otherwise), otherwise)

    def report(self, run: str, site: str, steps_done: int, steps: int) -> None:
        """Notes a site's progress."""
        self._progress.setdefault(run, {})[site] = (steps_done, steps)

    def progress(self, run: str) -> Mapping[str, tuple[int, int]]:
        """(steps done, steps) of each site that has reported on the open phase."""
        return dict(self._progress.get(run, {}))

    def forget_progress(self, run: str) -> None:
        """Begins a phase."""
        self._progress.pop(run, None)
