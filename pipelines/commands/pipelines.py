"""`deerfield pipelines`: compiles the pipelines of docs/pipelines.md, and tells a KFP server of them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.commands import kfp
from pipelines.commands.operator_options import INTERRUPTED
from pipelines.commands.registry import REFUSED

app = typer.Typer(help="Compiles the pipelines, runs them here, and schedules them on KFP.", no_args_is_help=True)

Options = Annotated[
    Path | None,
    typer.Option("--options", metavar="FILE", help="Compile options; docs/compile-options.md has the keys."),
]


@app.command("compile")
def compile_(
    names: Annotated[list[str] | None, typer.Argument(metavar="PIPELINE", help="Which; default: each of them.")] = None,
    options: Options = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where PIPELINE.yaml goes, or PIPELINE-manifests.yaml.")
    ] = Path("compiled"),
    as_manifests: Annotated[
        bool, typer.Option("--as-manifests", help="Write Pipeline and PipelineVersion custom resources instead.")
    ] = False,
    namespace: Annotated[str | None, typer.Option(help="With --as-manifests: of the custom resources.")] = None,
) -> None:
    """Writes the pipelines as KFP takes them. The same version and options give the same bytes."""
    from deerfield.errors import InvalidInput
    from pipelines.compiled import compile_options, compiling

    if namespace is not None and not as_manifests:
        raise InvalidInput("--namespace is for --as-manifests: a compiled pipeline names none, its upload does")
    chosen = compile_options.load(options)
    for name in names or compiling.NAMES:
        text = compiling.compiled(name, chosen, namespace=namespace, manifests=as_manifests)
        path = out / f"{name}{'-manifests' * as_manifests}.yaml"
        typer.echo(f"{'wrote' if compiling.write(text, path) else 'unchanged:'} {path}")


@app.command("run-local")
def run_local(
    file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file, with its embedded: section.")],
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The gate's rules; default: those of docs/gate.md.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that keeps everything; default runs/NAME-TIME.")] = None,
    tracking: Annotated[
        str | None, typer.Option(help="MLflow URI; default a file in --out.", envvar="MLFLOW_TRACKING_URI")
    ] = None,
    runner: Annotated[
        Literal["subprocess", "docker"],
        typer.Option(help="A process for each task; or a container, of Docker or of Podman behind DOCKER_HOST."),
    ] = "subprocess",
    image: Annotated[
        str | None, typer.Option(help="With --runner docker: of the containers; default: that of make images.")
    ] = None,
    evaluate_at_sites: Annotated[
        float, typer.Option(min=0, help="Epsilon that each site may spend on scoring the models; 0: none does.")
    ] = 0.0,
) -> None:
    """Runs federated-training on this machine, from partition to promotion. Exit code 3 if the gate refuses."""
    from deerfield.errors import InvalidInput
    from deerfield.runfile import load
    from pipelines.compiled.compile_options import CompileOptions
    from pipelines.embedded import running
    from pipelines.local import run

    if image is not None and runner != "docker":
        raise InvalidInput("--image is for --runner docker: a process has the packages of this one")
    of = image or CompileOptions().image if runner == "docker" else ""
    loaded = load(file)
    folder = (out or running.default_folder(loaded.name)).resolve()
    typer.echo(f"{loaded.name}, everything goes to {folder}")
    request = run.Request(
        file=loaded,
        source=file,
        rules=rules,
        folder=folder,
        tracking=tracking or "",
        image=of,
        at_sites=evaluate_at_sites,
    )
    try:
        outcome = run.execute(request, typer.echo)
    except KeyboardInterrupt:
        typer.echo("interrupted: everything that was started has been stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None
    model, version = outcome.verdict["model"], outcome.verdict["version"]
    typer.echo(f"{model} version {version} {'is champion' if outcome.promoted else 'was refused'}")
    typer.echo(f"report: {folder / 'report.html'}; MLflow: {outcome.tracking}")
    if not outcome.promoted:
        raise typer.Exit(REFUSED)


app.command()(kfp.submit)
app.command()(kfp.schedule)
app.command()(kfp.unschedule)
app.command("list")(kfp.list_)
app.command()(kfp.register)
