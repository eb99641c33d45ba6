"""The default learning rates, chosen on data that no table of docs/benchmarks.md scores.

    python -m benchmarks.learning_rates

Takes the slices that none of the tabled seeds holds out, about half of them, splits those anew under other seeds, and
prints the accuracy of every strategy at every rate. With half the data a step holds half the signal, so the noise is
halved too: a column says which epsilon of the table has the same ratio. `head` has one rate, and the others train their
head at the one it prefers.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.real_data import GRIDS, SHARED, STEPS, STRATEGIES, Cell, figures, in_process, level
from deerfield import partition
from deerfield.privacy import epsilon, noise_multiplier
from deerfield.runfile import RunFile
from deerfield.types import Spend

SEEDS = (10, 11, 12)  # none of the tables
SAMPLE_RATE, DELTA = 0.125, 1e-5
HEAD_RATES = (0.2, 0.35, 0.5, 0.8, 1.2)
ADAPTER_RATES = (0.0125, 0.05, 0.2, 0.8)


@dataclass(frozen=True, slots=True)
class Trial:
    """A cell on the slices for tuning, with its learning rates; `cell.epsilon` is that of the table it stands for."""

    cell: Cell
    lr_head: float
    lr_adapter: float | None  # None: head alone, which has no adapter

    @property
    def key(self) -> str:
        return f"{self.cell.key}/{self.lr_head}/{self.lr_adapter}"

    def run(self, folder: Path) -> RunFile:
        """The run file of the trial; the rows that it may read go into `folder`."""
        run, rows = self.cell.run(folder), folder / "tuning.npy"
        chosen, share = never_held_out(Path(run.embedded.source.path))
        np.save(rows, chosen)
        rates = {"lr_head": self.lr_head, "lr_adapter": self.lr_adapter or 1.0}
        privacy = {**run.privacy.model_dump(), "epsilon": self._epsilon(share)}
        source = run.embedded.source.model_copy(update={"rows": str(rows)})
        return RunFile.model_validate(
            {
                **run.model_dump(),
                "training": {**run.training.model_dump(), **rates},
                "privacy": privacy,
                "embedded": {**run.embedded.model_dump(), "source": source.model_dump()},
            }
        )

    def _epsilon(self, share: float) -> float | None:
        """What halving the noise with the data costs at the same number of steps."""
        if self.cell.epsilon is None:
            return None
        steps = round(STEPS[self.cell.data] / SAMPLE_RATE)
        z = noise_multiplier(self.cell.epsilon, DELTA, SAMPLE_RATE, steps)
        spend = Spend(unit="record", noise_multiplier=z * share, sample_rate=SAMPLE_RATE, clip=1.0, steps=steps)
        return epsilon([spend], DELTA)


def never_held_out(path: Path) -> tuple[np.ndarray[Any, np.dtype[np.int64]], float]:
    """The rows of `path` in no validation split of a tabled seed, and their share of all rows."""
    with np.load(path) as data:
        groups = data["group"]
    held = np.zeros(len(groups), dtype=np.bool_)
    for seed in GRIDS["brain-mri"]["seeds"]:
        held |= partition.held_out(groups, 0.2, key=f"validation/{seed}".encode())
    return np.flatnonzero(~held), float(np.mean(~held))


def trials(arguments: argparse.Namespace) -> Iterator[Trial]:
    """What was asked for, seed by seed, so that an early end leaves whole comparisons."""
    for seed in arguments.seeds:
        for target in arguments.epsilons:
            for strategy in arguments.strategies:
                cell = Cell("brain-mri", "iid", strategy, target, seed)
                for lr_head in arguments.head_rates:
                    for lr_adapter in (None,) if strategy == "head" else arguments.adapter_rates:
                        yield Trial(cell, lr_head, lr_adapter)


def show(done: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints mean and spread over the seeds, for each strategy and rate."""
    rows: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for trial in done.values():
        rate = trial["lr_adapter"] or 0.0
        target = trial["epsilon"] or inf
        rows.setdefault((target, trial["strategy"], trial["lr_head"], rate), []).append(trial)
    print("| as epsilon | strategy | lr_head | lr_adapter | accuracy | macro-F1 | deviation (max) | seeds |")
    print("|---|---|---|---|---|---|---|---|")
    for (target, strategy, lr_head, lr_adapter), found in sorted(rows.items()):
        accuracy, f1 = (statistics.fmean(one[name] for one in found) for name in ("accuracy", "f1"))
        spread = statistics.stdev(one["accuracy"] for one in found) if len(found) > 1 else 0.0
        deviations = [one["deviation"] for one in found if one["deviation"] is not None]
        deviation = f"{max(deviations):.1e}" if deviations else "–"
        print(
            f"| {target:g} | {strategy} | {lr_head} | {lr_adapter or '–'} | {accuracy:.3f} ± {spread:.3f} | {f1:.3f} "
            f"| {deviation} | {len(found)} |"
        )


def main() -> None:
    """Runs the trials that are not in --trials yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=Path, default=Path("runs/learning-rates.json"))
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--epsilons", type=level, nargs="*", default=(1.0, 3.0, 8.0, None))
    parser.add_argument("--strategies", nargs="*", choices=sorted(STRATEGIES), default=sorted(STRATEGIES))
    parser.add_argument("--head-rates", type=float, nargs="*", default=HEAD_RATES)
    parser.add_argument("--adapter-rates", type=float, nargs="*", default=ADAPTER_RATES)
    arguments = parser.parse_args()
    if not SHARED.exists():
        sys.exit(f"skipped: the data is not here ({SHARED} does not exist)")
    torch.set_num_threads(1)
    done: dict[str, Any] = json.loads(arguments.trials.read_text()) if arguments.trials.exists() else {}
    for trial in trials(arguments):
        if trial.key in done:
            continue
        with tempfile.TemporaryDirectory(prefix="deerfield-tuning-") as folder:
            result = in_process(trial.run(Path(folder)), Path(folder))
        rates = {"lr_head": trial.lr_head, "lr_adapter": trial.lr_adapter}
        done[trial.key] = {**asdict(trial.cell), **rates, **figures(result, 0.0)}
        arguments.trials.parent.mkdir(parents=True, exist_ok=True)
        arguments.trials.write_text(json.dumps(done, indent=1))
        print(f"{trial.key}: {done[trial.key]['accuracy']:.3f}", file=sys.stderr)
    show(done)


if __name__ == "__main__":
    main()
