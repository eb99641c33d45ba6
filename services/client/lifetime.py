"""How a site's process begins and ends as a container: a file for its probe, and an end when it is told to."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deerfield.errors import InvalidInput

SIGNALLED = 128  # and the signal's number: the exit code


@contextmanager
def lifetime(ready: Path | None) -> Iterator[Callable[[], None]]:
    """Hands the block what makes the file `ready`, which is there no longer than the process is.

    SIGTERM ends the process at once, as a crash would: the next start goes on where it was. Without a handler the
    first process of a container would never hear it. Raises InvalidInput where the file cannot be made.
    """

    def end(number: int, frame: object) -> None:
        _remove(ready)
        os._exit(SIGNALLED + number)

    _remove(ready)  # of a process that was killed: its volume outlives it
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield lambda: _make(ready)
    finally:
        signal.signal(signal.SIGTERM, before)
        _remove(ready)


def _make(ready: Path | None) -> None:
    if ready is not None:
        try:
            ready.open("wb").close()
        except OSError as error:
            raise InvalidInput(f"--ready: {ready} cannot be made ({error.strerror}); name a file that can") from None


def _remove(ready: Path | None) -> None:
    if ready is not None:
        with suppress(OSError):
            ready.unlink()
