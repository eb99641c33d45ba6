"""How a task runs in an image: it checks who compiled it, and fails with a sentence instead of a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deerfield import __version__
from deerfield.errors import DeerfieldError, InvalidInput

EXIT_CODE = "DEERFIELD_EXIT_CODE"  # names a file for the exit code of the first task that fails: kfp.local tells none


@contextmanager
def step(compiled_by: str) -> Iterator[None]:
    """Runs a task's work; an error that deerfield can name is one line on stderr and its exit code.

    Raises:
        SystemExit: the work failed, or the pipeline was compiled by another version than this image holds.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # an error is our one sentence
    try:
        check_version(compiled_by)
        yield
    except DeerfieldError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if named := os.environ.get(EXIT_CODE):
            with suppress(FileExistsError), Path(named).open("x") as file:
                file.write(str(error.exit_code))
        raise SystemExit(error.exit_code) from None


def check_version(compiled_by: str) -> None:
    """Raises InvalidInput where the pipeline was compiled by another version of deerfield than this one."""
    if compiled_by != __version__:
        raise InvalidInput(
            f"the pipeline was compiled by deerfield {compiled_by or '(unknown)'}, this image is {__version__}; "
            "compile and upload it again with this version, or let it run in an image of that one"
        )


def say(line: str) -> None:
    """A line of a task's log, there at once."""
    print(line, flush=True)
