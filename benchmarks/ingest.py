"""Speed, CPU and memory of the aggregator while sites send it updates, over what the same bytes cost without it.

    python -m benchmarks.ingest [--repetitions 3] [--sites 16] [--mib 32] [--folder DIR]

The aggregator is `python -m services.aggregator` with SQLite and blobs in a folder, the sites are other processes that
reach it over gRPC on loopback; every site has a connection of its own and sends different random numbers. The run has
strategy `head`, whose aggregate is the weighted mean and nothing else, and one round.

- upload + accumulate: from the moment when all updates are announced until the phase is published. Chunks are hashed,
  stored, synced to the disk, verified and sealed, added up in float64, and the new model is stored.
- TCP: one process sends as many bytes to another on loopback, which receives them into one buffer and does nothing.
- fused add: numpy adds the same bytes, as float32 chunk by chunk, to one array.
- memory: peak resident size (VmHWM) of an aggregator of its own, after `--few` and after `--many` sites have uploaded
  1 MiB each, all at once.
- waiting: growth of the resident size (VmRSS) while `--many` sites wait in NextTask, after `--few` have done so.

Time and CPU: medians over repetitions in which TCP, plaintext and TLS take turns. The aggregator has the malloc
settings of the containers.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil

from benchmarks.ingest_load import files
from deerfield.certificates import load, utc_now
from deerfield.identity import Peer
from deerfield.runspec import Federation, Model, Privacy, RunSpec
from deerfield.wire.channel import connect, connect_tls
from deerfield.wire.client import RunsClient
from pipelines import pki_authority, pki_request, pki_signing
from services.aggregator.bounds import Bounds

MALLOC = {  # as docs/protocol.md has it for the containers
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
ADMITTED_BYTES = 4 << 20  # of memory for each upload that is let in
ADMITTED = Bounds().uploads
CHUNK_BYTES = 1 << 20
LOADS = 2  # processes of sites
PARTS = ("speed", "memory", "waiting")
GOALS = {"speed": 0.40, "cpu": 3.0, "memory": 1.05, "waiting": 25.0}


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


def resident(process: psutil.Process, field: str) -> int:
    """VmRSS or VmHWM of a process, in bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


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


