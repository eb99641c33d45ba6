"""`deerfield audit-log`: what a consortium's auditor asks of the aggregator's audit log."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from deerfield.errors import InvalidInput
from pipelines.processes.children import failure
from pipelines.processes.site_process import scratch

DAMAGED = 1  # exit code of verify
app = typer.Typer(
    help="Reads the aggregator's audit log, while it runs or not, and verifies its chain.", no_args_is_help=True
)

WHERE = "The aggregator's database; docs/database.md."
Database = Annotated[str, typer.Option(metavar="URL", envvar="DEERFIELD_DATABASE", help=WHERE)]


@app.command()
def verify(
    database: Annotated[str, typer.Option(metavar="URL", envvar="DEERFIELD_DATABASE", help=WHERE)] = "",
    exported: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="What export printed, instead of a database.")
    ] = None,
    head: Annotated[
        str, typer.Option(metavar="HEAD", help="A head that was kept: SEQUENCE:HASH, its JSON, or a file with either.")
    ] = "",
    key: Annotated[str, typer.Option(metavar="HEX", help="What the aggregator's public key must be.")] = "",
) -> None:
    """Checks every entry, number, hash and signed head. Exit code 1 if anything is wrong."""
    if key and re.fullmatch(r"[0-9a-fA-F]{64}", key) is None:
        raise InvalidInput(f"--key is {key[:80]!r}; an Ed25519 public key is 64 hexadecimal digits")
    if not database and exported is None:
        raise InvalidInput("there is nothing to verify; name a --database or an --export")
    if damaged(database, "verify", f"--head={head}", f"--key={key.lower()}", f"--export={exported or ''}"):
        raise typer.Exit(DAMAGED)


@app.command()
def show(
    database: Database,
    last: Annotated[int, typer.Option(min=0, help="How many of the newest entries; 0 shows all.")] = 40,
    run: Annotated[str, typer.Option(help="Only what is about this run.")] = "",
) -> None:
    """Shows the newest entries, one line each: number, time, kind, what, who, run, detail."""
    damaged(database, "show", f"--last={last}", f"--run={run}")


@app.command()
def export(
    database: Database,
    after: Annotated[int, typer.Option(min=0, help="Only entries with a higher number.")] = 0,
) -> None:
    """Prints the log as lines of JSON: every field that was hashed, and the hash."""
    damaged(database, "export", f"--after={after}")


@app.command()
def head(
    database: Database,
    sign: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The aggregator's key file: signs the head with it.")
    ] = None,
) -> None:
    """Prints the newest number and hash, to be kept elsewhere: `verify --head` finds a log that was cut off since."""
    damaged(database, "head", f"--signing-key={sign or ''}")


def damaged(database: str, verb: str, *options: str) -> bool:
    """Has the aggregator's code do it and passes on what it prints; answers whether it found damage.

    Raises:
        InvalidInput, RunFailed: what the process ended with.
    """
    with scratch("audit-log") as folder:
        log = folder / "audit-log.log"
        with log.open("wb") as errors:
            # by the environment, because a URL may hold a password, and anybody may list processes' arguments
            command = [sys.executable, "-P", "-m", "services.aggregator.auditing.audit_log", verb, *options]
            environment = os.environ | {"DEERFIELD_DATABASE": database}
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True) as child:
                for line in child.stdout or ():
                    typer.echo(line, nl=False)
        code = cast(int, child.returncode)
        if code and not (code == DAMAGED and not log.stat().st_size):
            raise failure(code, log)
    return code == DAMAGED
