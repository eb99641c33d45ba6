"""Podman, answering as Docker does on a socket of the tests' own."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.local.containers import LABEL
from tests.integration.federation import wait_for

PROGRAMS = ("podman", "runc", "mmdebstrap", "setpriv")
INSTALL = "apt-get install -y podman runc netavark aardvark-dns catatonit mmdebstrap iptables nftables"
# runc, because crun refuses machines with both kinds of cgroups; limits that are no higher than this machine's own
CONF = """\
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
"""
STOP_S = 30.0


@dataclass(frozen=True)
class Engine:
    """A running service."""

    environment: Mapping[str, str]  # that finds it, as Docker's and as podman's
    socket: Path

    def left(self) -> list[str]:
        """The containers of pipelines that there are."""
        return self.podman("ps", "--all", "--quiet", f"--filter=label={LABEL}").split()

    def ended(self, folder: Path, since: float) -> list[str]:
        """The exit codes of the containers of the run in `folder`, in their order."""
        asked = ["--filter=event=died", f"--filter=label={LABEL}={folder}", "--format={{.ContainerExitCode}}"]
        return self.podman("events", "--stream=false", f"--since={int(since)}", *asked).split()

    def podman(self, *arguments: str) -> str:
        """What the command says."""
        here = os.environ | self.environment
        return subprocess.run(["podman", *arguments], env=here, capture_output=True, text=True, check=True).stdout


@contextmanager
def serving(folder: Path) -> Iterator[Engine]:
    """An engine; where there can be none the test is skipped, and says what to install."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or os.getuid():
        why = f"{', '.join(missing)} missing: {INSTALL}" if missing else "only root makes images here"
        pytest.skip(f"no pipeline ran in containers: {why}")
    conf, socket = folder / "containers.conf", folder / "podman.sock"
    conf.write_text(CONF)
    found = Engine({"CONTAINERS_CONF": str(conf), "DOCKER_HOST": f"unix://{socket}"}, socket)
    with (folder / "podman.log").open("wb") as log:
        argv = ["podman", "system", "service", "--time", "0", found.environment["DOCKER_HOST"]]
        process = subprocess.Popen(argv, env=os.environ | found.environment, stdout=log, stderr=log)
    try:
        wait_for(socket.exists)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)
