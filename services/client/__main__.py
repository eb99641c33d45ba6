"""`python -m services.client`: the composition root of everything that needs torch.

`site` answers tasks, `check` tries what it would start with;
`prepare` splits data and describes the model for an embedded run, `describe` the model alone;
`partition` writes each site's part of data that the hub owns;
`follow` scores every phase of a run on data that belongs to the consortium; `evaluate` scores one adapter folder,
`score` several, example by example;
`register`, `plan` and `reconcile` serve an operator between runs, without torch.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from deerfield.errors import DeerfieldError
from services.client.commands import between_runs, checking, preparing, scoring, taking_part
from services.telemetry import logs
from services.telemetry.ending import ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; answers its exit code. Errors that deerfield can name are one line on stderr."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines about a failed handshake name no cause; ours do
    try:
        logs.configure(arguments.log, "client", sys.stderr)
        arguments.command(arguments)
    except DeerfieldError as error:
        return ended(error, arguments.log)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.client", description=__doc__)
    form = "form of the log: json or console; empty: console on a terminal, else json [DEERFIELD_LOG]"
    parser.add_argument("--log", default=os.environ.get("DEERFIELD_LOG", ""), help=form)
    commands = parser.add_subparsers(required=True)
    for group in (taking_part, checking, preparing, scoring, between_runs):
        group.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
