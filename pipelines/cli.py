"""The `deerfield` command. Imports what `--help` needs; everything heavy is imported by the command that uses it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from deerfield import __version__
from deerfield.errors import DeerfieldError
from pipelines.commands import aggregator, audit_log, cluster, ledger, pipelines, pki, register, registry, report, runs
from pipelines.commands.operator_options import INTERRUPTED

app = typer.Typer(
    help="Federated LoRA fine-tuning for hospitals, under differential privacy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(ledger.app, name="ledger")
app.add_typer(pki.app, name="pki")
app.add_typer(runs.app, name="runs")
app.add_typer(aggregator.app, name="aggregator")
app.add_typer(audit_log.app, name="audit-log")
app.add_typer(pipelines.app, name="pipelines")
app.add_typer(cluster.app, name="cluster")
app.add_typer(registry.models, name="models")
app.command("promote")(registry.promote)
app.command("rollback")(registry.rollback)
app.command("register")(register.command)
app.command("report")(report.command)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file; docs/run-file.md explains its keys.")],
    out: Annotated[Path | None, typer.Option(help="Folder that keeps everything; default runs/NAME-TIME.")] = None,
    listen: Annotated[str, typer.Option(help="Loopback address of the aggregator.")] = "127.0.0.1:0",
    tracking: Annotated[
        str | None, typer.Option(help="MLflow URI; default a file in --out.", envvar="MLFLOW_TRACKING_URI")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the file's.")] = None,
) -> None:
    """Runs a whole federation on this machine: aggregator and sites as real processes."""
    from rich.console import Console

    from deerfield.runfile import RunFile, load, parse
    from pipelines.embedded import running
    from pipelines.runs import report

    console = Console()
    loaded = load(file)
    if seed is not None:
        loaded = parse(RunFile, {**loaded.model_dump(), "seed": seed}, "--seed")
    folder = (out or running.default_folder(loaded.name)).resolve()
    console.print(
        f"deerfield {__version__}: {loaded.name}, everything goes to {folder}", highlight=False, soft_wrap=True
    )
    where = running.Where(folder=folder, listen=listen, tracking=tracking or f"sqlite:///{folder / 'mlflow.db'}")
    try:
        result = running.execute(loaded, where, lambda phases, sites: report.Live(console, phases, sites))
    except KeyboardInterrupt:
        typer.echo("interrupted: everything that was started has been stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None
    base = loaded.embedded.base or loaded.model.base
    report.epilogue(console, result, folder, where.tracking, base)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="models:/NAME/VERSION, models:/NAME@ALIAS, or an adapter folder.")],
    data: Annotated[str, typer.Argument(help="A data file, folder or hub id; docs/run-file.md, `source:`.")],
    base: Annotated[str | None, typer.Option(help="The base model here: folder, hub id or package:NAME.")] = None,
    text: Annotated[str | None, typer.Option("--input", help="Column of the text or image.")] = None,
    label: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    rows: Annotated[
        Path | None, typer.Option(help="npy file of the rows to use, such as a run's validation.npy.")
    ] = None,
    patient: Annotated[
        str | None, typer.Option(help="Column of the patient: intervals are over patients, not over examples.")
    ] = None,
    tracking: Annotated[str | None, typer.Option(help="MLflow URI.", envvar="MLFLOW_TRACKING_URI")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Scores a registered version or an adapter folder on a data file, and says how sure the figures are."""
    from pipelines.evaluation import one_model

    request = one_model.Request(
        model=model, data=data, base=base, input=text, label=label, rows=rows, tracking=tracking, patient=patient
    )
    one_model.evaluate(request, as_json=as_json)


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    policy: Annotated[
        Path | None, typer.Option(help="A hospital's policy file: plan for that site alone, and read no data.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="With --policy: the site's state folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Says what a run will cost each site before anything runs. Exit code 3 if a site would refuse it."""
    from pipelines.embedded import planning

    request = planning.Request(file=file, policy=policy, state=state)
    if not planning.show(planning.planned(request), as_json=as_json):
        raise typer.Exit(planning.REFUSED)


@app.command()
def audit(
    file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    canaries: Annotated[
        int | None, typer.Option(help="How many; default: enough to find that noise is missing, 1000 at least.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of the run to train; what they claim is audited.")] = 1,
    site: Annotated[str | None, typer.Option(help="Whose part of the data; default: the first site.")] = None,
    noise_off: Annotated[
        bool, typer.Option("--noise-off", help="Leave the noise out, and see that the audit finds it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Trains with canaries: do the releases give away more than they claim? Exit code 1 if so. Touches no ledger."""
    from pipelines.embedded import audit as auditing

    request = auditing.Request(file=file, site=site, canaries=canaries, rounds=rounds, noiseless=noise_off)
    if code := auditing.audit(request, as_json=as_json):
        raise typer.Exit(code)


@app.command()
def strategies() -> None:
    """Lists the strategies, what they send, and the privacy units that they guarantee."""
    from rich.console import Console

    from pipelines.runs.report import strategy_table

    Console().print(strategy_table())


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Federated LoRA fine-tuning for hospitals, under differential privacy."""
    if show:
        typer.echo(f"deerfield {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command; an error that deerfield can name is one sentence and an exit code, never a traceback."""
    import os
    import signal

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # an error is our one sentence
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a supervisor's stop cleans up as Ctrl-C does
    try:
        app()
    except DeerfieldError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
