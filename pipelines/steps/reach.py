"""How a task reaches the aggregator: by arguments first, else as the command line does, by the environment."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deerfield.errors import InvalidInput, NoRoom, Unreachable
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import RunsClient
from deerfield.wire.handshake import Way
from pipelines.runs.operator_link import runs_of, say, target

MOUNTED = Path("/etc/deerfield/tls")  # where a task's pod has the operator's certificate
FILES = {"DEERFIELD_TLS_CERTIFICATE": "tls.crt", "DEERFIELD_TLS_KEY": "tls.key", "DEERFIELD_TLS_CA": "ca.crt"}
MINUTE = Backoff(patience_s=60.0, last_s=15.0, tell=say)


def way(aggregator: str, environment: Mapping[str, str] = os.environ, mounted: Path = MOUNTED) -> Way:
    """Where the aggregator is, and by which files: those that the environment names, else those that are mounted.

    Raises:
        InvalidInput: nobody says where it is, or some of the files are there without the others.
    """
    address = aggregator or environment.get("DEERFIELD_AGGREGATOR", "")
    if not address:
        raise InvalidInput("aggregator is empty and DEERFIELD_AGGREGATOR is not set; name its data port, HOST:PORT")
    certificate, key, ca = (_file(environment.get(variable), mounted / name) for variable, name in FILES.items())
    return target(address, certificate, key, ca)


def _file(named: str | None, mounted: Path) -> Path | None:
    if named:
        return Path(named)
    return mounted if mounted.exists() else None


@contextmanager
def runs_at(aggregator: str, backoff: Backoff = MINUTE) -> Iterator[RunsClient]:
    """A client of the aggregator's `Runs`, for as long as the block runs.

    Raises:
        InvalidInput: as in `way`, or a certificate is of no use.
        Unreachable: it did not answer for as long as `backoff` is patient; the message says where and how long.
    """
    try:
        with runs_of(way(aggregator), backoff) as runs:
            yield runs
    except NoRoom:  # it has answered
        raise
    except Unreachable as error:
        raise Unreachable(f"{error}; tried for {backoff.patience_s:g} s") from error
