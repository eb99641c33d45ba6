"""What the self-test of every image begins with: as whom it runs, where it can write, and what it is made of.

docs/images.md has the commands. `python -m services.aggregator.selftest` and its like start with this.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path

from deerfield import __version__
from deerfield.errors import DeerfieldError, InvalidInput, Malfunction

SHARE = Path("/opt/deerfield/share")
BILL = SHARE / "sbom.cdx.json"
TRIAL = SHARE / "trial"
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "ld", "make")


def run(image: str, own: Callable[[], Iterable[str]]) -> int:
    """Checks the place, then what is the image's `own`; prints a line for each thing that holds, answers the exit code.

    `own` raises a DeerfieldError for what does not hold.
    """
    try:
        print(f"{image} {__version__}, Python {sys.version.split()[0]}")
        for line in (*place(), *listed(BILL)):
            print(f"ok: {line}", flush=True)
        for line in own():
            print(f"ok: {line}", flush=True)
    except DeerfieldError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def place() -> Iterator[str]:
    """Raises InvalidInput where the container is started otherwise than a cluster starts it."""
    if os.getuid() == 0:
        raise InvalidInput("the container runs as root; start it without --user, which is 10001")
    yield f"user {os.getuid()}"
    for folder in ("/", "/opt/deerfield", "/var/lib"):
        if not os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise InvalidInput(f"{folder} can be written to; start the container with --read-only --tmpfs /tmp")
    yield "the root is read-only"
    if found := [each for each in COMPILERS if shutil.which(each)]:
        raise Malfunction(f"there is {found[0]} in the image; build it on a base without a compiler")
    yield "no compiler"


def listed(bill: Path) -> Iterator[str]:
    """Raises Malfunction unless the SBOM in `bill` names exactly the packages that are installed."""
    try:
        components = json.loads(bill.read_text("utf-8"))["components"]
        told = {(_name(each["name"]), each["version"]) for each in components}
    except (OSError, ValueError, KeyError) as error:
        raise Malfunction(f"{bill} is no list of what the image is made of ({error}); build it anew") from None
    have = {(_name(each.name), each.version) for each in distributions()}
    if different := sorted(told ^ have):
        raise Malfunction(f"{bill} is not of this image: {' '.join(different[0])} is in one of them; build it anew")
    yield f"{len(have)} packages, as {bill} lists them"


def _name(text: str) -> str:
    return text.lower().replace("_", "-").replace(".", "-")
