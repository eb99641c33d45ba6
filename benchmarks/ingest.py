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
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.ingest_costs import Cost, each_waiting, fused_add, hashing, ingest, resident, tcp
from benchmarks.ingest_processes import aggregator, bare, certify
from services.aggregator.bounds import Bounds

ADMITTED_BYTES = 4 << 20  # of memory for each upload that is let in
ADMITTED = Bounds().uploads
PARTS = ("speed", "memory", "waiting")
GOALS = {"speed": 0.40, "cpu": 3.0, "memory": 1.05, "waiting": 25.0}


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
        ours = each_waiting(server.process, server.address, arguments.few, arguments.many)
    with bare() as (process, address):
        least = each_waiting(process, address, arguments.few, arguments.many)
    print(f"\n{arguments.many} sites wait in NextTask; an empty grpc.aio server with the same options: {least:.1f} KiB")
    _verdict("KiB each", ours, GOALS["waiting"])


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
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
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
