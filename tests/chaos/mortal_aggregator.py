"""`python -m tests.chaos.mortal_aggregator POINT FLAGS`: the real aggregator, which kills itself at a named point.

`POINT#2` is the second time that it is reached, `never` lets it live, and `record:FILE` writes down what is reached.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from services.aggregator.__main__ import main
from tests.integration.mortal import killing


def recording(path: Path) -> Callable[[str], None]:
    """Adds a line to a file for every point that is reached."""

    def reach(point: str) -> None:
        with path.open("a") as file:
            file.write(f"{point}\n")

    return reach


if __name__ == "__main__":
    what, *flags = sys.argv[1:]
    kind, _, file = what.partition(":")
    sys.exit(main(flags, recording(Path(file)) if kind == "record" else killing(what)))
