"""Podman in the place of a cluster's node: whatever is made here carries one label, and is removed by it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:  # it imports torch, which the tests of this folder's pure half have no use for
    from tests import podman

KEY = "deerfield.e2e"
LIMIT_S = 120.0


@dataclass(frozen=True)
class State:
    """What podman says of a container."""

    running: bool
    code: int | None  # of one that has ended


@dataclass(frozen=True)
class Node:
    """Where containers run."""

    engine: "podman.Engine"
    label: str
    folder: Path  # what containers leave on this machine

    def podman(self, *arguments: str, limit_s: float = LIMIT_S, given: str | None = None) -> str:
        """What the command says, `given` that on stdin; one that fails is an AssertionError with its reason."""
        done = self.ask(*arguments, limit_s=limit_s, given=given)
        assert done.returncode == 0, f"podman {' '.join(arguments)[:3000]}: {done.stderr[-2000:]}"
        return done.stdout.strip()

    def ask(
        self, *arguments: str, limit_s: float = LIMIT_S, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The command's end, whatever it is."""
        argv, here = ["podman", *arguments], os.environ | self.engine.environment
        return subprocess.run(argv, env=here, input=given, capture_output=True, text=True, timeout=limit_s, check=False)

    def begin(self, out: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts the command; what it says goes to a file."""
        with out.open("wb") as file:
            here = os.environ | self.engine.environment
            return subprocess.Popen(["podman", *arguments], env=here, stdout=file, stderr=subprocess.STDOUT)

    def make(self, kind: str, *arguments: str) -> str:
        """Makes a pod, network or volume; answers what podman calls it."""
        return self.podman(kind, "create", f"--label={self.label}", *arguments)

    def volume(self, name: str) -> Path:
        """The folder of a volume, which is made if it is not there.

        Containers mount the folder and not the volume: podman would give the volume to the user of the first container,
        and hide that a chart asks for no fsGroup.
        """
        if self.ask("volume", "exists", name).returncode:
            self.make("volume", name)
        return Path(self.podman("volume", "inspect", "--format={{.Mountpoint}}", name))

    def states(self) -> dict[str, State]:
        """Every container, by name."""
        listed = json.loads(self.podman("ps", "--all", f"--filter=label={self.label}", "--format=json") or "[]")
        return {
            each["Names"][0]: State(each["State"] == "running", each["ExitCode"] if each["Exited"] else None)
            for each in listed
        }

    def remove(self) -> None:
        """Removes everything that has the label, in the order in which one thing holds another."""
        _remove(self)


@contextmanager
def labelled(engine: "podman.Engine", folder: Path) -> Iterator[Node]:
    """A node that is empty again after the block; what an earlier one left, whose process was killed, goes first."""
    for label in _orphaned(engine):
        _remove(Node(engine, label, folder))
    node = Node(engine, f"{KEY}={os.getpid()}-{int(psutil.Process().create_time())}", folder)
    try:
        yield node
    finally:
        node.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _remove(node: Node) -> None:
    chosen = f"--filter=label={node.label}"
    if pods := node.podman("pod", "ps", "--quiet", chosen).split():
        node.podman("pod", "rm", "--force", "--time=0", *pods)
    if containers := node.podman("ps", "--all", "--quiet", chosen).split():
        node.podman("rm", "--force", "--time=0", *containers)
    for kind in ("volume", "network"):
        if names := node.podman(kind, "ls", "--quiet", chosen).split():
            node.podman(kind, "rm", "--force", *names)


def _orphaned(engine: "podman.Engine") -> set[str]:
    listings = (("pod", "ps"), ("network", "ls"), ("volume", "ls"))
    told = "".join(engine.podman(*each, f"--filter=label={KEY}", "--format={{.Labels}}") for each in listings)
    return {f"{KEY}={owner}" for owner in re.findall(rf"{KEY}[:=]([0-9]+-[0-9]+)", told) if not _lives(owner)}


def _lives(owner: str) -> bool:
    pid, _, began = owner.partition("-")
    try:
        return int(psutil.Process(int(pid)).create_time()) == int(began)
    except psutil.NoSuchProcess:
        return False
