"""`deerfield register`: a client process looks at the data and writes the ledger; this prints what it found."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipelines.processes.site_process import ended, scratch

HOSPITAL_ONLY = "for this hospital only: no count of it ever leaves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Whose populations to look at; all of the policy if none is named."""

    policy: Path
    site: str
    state: Path
    population: str | None


def command(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="The hospital's policy; docs/policy.md.")],
    site: Annotated[str, typer.Option(metavar="NAME", help="The site's name, as in the federation.")],
    state: Annotated[Path, typer.Option(metavar="DIR", help="The site's state folder, with its key and ledgers.")],
    population: Annotated[str | None, typer.Option(help="Which; default: all of the policy.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Checks a hospital's populations, and notes in their ledgers which data they are. Again when the data change."""
    register(Request(policy=policy, site=site, state=state, population=population), as_json=as_json)


def register(request: Request, *, as_json: bool) -> None:
    """Prints what is in the populations, and registers them if nothing must be mended first.

    Raises:
        InvalidInput: something must be, and then no ledger has changed; what was found is printed all the same.
    """
    with scratch("register") as folder:
        said, error = ended("register", _arguments(request), folder)
        reports = json.loads(said) if said else []  # it could not look
        if as_json:
            print(json.dumps({"site": request.site, "registered": error is None, "populations": reports}, indent=2))
        else:
            show(reports, Console(soft_wrap=True, highlight=False))
        if error is not None:
            raise error
    if not as_json:
        print(f"registered at {request.site}: {', '.join(report['population'] for report in reports)}")


def _arguments(request: Request) -> list[str]:
    argv = ["--policy", str(request.policy), "--site", request.site, "--state", str(request.state)]
    return argv + (["--population", request.population] if request.population is not None else [])


def show(reports: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Prints the reports for people."""
    for report in reports:
        if any(finding["about"] == "columns" for finding in report["findings"]):
            _tell(report, console)  # no row was looked at
            continue
        grid = Table("", "", title=f"population {report['population']} ({HOSPITAL_ONLY})", show_header=False)
        for name, value in _rows(report):
            grid.add_row(name, value)
        console.print(grid)
        _tell(report, console)


def _tell(report: Mapping[str, Any], console: Console) -> None:
    for finding in report["findings"]:
        console.print(f"{finding['level']}: {finding['sentence']}", markup=False)


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    nouns = "patients" if report["unit"] == "patient" else "examples"
    kept = "within" if report["bounds_respected"] else "outside"
    yield "protects each", report["unit"]
    yield "rows", f"{report['rows']}, of which {report['usable_rows']} can be used"
    yield nouns, f"{report['units']}, {kept} the declared {report['units_low']} to {report['units_high']}"
    if report["unit"] == "patient":
        yield "rows without a patient", str(report["rows_without_unit"])
        yield "examples of a patient", f"median {report['examples_median']:g}, at most {report['examples_max']}"
        if (high := report["examples_high"]) is not None:
            yield f"patients with more than {high} examples", str(report["units_above"])
    yield "labels", ", ".join(f"{label} {count}" for label, count in report["labels"].items())
