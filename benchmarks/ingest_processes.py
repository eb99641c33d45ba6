"""What `benchmarks.ingest` starts: an aggregator, processes of sites, an empty server; and their certificates."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.ingest_load import files
from deerfield.certificates import load, utc_now
from deerfield.identity import Peer
from deerfield.wire.channel import connect, connect_tls
from deerfield.wire.client import RunsClient
from pipelines.pki import pki_authority, pki_request, pki_signing

MALLOC = {  # as docs/protocol.md has it for the containers
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
LOADS = 2  # processes of sites


@dataclass
class Server:
    """A running aggregator and its operator."""

    process: psutil.Process
    address: str
    runs: RunsClient
    certificates: str

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def aggregator(folder: Path, certificates: Path | None = None) -> Iterator[Server]:
    """An aggregator for as long as the block runs; its folder is gone afterwards."""
    command = [sys.executable, "-m", "services.aggregator", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"]
    command += ["--database", f"sqlite:///{folder / 'a.db'}", "--blobs", str(folder / "blobs"), "--while-stdin"]
    command += ["--lost-after", "3600"]  # sites that are ready say nothing here until all are
    if certificates:
        own = files(certificates, "aggregator")
        command += ["--tls-certificate", str(own.certificate), "--tls-key", str(own.key)]
        command += ["--tls-ca", str(own.authority)]
    folder.mkdir()
    with ExitStack() as stack, (folder / "log").open("w") as log:
        stack.callback(shutil.rmtree, folder)
        process = stack.enter_context(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=os.environ | MALLOC
            )
        )
        stack.callback(process.terminate)
        if process.stdout is None or not (line := process.stdout.readline()):
            raise SystemExit((folder / "log").read_text())
        address = json.loads(line)["listening"]
        if certificates:
            channel = connect_tls(address, load(files(certificates, "operator"), utc_now()))
        else:
            channel = connect(address, role="operator")
        runs = RunsClient(stack.enter_context(channel))
        try:
            yield Server(psutil.Process(process.pid), address, runs, str(certificates or ""))
        except BaseException:
            sys.stderr.writelines((folder / "log").read_text().splitlines(keepends=True)[-20:])
            raise


@dataclass
class Loads:
    """Processes of sites that do one kind of job."""

    address: str
    kind: str
    run: str = ""
    seed: int = 0
    wait_ms: int = 0
    certificates: str = ""
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, sites: Sequence[str]) -> "Loads":
        """Starts them, and waits until all are ready."""
        job = {"kind": self.kind, "address": self.address, "run": self.run, "seed": self.seed}
        job |= {"wait_ms": self.wait_ms, "certificates": self.certificates}
        for number in range(LOADS):
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.ingest_load"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.processes.append(process)
            self._tell(process, json.dumps({**job, "sites": sites[number::LOADS]}))
        self._all_say("ready")
        return self

    def send(self) -> None:
        """Lets them send, and waits until all are done."""
        for process in self.processes:
            self._tell(process, "go")
        self.finish()

    def finish(self) -> None:
        """Waits until all are done."""
        self._all_say("done")
        for process in self.processes:
            process.communicate()

    def _tell(self, process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()

    def _all_say(self, word: str) -> None:
        for process in self.processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != word:
                raise SystemExit("a process of sites failed")


def names(count: int) -> tuple[str, ...]:
    """Names of sites."""
    return tuple(f"site-{number}" for number in range(count))


@contextmanager
def bare() -> Iterator[tuple[psutil.Process, str]]:
    """A server whose NextTask waits and does nothing else."""
    command = [sys.executable, "-m", "benchmarks.ingest_load", "bare"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | MALLOC) as process:
        try:
            assert process.stdout is not None
            yield psutil.Process(process.pid), process.stdout.readline().strip()
        finally:
            process.terminate()


def certify(folder: Path, sites: int) -> Path:
    """Certificates for the aggregator, its operator and the sites."""
    folder.mkdir()
    now = utc_now()
    pki_authority.make(folder / "ca", "bench", now)
    ca = pki_authority.load(folder / "ca", now)
    owners = [Peer(federation="bench", role="aggregator"), Peer(federation="bench", role="operator", name="operator")]
    for peer in owners + [Peer(federation="bench", role="site", name=name) for name in names(sites)]:
        own = folder / (peer.name or "aggregator")
        made = pki_request.request(own, peer, ("127.0.0.1",) if peer.role == "aggregator" else ())
        pki_signing.sign(ca, pki_signing.read_wish(made.request, ca.federation), own / "tls.crt", 1, now)
    return folder
