"""One `python -m services.client` process that serves one command, and the folder that such a command works in."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from deerfield.errors import DeerfieldError, RunFailed
from pipelines.processes.children import failure


@contextmanager
def scratch(verb: str) -> Iterator[Path]:
    """A folder that goes away, unless its logs are needed to tell what went wrong."""
    folder = Path(tempfile.mkdtemp(prefix=f"deerfield-{verb}-"))
    keeps = False
    try:
        yield folder
    except DeerfieldError as error:
        keeps = isinstance(error, RunFailed) or str(folder) in str(error)
        raise
    finally:
        if not keeps:
            rmtree(folder, ignore_errors=True)


def answer(verb: str, arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """The JSON object that `services.client VERB` prints; its log goes to the folder, which is a `scratch`.

    Raises:
        InvalidInput, RunFailed: what the process ended with.
    """
    said, error = ended(verb, arguments, folder)
    if error is not None:
        raise error
    found: dict[str, Any] = json.loads(said)
    return found


def ended(verb: str, arguments: Sequence[str], folder: Path) -> tuple[bytes, DeerfieldError | None]:
    """The last line that `services.client VERB` prints, empty if there is none, and the error that it ends with."""
    log = folder / f"{verb}.log"
    with log.open("wb") as errors:
        command = [sys.executable, "-P", "-m", "services.client", verb, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, check=False)
    lines = done.stdout.splitlines()
    return lines[-1] if lines else b"", failure(done.returncode, log) if done.returncode else None
