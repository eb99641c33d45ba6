"""How a person's command reaches a running aggregator: by their certificate, or in plaintext on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from deerfield.certificates import given_files
from deerfield.endpoint import read_target
from deerfield.errors import DeerfieldError, Unreachable
from deerfield.wire import proxy
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import RunsClient
from deerfield.wire.connection import open_runs
from deerfield.wire.handshake import Way


def target(address: str, certificate: Path | None, key: Path | None, ca: Path | None) -> Way:
    """What four options say, by the proxy that the environment names.

    Raises:
        InvalidInput: the address is none, or some of the files are given without the others.
    """
    read_target("--aggregator", address)
    files = given_files(certificate, key, ca)
    if files is None:
        return Way(address=address)
    return Way(address=address, files=files, proxy=proxy.choose(address, ""))


def say(cause: DeerfieldError, wait_s: float) -> None:
    """A line on stderr for why there is a pause: in the aggregator's own words, where it has answered."""
    why = "the aggregator does not answer" if type(cause) is Unreachable else str(cause)
    typer.echo(f"{why}; asking again in {wait_s:.0f} s", err=True)


PATIENCE = Backoff(patience_s=60.0, last_s=15.0, tell=say)


@contextmanager
def runs_of(where: Way, backoff: Backoff = PATIENCE) -> Iterator[RunsClient]:
    """A client of the aggregator's `Runs`, and a line on stderr for what will soon be wrong with the certificate."""
    with open_runs(where, lambda sentence: typer.echo(f"warning: {sentence}", err=True), backoff) as runs:
        yield runs
