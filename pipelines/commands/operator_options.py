"""The options of commands that ask a running aggregator, and exit codes; imports nothing that takes time."""

from pathlib import Path
from typing import Annotated

import typer

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
