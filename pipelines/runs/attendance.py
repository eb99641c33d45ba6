"""Who took part in a phase, and why another did not: from the events between two publications."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from deerfield.exchange import Event

LATE = "late: it took its task, and the phase closed without it"
NEVER_CAME = "absent: it took no task"


@dataclass
class Attendance:
    """The tasks of the phase that is not published yet; times are seconds since the run began."""

    began: float = 0.0  # seconds since the epoch
    taken: dict[str, float] = field(default_factory=dict)
    answered: dict[str, float] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)  # by site: declined, left or lost, and why
    _at: tuple[int, int] | None = None  # round and phase

    def seen(self, event: Event) -> None:
        """Takes in what happened to one site's task; other events change nothing."""
        kind, detail = event.kind, event.detail
        if kind not in ("task_taken", "update_sealed", "declined", "left", "lost"):
            return
        self._at = (detail["round"], detail["phase"])
        site, time = detail["site"], self.since(event.time)
        if kind == "task_taken":
            self.taken[site] = time
            self.gone.pop(site, None)  # it is back
        elif kind == "update_sealed":
            self.answered[site] = time
        elif kind == "declined":
            self.gone[site] = f"declined: {detail['reason']}: {detail['detail']}"
        elif kind == "left":
            self.gone[site] = f"left: {detail['detail']}"
        else:
            self.gone[site] = f"lost: silent for {detail['silent_s']:g} s"

    def since(self, time: float) -> float:
        """Seconds since the run began."""
        return round(time - self.began, 3)

    def close(self, sites: Iterable[str], came: Iterable[str]) -> dict[str, Any]:
        """The phase as it was when it closed; what follows belongs to the next one."""
        counted = set(came)
        found = {
            "sites": {site: [self.taken.get(site), self.answered.get(site)] for site in sorted(counted)},
            "missing": {site: self._why(site) for site in sites if site not in counted},
        }
        self.taken, self.answered, self.gone, self._at = {}, {}, {}, None
        return found

    def open(self) -> dict[str, Any]:
        """The phase that was never published; empty where none was begun."""
        if self._at is None:
            return {}
        sites = {site: [time, self.answered.get(site)] for site, time in sorted(self.taken.items())}
        return {"round": self._at[0], "phase": self._at[1], "sites": sites, "missing": dict(sorted(self.gone.items()))}

    def _why(self, site: str) -> str:
        return self.gone.get(site) or (LATE if site in self.taken else NEVER_CAME)
