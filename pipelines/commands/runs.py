"""`deerfield runs`: a person and a running aggregator. docs/operations.md shows each of them."""

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands import evaluating
from pipelines.commands.operator_options import Address, AsJson, Tls
from pipelines.commands.option_groups import grouped

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from deerfield.exchange import RunView
    from deerfield.wire.client import RunsClient

NOT_FINISHED = 1  # exit code: the run that was watched has no model
WATCHING_S = 10.0  # the longest pause before asking an aggregator again that is away
app = typer.Typer(help="Starts, shows, follows, pauses and ends runs at a running aggregator.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's name, as deerfield runs list shows it.")]
File = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file; docs/run-file.md explains its keys.")]
BASE = typer.Option(metavar="FOLDER", help="The base model here (folder, hub id or package:NAME).")


@app.command()
@grouped
def start(
    file: File,
    aggregator: Address,
    *,
    base: Annotated[str | None, BASE] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Asked again with the same one, it is the same run; default: a new one.")
    ] = None,
    tls: Tls,
    as_json: AsJson = False,
) -> None:
    """Starts a run over the sites that its file names; they need not be there yet.

    Give --base unless the file describes its base model by `model: digest` and `adapter`, as runs describe writes it.
    """
    from pipelines.runs import run_start
    from pipelines.runs.operator_link import runs_of

    where = tls.way(aggregator)
    spec = run_start.completed(run_start.Request(file=file, base=base))
    asked = request_id or uuid.uuid4().hex
    with runs_of(where) as runs:
        run = runs.start(spec, asked)
        run_start.keep_manifest(runs, run, spec, file)
    typer.echo(json.dumps({"run": run, "request_id": asked}, indent=2) if as_json else run)


@app.command()
def describe(
    file: File,
    base: Annotated[str, BASE],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new run file, which needs no --base to be started.")],
) -> None:
    """Writes a run file with the digest of its base model and the shapes that travel."""
    from deerfield.runfile import load_spec
    from pipelines.runs import run_start

    run_start.check_out(out)
    spec = run_start.described(file, load_spec(file), base)
    run_start.write(spec, out, run_start.embedded(file))
    typer.echo(f"wrote {out}: digest {spec.model.digest}, {len(spec.adapter)} tensors")


@app.command("list")
@grouped
def list_(aggregator: Address, tls: Tls, as_json: AsJson = False) -> None:
    """Shows every run, oldest first."""
    from rich.console import Console

    from pipelines.runs import runs_report

    with _runs(aggregator, tls) as runs:
        views = runs.list()
    if as_json:
        typer.echo(json.dumps([runs_report.as_json(view) for view in views], indent=2))
    elif views:
        Console(highlight=False).print(runs_report.listed(views))
    else:
        typer.echo("no runs yet")


@app.command()
@grouped
def show(run: Run, aggregator: Address, tls: Tls, as_json: AsJson = False) -> None:
    """Shows one run: how far it is, and what each site does."""
    with _runs(aggregator, tls) as runs:
        _show(runs.get(run), as_json)


@app.command()
@grouped
def sites(aggregator: Address, tls: Tls, as_json: AsJson = False) -> None:
    """Shows every site that has ever called, and what its policy lets it say of its populations."""
    from rich.console import Console

    from pipelines.runs import runs_report

    with _runs(aggregator, tls) as runs:
        known = list(runs.sites())
    if as_json:
        typer.echo(json.dumps([runs_report.known_json(each) for each in known], indent=2))
    elif known:
        Console(highlight=False).print(runs_report.sites_listed(known))
    else:
        typer.echo("no site has ever called")


@app.command()
@grouped
def watch(
    run: Run,
    aggregator: Address,
    *,
    after: Annotated[int, typer.Option(min=0, help="The number of the last event already seen.")] = 0,
    tls: Tls,
    as_json: AsJson = False,
) -> None:
    """Follows a run to its end, also over a restart of the aggregator. Exit code 0 if it finished, else 1."""
    from deerfield.exchange import ENDINGS
    from deerfield.wire.backoff import Backoff
    from pipelines.runs import runs_report
    from pipelines.runs.operator_link import runs_of, say

    where, kind = tls.way(aggregator), ""
    with runs_of(where) as runs:
        state = runs.get(run).state  # refuses a run or a caller that is not known, and an aggregator that is not there
    with runs_of(where, Backoff(last_s=WATCHING_S, tell=say)) as runs:
        for event in runs.watch(run, after):
            told = json.dumps(runs_report.event_json(event)) if as_json else runs_report.line(event)
            typer.echo(told)
            kind = event.kind if event.kind in ENDINGS else kind
    if kind != "run_finished" and (kind or state != "FINISHED"):
        raise typer.Exit(NOT_FINISHED)


@app.command()
@grouped
def pause(
    run: Run,
    aggregator: Address,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; stands in the run's events.")] = "",
    tls: Tls,
    as_json: AsJson = False,
) -> None:
    """Stops a run's clock: tasks that were handed out may be answered, and nothing new begins."""
    with _runs(aggregator, tls) as runs:
        _show(runs.pause(run, reason), as_json)


@app.command()
@grouped
def resume(run: Run, aggregator: Address, tls: Tls, as_json: AsJson = False) -> None:
    """Lets a paused run go on; its deadline begins anew."""
    with _runs(aggregator, tls) as runs:
        _show(runs.resume(run), as_json)


@app.command()
@grouped
def abort(
    run: Run,
    aggregator: Address,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; the sites are told.")] = "aborted by its operator",
    tls: Tls,
    as_json: AsJson = False,
) -> None:
    """Ends a run in whatever state it is, without its model. One that has ended stays as it is."""
    with _runs(aggregator, tls) as runs:
        _show(runs.abort(run, reason), as_json)


app.command()(grouped(evaluating.evaluate))


def _runs(aggregator: str, tls: Tls) -> "AbstractContextManager[RunsClient]":
    from pipelines.runs.operator_link import runs_of

    return runs_of(tls.way(aggregator))


def _show(view: "RunView", as_json: bool) -> None:
    from pipelines.runs import runs_report

    if as_json:
        typer.echo(json.dumps(runs_report.as_json(view), indent=2))
    else:
        typer.echo("\n".join(runs_report.shown(view)))
