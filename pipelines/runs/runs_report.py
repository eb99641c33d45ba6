"""What a person sees of runs at a running aggregator: a table, one run, and a line for each thing that happens."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from deerfield.exchange import LIVE, Event, RunView
from deerfield.roster import KnownSite, PopulationReport
from deerfield.strategies import make
from deerfield.strategy import Declaration
from pipelines.pages.formats import size

Detail = Mapping[str, Any]


def as_json(view: RunView) -> dict[str, Any]:
    """A run, without its tensors."""
    return {
        "run": view.run,
        "state": view.state,
        "reason": view.reason,
        "incarnation": view.incarnation,
        "started": _time(view.started_at),
        "round": view.round,
        "phase": view.phase,
        "phase_state": view.phase_state,
        "sites": dict(view.sites),
        "digest": view.model.digest,
        "personal": {site: manifest.digest for site, manifest in view.personal.items()},
        "spec": view.spec.model_dump(mode="json"),
    }


def event_json(event: Event) -> dict[str, Any]:
    """An event as one object."""
    return {"number": event.number, "time": _time(event.time), "kind": event.kind, **event.detail}


def listed(views: Sequence[RunView]) -> Table:
    """All runs, a row each."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("run", no_wrap=True, min_width=max((len(view.run) for view in views), default=0))
    for name in ("state", "done", "strategy", "sites"):
        table.add_column(name)
    table.add_column("started", no_wrap=True)
    if any(view.reason for view in views):
        table.add_column("why")
    for view in views:
        sites, why = str(len(view.spec.federation.sites)), escape(view.reason)
        name, started = str(view.spec.strategy["name"]), _time(view.started_at)[5:16]
        cells = (escape(view.run), _coloured(view.state), _done(view), name, sites, started)
        table.add_row(*cells, *([why] if len(table.columns) > len(cells) else ()))
    return table


def shown(view: RunView) -> Iterator[str]:
    """One run, line by line."""
    spec, privacy = view.spec, view.spec.privacy
    epsilon = "none" if privacy.unit == "none" else f"{privacy.epsilon:g}, delta {privacy.delta:g}, each {privacy.unit}"
    rows = {
        "run": view.run,
        "state": view.state + (f": {view.reason}" if view.reason else ""),
        "started": _time(view.started_at),
        "incarnation": f"{view.incarnation}, restored from a backup" if view.incarnation > 1 else "",
        "done": f"{_done(view)} rounds",
        "open phase": view.phase_state if view.state in LIVE else "",
        "strategy": " ".join(f"{name}={value}" for name, value in spec.strategy.items()),
        "population": spec.population,
        "epsilon": epsilon,
        "base model": f"{spec.model.base}, digest {spec.model.digest or 'unknown'}",
        "model": view.model.digest,
    }
    yield from (f"{name:<13}{value}" for name, value in rows.items() if value)
    yield from (f"  {site:<11}{state.lower()}" for site, state in sorted(view.sites.items()))


def known_json(known: KnownSite) -> dict[str, Any]:
    """A site with what it said in its Hello; what its policy keeps to itself has no key."""
    return {
        "site": known.site,
        "build": known.build,
        "protocol": known.protocol,
        **({"said": _time(known.said_at)} if known.said_at else {}),
        **({"heard": _time(known.heard_at)} if known.heard_at else {}),
        "complete": known.report.complete,
        "populations": [_population_json(each) for each in known.report.populations],
    }


def _population_json(found: PopulationReport) -> dict[str, Any]:
    commitment = {"commitment": found.commitment} if found.commitment else {}
    bounds = {"unit": found.unit, "units_low": found.units_low, "units_high": found.units_high}
    return {"name": found.name, "registered": found.registered, **commitment, **(bounds if found.unit else {})}


