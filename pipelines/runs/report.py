"""What a person sees of a run: one line that moves while it works, one table when it is done."""

import time
from collections.abc import Mapping
from math import ceil, inf
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from deerfield.exchange import Event
from deerfield.strategies import KNOWN, Option, describe
from pipelines.pages.formats import number
from pipelines.runs.result import Result

LINES = 12  # at most so many lines of progress where there is no tty
SHOWN = 24  # rows of the final table; result.json has them all


class Live:
    """Progress of a run: phases done, who has answered, epsilon so far, time left. Plain lines without a tty."""

    def __init__(self, console: Console, phases: int, sites: int) -> None:
        self._console, self._phases, self._sites = console, phases, sites
        self._answered = 0
        self._started: float | None = None
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[sites]}"),
            TextColumn("{task.fields[note]}"), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task: TaskID = self._bar.add_task("starting", total=phases, sites="", note="")

    def __enter__(self) -> "Live":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Says what is being waited for."""
        self._bar.update(self._task, description=text)

    def warn(self, text: str) -> None:
        """Says something that should not be overlooked."""
        self._console.print(f"[yellow]![/] {escape(text)}", highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Says something once."""
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def seen(self, event: Event) -> None:
        """Shows one event."""
        kind, detail = event.kind, event.detail
        if kind == "task_taken" and self._started is None:
            self._started = time.monotonic()
            self.note("training")
        elif kind == "update_sealed":
            self._answered += 1
            self._bar.update(self._task, sites=f"{self._answered}/{self._sites} sites")
        elif kind in ("declined", "lost", "left"):
            self.warn(f"site {detail['site']}: {kind}{': ' + detail['detail'] if detail.get('detail') else ''}")
        elif kind == "tracking_failed":
            self.warn(f"MLflow could not be told of {detail['event']}: {detail['reason']}")
        elif kind == "phase_published":
            self._published(detail)

    def _published(self, detail: Mapping[str, Any]) -> None:
        self._answered = 0
        self._bar.advance(self._task)
        done = int(self._bar.tasks[0].completed)
        spent = max((inf if each is None else each for each in detail["epsilon"].values()), default=0.0)
        left = (time.monotonic() - (self._started or time.monotonic())) / done * (self._phases - done)
        name = f"round {detail['round'] + 1}" + (f" {detail['factors']}" if detail["factors"] else "")
        note = f"epsilon so far {number(spent)}, {left:.0f} s left"
        self._bar.update(self._task, description=name, sites="", note=note)
        if not self._console.is_terminal and (done == 1 or done % ceil(self._phases / LINES) == 0):
            self._console.print(f"  {done}/{self._phases} {name}: {note}", highlight=False)


def table(result: Result) -> Table:
    """One row for each phase."""
    title = f"{result.spec.name}: {result.spec.strategy['name']}, {len(result.sites)} sites"
    grid = Table(title=title, title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("round", "phase", "loss", "accuracy", "macro-F1", "deviation", "MB up", "MB down", "epsilon"):
        grid.add_column(column, justify="right", no_wrap=True)
    for phase in result.phases[-SHOWN:]:
        spent = sorted(set(phase["epsilon"].values()))
        scores = phase["evaluation"]
        grid.add_row(
            str(phase["round"] + 1),
            phase["factors"] or "head",
            number(phase["metrics"].get("loss")),
            number(scores.get("accuracy"), ".3f"),
            number(scores.get("f1"), ".3f"),
            number(phase["deviation"], ".1e"),
            number(phase["bytes_up"] / 1e6),
            number(phase["bytes_down"] / 1e6),
            " to ".join(number(value) for value in (spent[:1] + spent[1:][-1:])),
        )
    return grid


def epilogue(console: Console, result: Result, folder: Path, tracking: str, base: str) -> None:
    """The table, the registered model, and where to look next."""
    console.print(table(result))
    if len(result.phases) > SHOWN:
        console.print(f"  the last {SHOWN} of {len(result.phases)} phases; all of them are in result.json")
    console.print(_spent(result), highlight=False, soft_wrap=True)
    if result.registered:
        name, version = result.registered["name"], result.registered["version"]
        console.print(
            f"registered: models:/{name}/{version} (alias candidate) in {tracking}", highlight=False, soft_wrap=True
        )
    else:
        console.print(
            "registered: nothing: each site has a model of its own, or a warning above says why", highlight=False
        )
    which = "one for each site" if result.personal else f"sha256 {result.digest[:12]}..."
    console.print(f"adapter:    {folder / 'adapter'} ({which})", highlight=False, soft_wrap=True)
    console.print(f"report:     {folder / 'report.html'}, for people", highlight=False, soft_wrap=True)
    console.print(
        f"figures:    {folder / 'result.json'}; the whole run took {result.seconds:.0f} s",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"next:       deerfield evaluate {folder / 'adapter'} DATA --base {base}", highlight=False, soft_wrap=True
    )
    console.print(f"            mlflow ui --backend-store-uri {tracking}", highlight=False, soft_wrap=True)


def _spent(result: Result) -> str:
    privacy = result.spec.privacy
    if privacy.unit == "none":
        return "epsilon: infinite at every site, because unit none promises nothing"
    epsilons = ", ".join(f"{site} {number(row['epsilon'])}" for site, row in sorted(result.sites.items()))
    return f"epsilon per {privacy.unit} at delta {privacy.delta:g}: {epsilons}"


def strategy_table() -> Table:
    """What `deerfield strategies` prints."""
    grid = Table("strategy", "what it does", "what leaves a site", "privacy units", "options", padding=(0, 1))
    for name in KNOWN:
        known = describe(name)
        options = "; ".join(f"{key}: {_choices(option)}" for key, option in known.options.items())
        units = ", ".join(sorted(known.declares.units))
        grid.add_row(name, known.title, known.declares.sends, units, options or "–")
    return grid


def _choices(option: Option) -> str:
    others = [str(value) for value in option.allowed if value != option.default]
    return " | ".join([f"{option.default if option.default != '' else 'none'} (default)", *others])
