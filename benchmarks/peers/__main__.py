"""Kills the server of a running federation and prints what became of the run: deerfield, Flower, NVIDIA FLARE.

`python -m benchmarks.peers` installs each released peer into an environment of its own below --environments. Each runs
the same task once undisturbed and once with its server killed (SIGKILL, with all its child processes) in the middle of
round two and started again over the same state; on loopback, one after the other.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import flower, nvflare, ours
from benchmarks.peers.trial import ROUNDS, Outcome

PEERS: dict[str, tuple[str, Callable[..., Outcome]]] = {
    "deerfield": ("", ours.run),
    "Flower": (flower.REQUIREMENT, flower.run),
    "NVIDIA FLARE": (nvflare.REQUIREMENT, nvflare.run),
}


def main() -> None:
    """Prints a row for each peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, default=Path(".venv-peers"))
    parser.add_argument("--patience", type=float, default=180.0, help="seconds to wait for a run to end")
    parser.add_argument("--only", choices=PEERS, action="append")
    given = parser.parse_args()
    print(f"| | undisturbed | server killed in round 2 of {ROUNDS} | rounds begun | seconds | same model |")
    print("|---|---|---|---|---|---|")
    for name in given.only or PEERS:
        requirement, run = PEERS[name]
        bin = _environment(given.environments.resolve(), requirement)
        plain, killed = (_trial(run, bin, kill, given.patience) for kill in (False, True))
        same = "yes" if killed.model and killed.model == plain.model else "no" if killed.model else "no model"
        title = f"{name} {requirement.partition('==')[2]}".strip()
        seconds = f"{plain.seconds:.0f} -> {killed.seconds:.0f}"
        rounds = f"{plain.rounds} -> {killed.rounds}"
        print(f"| {title} | {plain.state} | {killed.state} | {rounds} | {seconds} | {same} |", flush=True)


def _trial(run: Callable[..., Outcome], bin: Path, kill: bool, patience_s: float) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as folder:
        return run(bin, Path(folder), kill=kill, patience_s=patience_s)


def _environment(folder: Path, requirement: str) -> Path:
    """The programs of an environment that holds the released peer; ours is the one that runs this."""
    if not requirement:
        return Path(sys.executable).parent
    place = folder / requirement.replace("==", "-")
    if not (place / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([place / "bin" / "pip", "install", "--quiet", requirement, "numpy"], check=True)
        (place / "installed").touch()
    return place / "bin"


if __name__ == "__main__":
    main()