def sites_listed(sites: Sequence[KnownSite]) -> Table:
    """A row for each population that a site reports; one for a site that reports none."""
    table = Table(box=SIMPLE_HEAD)
    for name in ("site", "version", "population", "registered data", "units"):
        table.add_column(name)
    for name in ("said", "heard"):
        table.add_column(name, no_wrap=True)
    for known in sites:
        times = [_time(each)[5:16] if each else "-" for each in (known.said_at, known.heard_at)]
        own = [_cells(each) for each in known.report.populations]
        if not known.report.complete:
            own.append(("keeps the others to itself" if own else "keeps all to itself", "", ""))
        for number, cells in enumerate(own or [("has none", "", "")]):
            site, build, *when = ("",) * 4 if number else (known.site, known.build, *times)
            table.add_row(*map(escape, (site, build, *cells)), *when)
    return table


def _cells(found: PopulationReport) -> tuple[str, str, str]:
    data = found.commitment[:12] or ("as a run finds them" if found.on_start else "none")
    units = f"{found.units_low} to {found.units_high}, each {found.unit}" if found.unit else ""
    return found.name, data, units


def line(event: Event) -> str:
    """An event, readable."""
    clock = datetime.fromtimestamp(event.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    told = TOLD.get(event.kind, _plain)(event.detail)
    return f"{clock}  {event.number or '':>6}  {event.kind.replace('_', ' '):<16}  {told}".rstrip()


def _where(detail: Detail) -> str:
    return f"round {detail['round']} phase {detail['phase']}"


def _published(detail: Detail) -> str:
    epsilon = [value for value in detail["epsilon"].values() if value is not None]
    spent = f", epsilon so far {max(epsilon):.3g}" if epsilon else ""
    up, sites = size(detail["bytes_up"]), ", ".join(detail["sites"])
    what = detail["factors"] or ("the head" if detail["bytes_up"] else "no tensor")
    return f"{_where(detail)}: {what} from {sites}; {up} up, {detail['seconds']:.1f} s{spent}"


def _plain(detail: Detail) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items() if not isinstance(value, dict))


TOLD: dict[str, Callable[[Detail], str]] = {
    "run_started": lambda d: f"{d['name']}: {d['strategy']} over {', '.join(d['sites'])}",
    "task_taken": lambda d: f"{_where(d)}: {d['site']}",
    "progress": lambda d: f"{d['site']}: step {d['steps_done']} of {d['steps']}",
    "update_sealed": lambda d: f"{_where(d)}: {d['site']}, {size(d['bytes'])}",
    "declined": lambda d: f"{_where(d)}: {d['site']}: {d['reason']}: {d['detail']}",
    "left": lambda d: f"{_where(d)}: {d['site']}: {d['detail']}",
    "lost": lambda d: f"{_where(d)}: {d['site']}, silent for {d['silent_s']:g} s",
    "phase_published": _published,
    "evaluated": lambda d: f"{_where(d)}: " + ", ".join(f"{n} {v:.4g}" for n, v in sorted(d["metrics"].items())),
    "registered": lambda d: f"{d['name']} version {d['version']}",
    "run_paused": lambda d: d["reason"],
    "run_resumed": lambda d: f"after {d['paused_s']:g} s; the deadline begins anew",
    "run_restored": lambda d: f"by {d['operator']}, as incarnation {d['incarnation']}",
    "site_repinned": lambda d: f"{d['site']} signs with {d['public_key'][:16]}...: {d['reason']}",
    "run_finished": lambda d: f"model {d['digest']}",
    "run_failed": lambda d: d["reason"],
    "run_aborted": lambda d: d["reason"],
}


def _done(view: RunView) -> str:
    declares: Declaration = make(view.spec).declares
    phases = f" + {view.phase}/{len(declares.phases)}" if view.phase else ""
    return f"{view.round}{phases} of {declares.rounds}"


def _coloured(state: str) -> str:
    colour = {"FINISHED": "green", "FAILED": "red", "ABORTED": "red", "PAUSED": "yellow"}.get(state, "default")
    return f"[{colour}]{state}[/]"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
