"""`deerfield plan`: what a run will cost each site, by its policy and ledger, before anything runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deerfield.errors import InvalidInput
from deerfield.runfile import load, load_spec
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from pipelines.embedded import running
from pipelines.pages.formats import number
from pipelines.processes.children import preloader
from pipelines.processes.site_process import answer, scratch

NAME_WIDTH = 18  # of a site in the table, on a narrow screen; a longer name is folded
THIS = "this site"  # of a policy without a ledger: nothing names it yet
REFUSED = 3  # exit code: a site would refuse the run
LEGEND = (
    "noise: of a step, over the clip. epsilon: of this run; after, left: of the population's lifetime budget, once "
    "the run is charged. signal: a phase's clipped update over its noise, as L2 norms, if all gradients agree; far "
    "below 1 the noise wins. rounds: of a run like this that would still fit now."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to plan: a run for all its embedded sites, or for the one site of a policy."""

    file: Path
    policy: Path | None
    state: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The run, and by site what it costs: the fields of `deerfield.plan.SitePlan` and the population's budget."""

    spec: RunSpec
    sites: Mapping[str, Mapping[str, Any]]
    kept: bool  # whether the budgets outlive the run


def planned(request: Request) -> Planned:
    """Plans the run; nothing is kept of what had to be prepared for it.

    Raises:
        InvalidInput: the run file, data, model, policy or a ledger cannot be used.
    """
    if request.policy is None and request.state is not None:
        raise InvalidInput("--state is the folder of one site: name that site's policy too, with --policy")
    with scratch("plan") as folder:
        return _one_site(request, request.policy, folder) if request.policy else _all_sites(request, folder)


def _one_site(request: Request, policy: Path, folder: Path) -> Planned:
    spec = load_spec(request.file)
    make(spec)
    state = request.state
    if state is not None and not state.is_dir():
        raise InvalidInput(f"--state {state}: there is no such folder; leave it out if the site never ran")
    found = _ask(spec, {THIS: (policy, state)}, folder)[THIS]
    return Planned(spec=spec, sites={found.pop("site") or THIS: found}, kept=True)


def _all_sites(request: Request, folder: Path) -> Planned:
    """Splits the data and describes the adapter as `deerfield run` does, in a folder that goes away."""
    file = load(request.file)
    pooled = make(file.spec).declares.topology == "pooled"  # refuses a bad strategy or unit before anything starts
    (folder / "logs").mkdir()
    waiting = Console(stderr=True).status("reading the data and the base model")
    with waiting, preloader(folder) as processes:
        spec, prepared = running.prepare(file, folder, processes, pooled=pooled)
    kept = file.embedded.budget is not None
    sites = {
        site: (folder / "sites" / site / "policy.yaml", running.site_state(file, folder, site) if kept else None)
        for site in prepared["sites"]
    }
    found = _ask(spec, sites, folder)
    for name, site in found.items():
        if site.pop("site") not in (None, name):
            raise InvalidInput(f"{sites[name][1]} holds the ledger of another site than {name}; name another folder")
    return Planned(spec=spec, sites=found, kept=kept)


def _ask(spec: RunSpec, sites: Mapping[str, tuple[Path, Path | None]], folder: Path) -> dict[str, dict[str, Any]]:
    """Lets the site's own code read policies and ledgers, in a process that imports no torch."""
    asked = {
        site: {"policy": str(policy), "state": None if state is None else str(state)}
        for site, (policy, state) in sites.items()
    }
    path = folder / "request.json"
    path.write_text(json.dumps({"spec": spec.model_dump(mode="json"), "sites": asked}))
    return answer("plan", ["--request", str(path)], folder)


