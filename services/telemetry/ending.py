"""How a service ends of a fault: one line of its log, the termination message of its container, and an exit code."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from deerfield.errors import DeerfieldError

VARIABLE = "DEERFIELD_TERMINATION_LOG"
MESSAGE_BYTES = 4096  # the kubelet reads no more

log = structlog.get_logger()


def ended(error: DeerfieldError, form: str, environment: Mapping[str, str] = os.environ) -> int:
    """Says what the process ends of, and answers its exit code.

    `form` is what was asked of the log: `json` makes the sentence a line of the log, in anything else it is plain text
    for whoever started the process.
    """
    said = f"error: {error}"
    if place := environment.get(VARIABLE):
        _leave(Path(place), said)
    if form == "json":
        log.error(said, exit_code=error.exit_code)
    else:
        print(said, file=sys.stderr, flush=True)
    return error.exit_code


def _leave(place: Path, said: str) -> None:
    """Writes the termination message; one that cannot be written must not hide what it is about."""
    try:
        place.write_bytes(_fitting(said.encode()))
    except OSError as error:
        log.warning("no termination message", path=str(place), error=error.strerror)


def _fitting(message: bytes) -> bytes:
    """The message, cut between two characters to what is read of it."""
    return message if len(message) <= MESSAGE_BYTES else message[:MESSAGE_BYTES].decode(errors="ignore").encode()
