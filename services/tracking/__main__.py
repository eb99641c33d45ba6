"""`python -m services.tracking`: the MLflow server of a cluster, by environment variables alone."""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from deerfield.errors import DeerfieldError
from services.databases import read_address
from services.telemetry import logs
from services.telemetry.ending import ended
from services.tracking.settings import PREFIX, PROGRAM, VARIABLES, read_settings

log = structlog.get_logger()


def main(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Becomes the server; returns the exit code where it cannot."""
    _parser().parse_args(argv)
    form = environment.get("DEERFIELD_LOG", "")
    try:
        logs.configure(form, "tracking", sys.stderr)
        start(environment)
    except DeerfieldError as error:
        return ended(error, form, environment)
    return 0


def start(environment: Mapping[str, str]) -> None:
    """Checks all that the server needs, then executes it in the place of this process."""
    settings = read_settings(environment)
    log.info("settings", values=settings.as_json())
    from services.tracking import database, server

    address = read_address(settings.database, program=PROGRAM)
    server.check_artifacts(settings.artifacts, environment)
    database.prepare(address, settings.account)
    log.info("database is up to date", where=address.where)
    folder = Path(tempfile.mkdtemp(prefix=f"{PROGRAM.name}-"))
    line, told = server.command(settings), server.environment_of(settings, address, folder, environment)
    os.execve(line[0], line, told)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, VARIABLES)) + len(PREFIX)
    rows = (f"  {PREFIX + name:{width}}  {told} (default: {default})" for name, (default, told) in VARIABLES.items())
    return argparse.ArgumentParser(
        prog="python -m services.tracking",
        description="Starts MLflow's server once its database is up to date. docs/images.md says more.",
        epilog="environment:\n" + "\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
