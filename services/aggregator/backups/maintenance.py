"""What `deerfield aggregator` does to a database: `python -m services.aggregator.backups.maintenance VERB`.

Backup, restore and migration. It answers JSON, and takes the database's URL from DEERFIELD_DATABASE alone.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deerfield.certificates import Files, load, utc_now
from deerfield.errors import DeerfieldError, InvalidInput
from services.aggregator.blobstore.bucket import open_blobs, read_place
from services.telemetry import logs


def main(argv: Sequence[str]) -> int:
    """Runs one command; answers its exit code."""
    arguments = _parser().parse_args(argv)
    logs.configure("", "aggregator", sys.stderr)  # what is logged must not stand in the answer
    try:
        print(json.dumps(arguments.command(arguments)), flush=True)
    except DeerfieldError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.aggregator.backups.maintenance", description=__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("migrate").set_defaults(command=_migrate)
    for name, command in (("backup", _backup), ("restore", _restore)):
        each = commands.add_parser(name)
        each.add_argument("archive", type=Path)
        each.add_argument("--blobs", required=True)
        each.set_defaults(command=command)
        if name == "restore":
            for flag in ("--tls-certificate", "--tls-key", "--tls-ca"):
                each.add_argument(flag, type=Path, required=True)
    return parser


def _backup(arguments: argparse.Namespace) -> dict[str, Any]:
    from services.aggregator.backups.backup import backup

    place = read_place(arguments.blobs)
    if isinstance(place, Path) and not place.is_dir():
        raise InvalidInput(f"--blobs {place} is no folder; name what the aggregator uses")
    _, published = open_blobs(place)
    return backup(arguments.archive, _database(), published)


def _restore(arguments: argparse.Namespace) -> dict[str, Any]:
    from services.aggregator.backups.restore import restore

    now = utc_now()
    files = Files(certificate=arguments.tls_certificate, key=arguments.tls_key, authority=arguments.tls_ca)
    return restore(arguments.archive, _database(), read_place(arguments.blobs), load(files, now), now)


def _migrate(_: argparse.Namespace) -> dict[str, Any]:
    from services.aggregator.backups.migration import migrate

    return migrate(_database())


def _database() -> str:
    """In the environment alone: it may hold a password, and arguments are for everybody to see."""
    return os.environ["DEERFIELD_DATABASE"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
