"""`deerfield ledger`: what a hospital's operator, and an auditor after them, ask of a site's ledgers."""

import re
from pathlib import Path
from typing import Annotated

import typer

from deerfield.errors import InvalidInput

FINDINGS = 1  # exit code: the ledger is not sound
app = typer.Typer(help="Reads, verifies, exports and reconciles the privacy ledgers of a site.", no_args_is_help=True)

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A site's state folder, a ledger's own folder, or an export (.json).")
]
Population = Annotated[str | None, typer.Option(help="Which ledger, where the state folder has several.")]


@app.command()
def show(
    folder: Folder,
    population: Population = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every entry.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the budget's burn-down to a .png or .svg file.")] = None,
    last: Annotated[int, typer.Option(min=0, help="Entries in the table; 0 shows all.")] = 40,
) -> None:
    """Shows what a population has spent and what is left. Exit code 1 if an entry is damaged."""
    from pipelines.ledger import ledgers, report

    checked = ledgers.check(ledgers.find(folder, population))
    if plot is not None:
        from pipelines.ledger import burndown

        burndown.draw(checked, plot)
    if not report.show(checked, as_json=as_json, last=last, plot=plot):
        raise typer.Exit(FINDINGS)


@app.command()
def verify(
    folder: Folder,
    population: Population = None,
    key: Annotated[str | None, typer.Option(metavar="HEX", help="What the site's public key must be.")] = None,
) -> None:
    """Checks a ledger offline: chain, signatures, every epsilon, stored updates. Exit code 1 if anything is wrong."""
    from pipelines.ledger import ledgers, report

    if key is not None and re.fullmatch(r"[0-9a-fA-F]{64}", key) is None:
        raise InvalidInput(f"--key is {key[:80]!r}; an Ed25519 public key is 64 hexadecimal digits")
    found = ledgers.find(folder, population)
    verified = ledgers.verified(found, key)
    for line in report.verdict(found, verified):
        typer.echo(line)
    if not verified.sound:
        raise typer.Exit(FINDINGS)


@app.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option(metavar="NAME", help="Writes NAME.json and NAME.html.")],
    population: Population = None,
    key: Annotated[str | None, typer.Option(metavar="HEX", help="What the site's public key must be.")] = None,
) -> None:
    """Writes a ledger for an auditor: one JSON file, and one HTML page that needs nothing else."""
    from pipelines.ledger import export, ledgers

    checked = ledgers.check(ledgers.find(folder, population), key)
    for path in export.write(checked, out):
        typer.echo(f"wrote {path}")
    if not checked.report.sound:
        typer.echo(f"the ledger is not sound: {len(checked.report.findings)} findings, and the export says so")
        raise typer.Exit(FINDINGS)


@app.command()
def reconcile(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's state folder.")],
    operator: Annotated[str, typer.Option(metavar="NAME", help="Who answers for it; stands in the ledger.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What happened; stands in the ledger.")],
    population: Population = None,
    record: Annotated[
        Path | None, typer.Option(help="The aggregator's record; default: the one that the site was shown last.")
    ] = None,
    unknown_cost: Annotated[
        bool, typer.Option("--unknown-cost", help="There is no record: charge an infinite epsilon, for ever.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Answers a ledger that is behind (LEDGER_BEHIND): charges what the aggregator has on record and it lacks."""
    from pipelines.ledger import reconciling

    asked = reconciling.Request(
        folder=folder,
        population=population,
        operator=operator,
        reason=reason,
        record=record,
        unknown_cost=unknown_cost,
    )
    due = reconciling.due(asked)
    typer.echo(due.told)
    if not yes:
        typer.confirm("Write this entry? It cannot be taken back.", abort=True)
    typer.echo(reconciling.write(due))
