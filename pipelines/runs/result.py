"""What a run leaves: `result.json`, built from the aggregator's events and nothing else. Schema: docs/result.md."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, isinf
from pathlib import Path
from typing import Any

from deerfield.exchange import ENDINGS, Event
from deerfield.runspec import RunSpec
from pipelines.runs.attendance import Attendance

EPSILONS = ("epsilon", "epsilon_total")  # of this run, as the aggregator counts; of the site's population, as attested
INCIDENTS = frozenset(
    {"declined", "left", "lost", "update_refused", "tracking_failed", "run_paused", "run_resumed", "run_restored"}
    | {"site_repinned"}
)  # kinds of event that a reader of the run should know of


@dataclass
class Result:
    """A run as its events tell it; `seen` takes them one by one."""

    spec: RunSpec
    run: str
    phases: list[dict[str, Any]] = field(default_factory=list)
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    registered: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    reason: str = ""
    digest: str = ""  # of the shared adapter
    personal: Mapping[str, str] = field(default_factory=dict)  # digests by site, where the strategy personalises
    events: int = 0  # number of the last one seen
    seconds: float = 0.0  # wall time of the whole run, from the command on
    ended_s: float | None = None  # since the run began
    version: str = ""  # of the deerfield that ran it, where that is known
    attendance: Attendance = field(default_factory=Attendance)
    incidents: list[dict[str, Any]] = field(default_factory=list)

    def seen(self, event: Event) -> None:
        """Takes one event in."""
        kind, detail = event.kind, event.detail
        self.events = max(self.events, event.number)
        self.attendance.seen(event)
        since = self.attendance.since(event.time)
        if kind in INCIDENTS:
            self.incidents.append({"kind": kind, "at_s": since, **detail})
        if kind == "run_started":
            self.attendance.began = event.time
        elif kind == "phase_published":
            came = self.attendance.close(self.spec.federation.sites, detail["sites"])
            self.phases.append({**_phase(detail), **came, "published_s": since, "evaluation": {}})
            self.digest, self.personal = detail["digest"], detail["personal"]
            for name in EPSILONS:
                for site, spent in detail[name].items():
                    self.sites.setdefault(site, {})[name] = inf if spent is None else spent
            for site, spend in detail["spends"].items():
                self._spent(site, spend)
        elif kind == "evaluated":
            self._evaluated(detail)
        elif kind == "registered":
            self.registered = {"name": detail["name"], "version": detail["version"]}
        elif kind in ("run_paused", "run_resumed"):
            self.state = "paused" if kind == "run_paused" else "running"
        elif kind in ENDINGS:
            self.state, self.reason = kind.removeprefix("run_"), detail.get("reason", "")
            self.ended_s = since

    def _spent(self, site: str, spend: Mapping[str, Any]) -> None:
        known = self.sites.setdefault(site, {})
        known["steps"] = known.get("steps", 0) + spend["steps"]
        for key in ("unit", "noise_multiplier", "sample_rate", "clip"):
            known[key] = spend[key]
        known["delta"] = self.spec.privacy.delta

    def _evaluated(self, detail: Mapping[str, Any]) -> None:
        for phase in self.phases:
            if (phase["round"], phase["phase"]) == (detail["round"], detail["phase"]):
                phase["evaluation"] = dict(detail["metrics"])

    @property
    def final(self) -> dict[str, float]:
        """The metrics of the last published phase, empty until they are there."""
        return self.phases[-1]["evaluation"] if self.phases else {}

    def json(self) -> dict[str, Any]:
        """The document; infinite epsilons are the string "infinity", because JSON has no such number."""
        document: dict[str, Any] = {
            "schema": "deerfield.result/1",
            "run": self.run,
            "name": self.spec.name,
            "version": self.version,
            "started": self.attendance.began,
            "ended_s": self.ended_s,
            "state": self.state,
            "reason": self.reason,
            "strategy": dict(self.spec.strategy),
            "seed": self.spec.seed,
            "spec_sha256": self.spec.sha256,
            "seconds": round(self.seconds, 3),
            "rounds": self.phases,
            "open": self.attendance.open() or None,
            "incidents": self.incidents,
            "sites": self.sites,
            "final": self.final,
            "adapter_sha256": dict(self.personal) or self.digest,
            "registered": self.registered,
        }
        return {key: _finite(value) for key, value in document.items()}

    def write(self, folder: Path) -> Path:
        """Writes `result.json` and the run as it was started."""
        (folder / "spec.json").write_text(json.dumps(json.loads(self.spec.canonical()), indent=2) + "\n")
        path = folder / "result.json"
        path.write_text(json.dumps(self.json(), indent=2, sort_keys=True, allow_nan=False) + "\n")
        return path


def _phase(detail: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("round", "phase", "factors", "deviation", "bytes_up", "bytes_down", "seconds", "digest")
    taken = {key: detail[key] for key in keys}
    spent = {name: {site: inf if each is None else each for site, each in detail[name].items()} for name in EPSILONS}
    return taken | spent | {"metrics": _means(detail["metrics"].values()), "reported": dict(detail["metrics"])}


def _means(each: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean over the sites that let a metric out; empty where no policy does."""
    rows = list(each)
    names = {name for row in rows for name in row}
    values = {name: [row[name] for row in rows if name in row] for name in sorted(names)}
    return {name: sum(v) / len(v) for name, v in values.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return "infinity" if isinstance(value, float) and isinf(value) else value
