"""`deerfield pipelines`: compiles the pipelines of docs/pipelines.md, and tells a KFP server of them."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import kfp_commands

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
    from pipelines import compile_options, compiling

    if namespace is not None and not as_manifests:
        raise InvalidInput("--namespace is for --as-manifests: a compiled pipeline names none, its upload does")
    chosen = compile_options.load(options)
    for name in names or compiling.NAMES:
        text = compiling.compiled(name, chosen, namespace=namespace, manifests=as_manifests)
        path = out / f"{name}{'-manifests' * as_manifests}.yaml"
        typer.echo(f"{'wrote' if compiling.write(text, path) else 'unchanged:'} {path}")


app.command()(kfp_commands.submit)
app.command()(kfp_commands.schedule)
app.command()(kfp_commands.unschedule)
app.command("list")(kfp_commands.list_)
app.command()(kfp_commands.register)