def show(plan: Planned, *, as_json: bool, console: Console | None = None) -> bool:
    """Prints the plan; answers whether the run fits every site."""
    fits = all(site["fits"] for site in plan.sites.values())
    if as_json:
        told = {"run": plan.spec.name, "fits": fits, "budgets_kept": plan.kept, "sites": plan.sites}
        print(json.dumps(told, indent=2, sort_keys=True, allow_nan=False))
        return fits
    console = console or Console()
    console.print(*_head(plan), sep="\n", highlight=False, markup=False)
    if any(site["steps"] is not None for site in plan.sites.values()):
        console.print(table(plan))
        console.print(LEGEND, style="dim", highlight=False)
    for mark, key in (("[red]refused[/]", "refusal"), ("[yellow]![/]", "warnings")):
        for text, sites in _grouped(plan.sites, key).items():
            console.print(f"{mark} {escape(', '.join(sites))}: {escape(text)}", highlight=False)
    if not plan.kept and plan.spec.privacy.unit != "none":
        console.print("! a simulation: its budgets are thrown away; embedded: budget: keeps them", highlight=False)
    return fits


def _head(plan: Planned) -> Iterator[str]:
    """What is the same at every site, because the run file says it."""
    spec, privacy = plan.spec, plan.spec.privacy
    declares = make(spec).declares
    some = next((site for site in plan.sites.values() if site["steps"] is not None), None)
    asks = "no privacy" if privacy.unit == "none" else f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g}"
    unit = "" if privacy.unit == "none" else f" for each {privacy.unit}"
    yield f"{spec.name}: {spec.strategy['name']}, {declares.rounds} rounds, {asks}{unit}"
    if some is None:
        return
    spare = f", {privacy.spare_phases} spare" if privacy.spare_phases else ""
    phases = declares.rounds * len(declares.phases)
    each = spec.releases(declares.epochs)
    whose, what = ("the aggregator", "noised sums over the sites") if privacy.unit == "site" else ("each site", "steps")
    if declares.epochs:
        yield f"{whose}: {some['steps']} {what} ({phases} phases{spare}, {each} each) at sample rate q {_rate(some)}"
    else:
        yield f"nothing is trained: {phases} models are scored{spare}, under the noise of each site's policy"
    if some["bytes_up"] is None:
        yield "bytes: not known, the run file has no adapter shapes yet"
    else:
        yield f"           {_size(some['bytes_up'])} up, at most {_size(some['bytes_down'])} down"


def table(plan: Planned) -> Table:
    """One row for each site."""
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column("site", overflow="fold", min_width=min(NAME_WIDTH, max(map(len, plan.sites))))
    for column in ("units", "noise", "epsilon", "after", "left", "signal", "rounds"):
        grid.add_column(column, justify="right", no_wrap=True)
    grid.add_column("fits")
    trains = make(plan.spec).declares.epochs
    for name, site in plan.sites.items():
        verdict = "yes" if site["fits"] else "[red]no[/]"
        if site["steps"] is None:
            grid.add_row(escape(name), *["–"] * 7, verdict)
            continue
        low, high = site["units"]
        rounds = "any" if site["rounds_that_fit"] is None else str(site["rounds_that_fit"]) if trains else "–"
        figures = (number(site["noise_multiplier"]), number(site["epsilon"]), _after(site))
        left, signal = _left(site), number(site["phase_signal_to_noise"], ".2g")
        grid.add_row(escape(name), f"{low}–{high}", *figures, left, signal, rounds, verdict)
    return grid


def _after(site: Mapping[str, Any]) -> str:
    """Epsilon of the population after the run; of a run that its delta refuses there is none to name."""
    refused_by_delta = not site["fits"] and site["epsilon_after"] == "infinity" != site["epsilon"]
    return number(None if refused_by_delta else site["epsilon_after"])


def _left(site: Mapping[str, Any]) -> str:
    """Epsilon that is left, of the lifetime cap."""
    if site["budget"] is None:
        return "–"
    return f"{number(site['epsilon_left'], '.2g')} of {number(site['budget']['epsilon'])}"


def _rate(site: Mapping[str, Any]) -> str:
    return format(site["sample_rate"], ".3g")


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _grouped(sites: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, list[str]]:
    """Sites by what there is to say of them, so that a thousand sites do not say one thing a thousand times."""
    found: dict[str, list[str]] = {}
    for name, site in sites.items():
        said: str | Sequence[str] | None = site[key]
        for text in [said] if isinstance(said, str) else said or ():
            found.setdefault(text, []).append(name)
    return found
