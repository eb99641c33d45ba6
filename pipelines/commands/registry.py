"""`deerfield promote`, `deerfield rollback` and `deerfield models`: the registry, as an engineer of the hub uses it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.operator_options import Address, AsJson, Tls
from pipelines.commands.option_groups import grouped

if TYPE_CHECKING:
    from deerfield.gate import Verdict
    from deerfield.promotion import Promotion
    from pipelines.registry.reader import RegistryReader

REFUSED = 3  # exit code: a rule is not kept
models = typer.Typer(help="Lists, shows and compares the versions of registered models.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name: that of its runs.")]
Tracking = Annotated[str, typer.Option(metavar="URI", envvar="MLFLOW_TRACKING_URI", help="MLflow's tracking URI.")]


@grouped
def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL[/VERSION]", help="Default: the version that is candidate.")],
    rules: Annotated[Path, typer.Option(metavar="FILE", help="The rules; docs/gate.md explains its keys.")],
    evaluation: Annotated[Path, typer.Option(metavar="FILE", help="The evaluation.json of this very version.")],
    *,
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The run's manifest, where it has kept none.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, and tell the aggregator nothing.")] = False,
    tracking: Tracking = "",
    aggregator: Address = "",
    tls: Tls,
    as_json: AsJson = False,
) -> None:
    """Makes a version the champion if it keeps every rule, else ends with exit code 3. Either verdict is kept."""
    from deerfield.documents import reading
    from deerfield.documents.partition_manifest import NAME as MANIFEST
    from deerfield.documents.partition_manifest import Manifest
    from deerfield.gate import judge, load_rules
    from pipelines.registry.collecting import Request, chosen, collect
    from pipelines.registry.reader import open_registry
    from pipelines.runs.operator_link import runs_of
    from pipelines.steps.gate import text

    where = None if dry_run else tls.way(aggregator)
    read, (name, _, version) = load_rules(rules), model.partition("/")
    request = Request(model=name, version=version, evaluation=evaluation, manifest=manifest)
    registry = open_registry(tracking)
    if where is not None and manifest is not None:
        with runs_of(where) as runs:
            content = reading.content(manifest, Manifest.WHAT)
            runs.attach(chosen(registry, name, version).run, MANIFEST, content)
    verdict, promotion = judge(read, collect(registry, read, request)), None
    if not as_json:
        _tell(verdict)
    if where is not None:
        with runs_of(where) as runs:
            promotion = runs.promote(name, verdict.version, verdict.expected_champion, text(verdict))
    _conclude(verdict, promotion, as_json)
    if not verdict.passed:
        raise typer.Exit(REFUSED)


@grouped
def rollback(
    model: Model,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; stands in the model's history.")],
    *,
    champion: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The champion that is to go; default: the one there is now.")
    ] = None,
    tracking: Tracking = "",
    aggregator: Address = "",
    tls: Tls,
    as_json: AsJson = False,
) -> None:
    """Gives a model the champion back that it had before."""
    from deerfield.errors import InvalidInput
    from pipelines.registry.reader import open_registry
    from pipelines.runs.operator_link import runs_of

    where = tls.way(aggregator)
    if champion is None:
        found = open_registry(tracking).champion(model)
        if found is None:
            raise InvalidInput(f"{model} has no champion, and so nothing to go back from")
        champion = found.version
    with runs_of(where) as runs:
        done = runs.rollback(model, champion, reason)
    _conclude(None, done, as_json)


@models.command("list")
def list_(tracking: Tracking = "", as_json: AsJson = False) -> None:
    """Shows every registered model, its champion and its candidate."""
    from rich.console import Console

    from pipelines.registry import report, view

    found = view.listed(_registry(tracking))
    if as_json:
        typer.echo(report.dumps([report.model_json(each) for each in found]))
    elif found:
        Console(highlight=False).print(report.list_table(found))
    else:
        typer.echo("no models yet")


@models.command()
def show(
    model: Model,
    tracking: Tracking = "",
    last: Annotated[int, typer.Option(min=0, help="The newest versions alone; 0 shows all.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Shows a model's versions: aliases, verdicts, metrics with intervals, and what each site spent."""
    from rich.console import Console

    from pipelines.registry import report, view

    found = view.shown(_registry(tracking), model, last)
    if as_json:
        typer.echo(report.dumps([report.judged_json(each) for each in found]))
        return
    Console(highlight=False).print(report.model_table(found))
    for line in report.model_lines(found):
        typer.echo(line)


@models.command()
def diff(
    model: Model,
    one: Annotated[str, typer.Argument(metavar="VERSION", help="A version.")],
    other: Annotated[str, typer.Argument(metavar="VERSION", help="Another one.")],
    tracking: Tracking = "",
    as_json: AsJson = False,
) -> None:
    """Shows in what two versions differ: run file, metrics, epsilon by site, digests."""
    from rich.console import Console

    from pipelines.registry import report, view

    registry = _registry(tracking)
    first, second = (view.judged(registry, registry.version(model, each)) for each in (one, other))
    found = view.differences(registry, first, second)
    if as_json:
        typer.echo(report.dumps([report.difference_json(each) for each in found]))
    elif found:
        Console(highlight=False).print(report.difference_table(first, second, found))
    else:
        typer.echo(f"versions {one} and {other} of {model} differ in nothing that the registry has")


def _registry(tracking: str) -> "RegistryReader":
    from pipelines.registry.reader import open_registry

    return open_registry(tracking)


def _tell(verdict: "Verdict") -> None:
    from rich.console import Console

    from pipelines.registry import report

    Console(highlight=False).print(report.verdict_table(verdict))


def _conclude(verdict: "Verdict | None", promotion: "Promotion | None", as_json: bool) -> None:
    """What became of it."""
    from dataclasses import asdict

    from pipelines.registry import report

    if as_json:
        told = asdict(promotion) if promotion is not None else None
        typer.echo(report.dumps(told if verdict is None else {"verdict": verdict.as_json(), "promotion": told}))
        return
    if verdict is not None and not verdict.passed:
        typer.echo(f"refused by {', '.join(row.rule for row in verdict.failed)}")
    if promotion is None:
        typer.echo("dry run: the aggregator was told nothing")
    elif promotion.champion == promotion.previous:
        stays = f"version {promotion.champion} stays the champion" if promotion.champion else "there is no champion yet"
        typer.echo(f"{promotion.model}: {stays}")
    else:
        before = f"before it was version {promotion.previous}" if promotion.previous else "the first one"
        typer.echo(f"{promotion.model}: version {promotion.champion} is the champion, {before}")
