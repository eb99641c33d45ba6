"""The options of commands that ask a running aggregator, and exit codes; imports nothing that takes time."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deerfield.wire.handshake import Way

Address = Annotated[
    str, typer.Option(metavar="HOST:PORT", envvar="DEERFIELD_AGGREGATOR", help="The aggregator's data port.")
]
Certificate = Annotated[
    Path | None, typer.Option(envvar="DEERFIELD_TLS_CERTIFICATE", help="PEM file of your own certificate.")
]
Key = Annotated[Path | None, typer.Option(envvar="DEERFIELD_TLS_KEY", help="PEM file of its private key.")]
Ca = Annotated[
    Path | None, typer.Option(envvar="DEERFIELD_TLS_CA", help="PEM file of the CA that the aggregator is checked by.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """A person's certificate, for a parameter of a `grouped` command."""

    tls_certificate: Certificate = None
    tls_key: Key = None
    tls_ca: Ca = None

    def way(self, aggregator: str) -> "Way":
        """To an aggregator by this certificate; raises InvalidInput as `target` does."""
        from pipelines.runs.operator_link import target

        return target(aggregator, self.tls_certificate, self.tls_key, self.tls_ca)
