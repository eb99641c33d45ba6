"""`deerfield runs evaluate`: scores of finished models from the sites, as far as their policies let them out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.operator_options import Address, AsJson, Tls

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.evaluation.at_sites import Reported


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The finished run whose model is scored.")],
    aggregator: Address,
    tls: Tls,
    epsilon: Annotated[
        float | None, typer.Option(min=0, help="What it may cost each site; left out if the run has unit none.")
    ] = None,
    champion: Annotated[str, typer.Option(metavar="RUN", help="Another finished run, to compare with.")] = "",
    without_base: Annotated[bool, typer.Option("--without-base", help="Leave the base model out.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the run file, for deerfield plan; start nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lets the sites of a run score its model on patients that they keep out of training; docs/evaluation.md.

    Asked again for the same models at the same epsilon, it shows the same run, and costs nothing more.
    """
    from rich.console import Console

    from pipelines.evaluation import at_sites
    from pipelines.runs import run_start, runs_report
    from pipelines.runs.operator_link import runs_of

    if out is not None:
        run_start.check_out(out)
    request = at_sites.Request(candidate=run, champion=champion, base=not without_base, epsilon=epsilon)
    with runs_of(tls.way(aggregator)) as runs:
        spec = at_sites.asked(runs, request)
        if out is not None:
            run_start.write(spec, out)
            typer.echo(f"wrote {out}: deerfield plan says what it costs, deerfield runs start starts it")
            return
        name, found = at_sites.scored(runs, spec, lambda event: typer.echo(runs_report.line(event), err=True))
    if as_json:
        typer.echo(json.dumps({"run": name, "models": found}, indent=2))
    else:
        Console(highlight=False).print(_table(found))
        typer.echo("under the noise of each site's own policy: docs/evaluation.md says how much that may be")


def _table(found: "Reported") -> "Table":
    """A row for each site and model."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from pipelines.pages.formats import number

    grid = Table(box=SIMPLE_HEAD)
    metrics = sorted({metric for told in found.values() for row in told.values() for metric in row})
    for column in ("site", "model", *metrics):
        grid.add_column(column)
    for site in sorted({site for told in found.values() for site in told}):
        for model, told in found.items():
            row = told.get(site, {})
            grid.add_row(escape(site), model, *(number(row.get(metric), ".3f") for metric in metrics))
    return grid
