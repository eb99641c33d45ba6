"""`deerfield pipelines submit|schedule|unschedule|list|register`: what asks a server of Kubeflow Pipelines."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands import kfp_options as kfp
from pipelines.commands.option_groups import grouped

if TYPE_CHECKING:
    from pipelines.kubeflow.kfp_transport import Where
    from pipelines.kubeflow.registrar import Done, Registration

HAND = "command-line"  # who keeps the schedules that are made one by one
PATIENCE_S, REGISTRAR_PATIENCE_S = 60.0, 300.0  # the hook of a fresh installation waits for its server


@grouped
def register(
    packages: Annotated[list[Path], typer.Argument(metavar="PIPELINE.yaml", help="Compiled pipelines.")],
    server: kfp.Server,
    schedules: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Every schedule of --owner; docs/schedules.md has the keys.")
    ] = None,
    owner: Annotated[
        str, typer.Option(metavar="NAME", help="Whose schedules these are, such as a Helm release; others stay.")
    ] = "deerfield",
    patience: kfp.Patience = REGISTRAR_PATIENCE_S,
    as_json: kfp.AsJson = False,
) -> None:
    """Uploads pipelines and makes the recurring runs of a file what it says, as often as it is called."""
    from pipelines.compiled import package
    from pipelines.kubeflow import schedules as schedules_file
    from pipelines.kubeflow.registrar import Registration

    compiled = package.read_all(packages)
    asked = schedules_file.load(schedules, compiled) if schedules is not None else []
    whole = schedules is not None
    registration = Registration(packages=compiled, schedules=asked, owner=owner, whole=whole)
    _register(server.where(), registration, patience, as_json)


@grouped
def schedule(
    compiled: kfp.Compiled,
    name: Annotated[str, typer.Option(metavar="NAME", help="What it is called; one that is there is changed.")],
    cron: Annotated[
        str, typer.Option(metavar="CRON", help="Six fields, seconds first: '0 0 3 * * 1' is Monday, 03:00.")
    ],
    server: kfp.Server,
    runs: kfp.Runs,
    max_concurrency: Annotated[int, typer.Option(help="Runs at a time, 1 to 10.")] = 1,
    catchup: Annotated[
        bool, typer.Option("--catchup", help="Also start what was missed while it was disabled.")
    ] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Make it, and start nothing.")] = False,
    patience: kfp.Patience = PATIENCE_S,
    as_json: kfp.AsJson = False,
) -> None:
    """Makes or changes one recurring run; a file of them is for deerfield pipelines register."""
    from deerfield.runfile import parse
    from pipelines.compiled import package
    from pipelines.kubeflow.registrar import Registration
    from pipelines.kubeflow.schedules import Schedule

    found = package.read(compiled)
    asked = {
        "name": name,
        "pipeline": found.name,
        "cron": cron,
        "parameters": runs.parameters(found),
        "experiment": runs.experiment,
        "max_concurrency": max_concurrency,
        "catchup": catchup,
        "enabled": not disabled,
        "service_account": runs.service_account,
    }
    made = parse(Schedule, asked, f"schedule {name!r}")
    registration = Registration(packages={found.name: found}, schedules=[made], owner=HAND, whole=False)
    _register(server.where(), registration, patience, as_json)


@grouped
def unschedule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As deerfield pipelines list shows it.")],
    server: kfp.Server,
    patience: kfp.Patience = PATIENCE_S,
) -> None:
    """Deletes a recurring run; runs that it has started go on."""
    from pipelines.kubeflow import holdings

    owners = holdings.unschedule(server.where(), name, patience)
    typer.echo(f"deleted schedule {name}")
    for owner in owners:
        if owner != HAND:
            typer.echo(
                f"the next registration of {owner!r} makes it again; take it out of its schedules file", err=True
            )


@grouped
def list_(server: kfp.Server, patience: kfp.Patience = PATIENCE_S, as_json: kfp.AsJson = False) -> None:
    """Shows the pipelines and the schedules that are there."""
    from rich.console import Console

    from pipelines.kubeflow import holdings

    held = holdings.look(server.where(), patience)
    if as_json:
        typer.echo(json.dumps(asdict(held), indent=2))
    else:
        for part in holdings.tables(held):
            Console(highlight=False).print(part)


@grouped
def submit(
    compiled: kfp.Compiled,
    server: kfp.Server,
    runs: kfp.Runs,
    patience: kfp.Patience = PATIENCE_S,
    as_json: kfp.AsJson = False,
) -> None:
    """Starts one run now; says its id, which is also its request id at the aggregator."""
    from pipelines.compiled import package
    from pipelines.kubeflow import submitting

    found = package.read(compiled)
    asked = submitting.Submission(
        package=found,
        parameters=runs.parameters(found),
        experiment=runs.experiment,
        service_account=runs.service_account,
    )
    run = submitting.submit(server.where(), asked, patience)
    if as_json:
        typer.echo(json.dumps(asdict(run), indent=2))
        return
    typer.echo(f"run {run.run_id}: {run.name}")
    typer.echo(f"watch it at {run.link}")
    typer.echo("it is the request id at the aggregator; the log of its rounds names the run for deerfield runs watch")


def _register(where: "Where", asked: "Registration", patience_s: float, as_json: bool) -> None:
    from pipelines.kubeflow import registrar

    def say(done: "Done") -> None:
        if as_json:
            typer.echo(json.dumps(asdict(done)))
        else:
            typer.echo(f"{done.change:<9} {done.kind} {done.name}" + (f": {done.detail}" if done.detail else ""))

    registrar.register(where, asked, say, patience_s)