def started(server: Server, sites: int, mib: int, request: str) -> str:
    """A run of one round over `sites`, with updates of `mib` MiB in tensors of 4 MiB at most."""
    rows = min(mib, 4) * 128
    head = {f"head.{number}": (rows, 2048) for number in range(max(1, mib // 4))}
    spec = RunSpec(
        name="ingest",
        strategy="head",
        rounds=1,
        population="none",
        labels=("no", "yes"),
        model=Model.model_validate({"base": "none", "input": "text"}),
        privacy=Privacy(unit="none", clip=None),
        federation=Federation(sites=names(sites)),
        adapter=head,
    )
    return server.runs.start(spec, request)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of moving some bytes."""

    mb_s: float
    cpu_s_gb: float


def ingest(server: Server, sites: int, mib: int, seed: int) -> Cost:
    """Uploads of all sites at once, until the phase is published."""
    run = started(server, sites, mib, f"run {seed}")
    loads = Loads(server.address, "upload", run, seed, certificates=server.certificates).start(names(sites))
    began, cpu = time.perf_counter(), server.cpu_s()
    loads.send()
    for event in server.runs.watch(run):
        if event.kind == "run_finished":
            break
    size = sites * mib << 20
    return Cost(size / 1e6 / (time.perf_counter() - began), (server.cpu_s() - cpu) / size * 1e9)


def tcp(size: int) -> Cost:
    """As many bytes over a plain connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        code = (
            "import socket, sys; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); b = bytes(1 << 20)\n"
            "for _ in range(int(sys.argv[2]) >> 20): c.sendall(b)"
        )
        port = listening.getsockname()[1]
        with subprocess.Popen([sys.executable, "-c", code, str(port), str(size)]):
            connection, _ = listening.accept()
            with connection:
                began, cpu, buffer, left = time.perf_counter(), time.process_time(), bytearray(CHUNK_BYTES), size
                while left:
                    left -= connection.recv_into(buffer)
                return Cost(size / 1e6 / (time.perf_counter() - began), (time.process_time() - cpu) / size * 1e9)


def fused_add(size: int) -> float:
    """CPU seconds for a GB of float32 that numpy adds to one array, chunk by chunk."""
    total, chunk = np.zeros(CHUNK_BYTES // 4, np.float32), np.ones(CHUNK_BYTES // 4, np.float32)
    began = time.process_time()
    for _ in range(size // CHUNK_BYTES):
        np.add(total, chunk, out=total)
    return (time.process_time() - began) / size * 1e9


def hashing(size: int) -> float:
    """CPU seconds for one sha256 of a GB, chunk by chunk."""
    chunk, began = bytes(CHUNK_BYTES), time.process_time()
    for _ in range(size // CHUNK_BYTES):
        sha256(chunk).digest()
    return (time.process_time() - began) / size * 1e9


def speed(arguments: argparse.Namespace, place: Path, certificates: Path) -> None:
    """Prints the table of speed and CPU."""
    size = arguments.sites * arguments.mib << 20
    found: dict[str, list[Cost]] = {"TCP": [], "plaintext": [], "TLS": []}
    added, hashed = [], []
    for repetition in range(arguments.repetitions):
        found["TCP"].append(tcp(size))
        added.append(fused_add(size))
        hashed.append(hashing(size))
        for kind, secrets in (("plaintext", None), ("TLS", certificates)):
            with aggregator(place / "aggregator", secrets) as server:
                found[kind].append(ingest(server, arguments.sites, arguments.mib, 10_000 * repetition))
    what = f"{arguments.sites} sites x {arguments.mib} MiB"
    print(f"\n{what}, medians of {arguments.repetitions}\n{'':12}{'MB/s':>8}{'/ TCP':>8}{'CPU s/GB':>10}{'/ least':>9}")
    rate = {kind: statistics.median(cost.mb_s for cost in costs) for kind, costs in found.items()}
    cpu = {kind: statistics.median(cost.cpu_s_gb for cost in costs) for kind, costs in found.items()}
    least = cpu["TCP"] + statistics.median(added)
    for kind in found:
        ratios = f"{rate[kind] / rate['TCP']:8.3f}{cpu[kind]:10.2f}{cpu[kind] / least:9.1f}"
        print(f"{kind:12}{rate[kind]:8.0f}{ratios}")
    print(f"  least: TCP receive {cpu['TCP']:.3f} + fused add {statistics.median(added):.3f} CPU s/GB")
    once = statistics.median(hashed)
    print(f"  one sha256 pass: {once:.3f} CPU s/GB, {once / least:.1f} x the least")
    _verdict("upload + accumulate / TCP", rate["plaintext"] / rate["TCP"], GOALS["speed"], at_least=True)
    _verdict("CPU / least", cpu["plaintext"] / least, GOALS["cpu"])


def memory(arguments: argparse.Namespace, place: Path) -> None:
    """Prints what many sites cost that upload at once."""
    peak = {}
    for sites in (arguments.few, arguments.many):
        with aggregator(place / "aggregator") as server:
            ingest(server, sites, 1, 0)
            peak[sites] = resident(server.process, "VmHWM")
    beyond = (peak[arguments.many] - ADMITTED * ADMITTED_BYTES) / peak[arguments.few]
    shown = ", ".join(f"{sites} sites {size / 2**20:.1f} MiB" for sites, size in peak.items())
    print(f"\npeak memory of uploads at once: {shown}; {ADMITTED} admitted")
    _verdict(f"({arguments.many} sites - {ADMITTED} x 4 MiB) / {arguments.few} sites", beyond, GOALS["memory"])


def waiting(arguments: argparse.Namespace, place: Path) -> None:
    """Prints what many sites cost that wait for a task, and what they cost a server that does nothing else."""
    with aggregator(place / "aggregator") as server:
        ours = _each(server.process, server.address, arguments)
    with bare() as (process, address):
        least = _each(process, address, arguments)
    print(f"\n{arguments.many} sites wait in NextTask; an empty grpc.aio server with the same options: {least:.1f} KiB")
    _verdict("KiB each", ours, GOALS["waiting"])


def _each(process: psutil.Process, address: str, arguments: argparse.Namespace) -> float:
    """KiB of resident memory for each site that waits."""
    Loads(address, "wait", wait_ms=1000).start(names(arguments.few)).finish()
    before, already = resident(process, "VmRSS"), _connected(process, address)
    loads = Loads(address, "wait", wait_ms=25_000).start(names(arguments.many))
    end = time.monotonic() + 20
    while (connected := _connected(process, address) - already) < arguments.many and time.monotonic() < end:
        time.sleep(0.2)
    most = _most(lambda: resident(process, "VmRSS"), 5.0)
    loads.finish()
    if connected < arguments.many:
        raise SystemExit(f"{connected} of {arguments.many} sites connected in 20 s; the machine is too busy")
    return (most - before) / arguments.many / 1024


def _connected(process: psutil.Process, address: str) -> int:
    port = int(address.rpartition(":")[2])
    found = process.net_connections("tcp")
    return sum(1 for each in found if each.status == "ESTABLISHED" and each.laddr.port == port)


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


def _most(value: Callable[[], int], seconds: float) -> int:
    end, most = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        most = max(most, value())
        time.sleep(0.1)
    return most


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


def _verdict(what: str, value: float, goal: float, at_least: bool = False) -> None:
    met = value >= goal if at_least else value <= goal
    print(f"  {what} = {value:.3f}, goal {goal:g} at {'least' if at_least else 'most'}: {'met' if met else 'MISSED'}")
    sys.stdout.flush()


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--sites", type=int, default=16, help="that upload, for the speed")
    parser.add_argument("--mib", type=int, default=32, help="of each update, for the speed")
    parser.add_argument("--few", type=int, default=10, help="sites, for the memory")
    parser.add_argument("--many", type=int, default=1000, help="sites, for the memory")
    parser.add_argument("--folder", help="where the database and the blobs lie; /dev/shm: without a disk")
    parser.add_argument(
        "--only", choices=("speed", "memory", "waiting"), nargs="+", default=("speed", "memory", "waiting")
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        place = Path(folder)
        if "speed" in arguments.only:
            speed(arguments, place, certify(place / "certificates", arguments.sites))
        if "memory" in arguments.only:
            memory(arguments, place)
        if "waiting" in arguments.only:
            waiting(arguments, place)


if __name__ == "__main__":
    main()
