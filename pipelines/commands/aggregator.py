"""`deerfield aggregator`: what the operator of an aggregator does beside its runs. docs/operations.md says when."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from deerfield.errors import InvalidInput
from pipelines.commands.operator_options import Address, AsJson, Tls
from pipelines.commands.option_groups import grouped

app = typer.Typer(
    help="Backs an aggregator up, restores it, migrates its database, prints its key, and pins a site's new one. "
    "`python -m services.aggregator` starts one; docs/operations.md shows how.",
    no_args_is_help=True,
)

Database = Annotated[str, typer.Option(metavar="URL", envvar="DEERFIELD_DATABASE", help="The aggregator's --database.")]
Blobs = Annotated[str, typer.Option(metavar="WHERE", envvar="DEERFIELD_BLOBS", help="The aggregator's --blobs.")]


@app.command()
def backup(
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="A new file; nothing is overwritten.")],
    database: Database,
    blobs: Blobs,
    as_json: AsJson = False,
) -> None:
    """Writes everything but secrets to one file, also while the aggregator runs, which neither waits nor stops."""
    from pipelines.processes import maintenance

    done = maintenance.run("backup", [str(out), "--blobs", blobs], database)
    typer.echo(json.dumps(done, indent=2) if as_json else "\n".join(maintenance.told_backup(done)))


@app.command()
def restore(
    archive: Annotated[Path, typer.Argument(metavar="BACKUP.zip", help="A file of deerfield aggregator backup.")],
    database: Annotated[str, typer.Option(metavar="URL", envvar="DEERFIELD_DATABASE", help="An empty database.")],
    blobs: Annotated[str, typer.Option(metavar="WHERE", envvar="DEERFIELD_BLOBS", help="Where its tensors go.")],
    tls_certificate: Annotated[Path, typer.Option(envvar="DEERFIELD_TLS_CERTIFICATE", help="An operator's (PEM).")],
    tls_key: Annotated[Path, typer.Option(envvar="DEERFIELD_TLS_KEY", help="Its private key (PEM).")],
    tls_ca: Annotated[Path, typer.Option(envvar="DEERFIELD_TLS_CA", help="The federation's CA (PEM).")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fills an empty database from a backup. Runs that were not over go on, and cost their sites' budgets anew."""
    from pipelines.processes import maintenance

    if not yes:
        typer.confirm(
            "Every run in the backup that is not over goes on from there, and is charged again, whole, at each of its "
            "sites. Is the old aggregator gone for good?",
            abort=True,
        )
    files = ["--tls-certificate", str(tls_certificate), "--tls-key", str(tls_key), "--tls-ca", str(tls_ca)]
    done = maintenance.run("restore", [str(archive), "--blobs", blobs, *files], database)
    typer.echo(json.dumps(done, indent=2) if as_json else "\n".join(maintenance.told_restore(done)))


@app.command()
def migrate(
    database: Database,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Brings the database of an earlier version to the tables of this one. No aggregator may be using it."""
    from pipelines.processes import maintenance

    if not yes:
        typer.confirm(
            "The earlier version cannot use the database afterwards, and only a backup that it has made leads back. "
            "Is there one?",
            abort=True,
        )
    done = maintenance.run("migrate", [], database)
    typer.echo(json.dumps(done, indent=2) if as_json else "\n".join(maintenance.told_migrate(done)))


@app.command()
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The aggregator's --key, on its own machine.")],
) -> None:
    """Prints the public key that the aggregator signs with, for the gate's rules and for proofs."""
    from deerfield import keyfile
    from deerfield.attestation import public_key

    if not file.is_file():
        raise InvalidInput(f"there is no signing key {file}; the aggregator makes it at its first start")
    typer.echo(public_key(keyfile.load(file)))


@app.command()
@grouped
def repin(
    site: Annotated[str, typer.Argument(metavar="SITE", help="The site that has lost its site.key.")],
    key: Annotated[str, typer.Option(metavar="HEX", help="The new public key, which the site reads to you.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What happened; stands in the runs' events.")],
    aggregator: Address,
    tls: Tls,
    as_json: AsJson = False,
) -> None:
    """Lets a site sign with another key from now on. What its ledgers have spent stays spent."""
    from pipelines.runs.operator_link import runs_of

    if re.fullmatch(r"[0-9a-fA-F]{64}", key) is None:
        raise InvalidInput(f"--key is {key[:80]!r}; an Ed25519 public key is 64 hexadecimal digits")
    if not reason.strip():
        raise InvalidInput("--reason is empty; say in a few words what happened, it stands in the runs' events")
    with runs_of(tls.way(aggregator)) as runs:
        before = runs.repin(site, key.lower(), reason)
    if as_json:
        typer.echo(json.dumps({"site": site, "before": before or None, "public_key": key.lower()}, indent=2))
    else:
        typer.echo(f"{site} signs with {key.lower()} from now on; before: {before or 'none was known'}")
