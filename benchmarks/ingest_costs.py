"""What `benchmarks.ingest` measures: moving bytes in three ways, adding and hashing them, and sites that wait."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil

from benchmarks.ingest_processes import Loads, Server, names
from deerfield.runspec import Federation, Model, Privacy, RunSpec

CHUNK_BYTES = 1 << 20


def resident(process: psutil.Process, field: str) -> int:
    """VmRSS or VmHWM of a process, in bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


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


def each_waiting(process: psutil.Process, address: str, few: int, many: int) -> float:
    """KiB of resident memory for each site that waits."""
    Loads(address, "wait", wait_ms=1000).start(names(few)).finish()
    before, already = resident(process, "VmRSS"), _connected(process, address)
    loads = Loads(address, "wait", wait_ms=25_000).start(names(many))
    end = time.monotonic() + 20
    while (connected := _connected(process, address) - already) < many and time.monotonic() < end:
        time.sleep(0.2)
    most = _most(lambda: resident(process, "VmRSS"), 5.0)
    loads.finish()
    if connected < many:
        raise SystemExit(f"{connected} of {many} sites connected in 20 s; the machine is too busy")
    return (most - before) / many / 1024


def _connected(process: psutil.Process, address: str) -> int:
    port = int(address.rpartition(":")[2])
    found = process.net_connections("tcp")
    return sum(1 for each in found if each.status == "ESTABLISHED" and each.laddr.port == port)


def _most(value: Callable[[], int], seconds: float) -> int:
    end, most = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        most = max(most, value())
        time.sleep(0.1)
    return most
