"""The health commands of the images: one question to what listens in the container, and an exit code."""

import sys
from collections.abc import Callable, Sequence

from deerfield.errors import DeerfieldError, InvalidInput

TIMEOUT_S = 5.0  # of the question


def probe(program: str, ask: Callable[[str], None], argv: Sequence[str]) -> int:
    """Asks once, at the HOST:PORT that is the only argument; answers the exit code.

    `ask` raises a DeerfieldError unless all is well there; its sentence is said.
    """
    try:
        if len(argv) != 1:
            raise InvalidInput(f"say where to ask: python -m {program} HOST:PORT")
        ask(argv[0])
    except DeerfieldError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
