"""`deerfield report`: the page of one run, for people. docs/report.md."""

from pathlib import Path
from typing import Annotated

import typer

from deerfield.errors import InvalidInput
from pipelines.commands.operator_options import Tls
from pipelines.commands.option_groups import grouped

Target = Annotated[str, typer.Argument(metavar="RUN|FOLDER", help="A run at the aggregator, or a folder of runs/.")]


@grouped
def command(
    target: Target,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page, HTML; never overwritten.")],
    *,
    evaluation: Annotated[Path | None, typer.Option(metavar="FILE", help="evaluation.json.")] = None,
    verdict: Annotated[Path | None, typer.Option(metavar="FILE", help="verdict.json, of deerfield promote.")] = None,
    manifest: Annotated[Path | None, typer.Option(metavar="FILE", help="manifest.json of the partition.")] = None,
    aggregator: Annotated[
        str, typer.Option(metavar="HOST:PORT", envvar="DEERFIELD_AGGREGATOR", help="Its data port; for a RUN.")
    ] = "",
    tls: Tls,
) -> None:
    """Writes one HTML page about a run: what happened, what it cost in privacy, how good the model is.

    The three documents are looked for in FOLDER under their own names unless they are named here.
    """
    from pipelines.report_page import reporting
    from pipelines.runs.operator_link import runs_of

    named = {"evaluation": evaluation, "verdict": verdict, "manifest": manifest}
    reporting.check_out(out)
    if Path(target).is_dir():
        found = reporting.in_folder(Path(target))
    elif not aggregator:
        raise InvalidInput(f"{target} is no folder here; give --aggregator, where a run of that name can be found")
    else:
        with runs_of(tls.way(aggregator)) as runs:
            found = reporting.at_aggregator(runs, target)
    reporting.write(reporting.completed(found, {name: path for name, path in named.items() if path}), out)
    typer.echo(f"wrote {out}")
