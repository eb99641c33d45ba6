"""What `deerfield audit` finds: faults planted in a training that claims epsilon 1, and how often each is found.

    python -m benchmarks.audit_faults [--repetitions 12] [--faults NAME ...]

Tiny text model, one round of DEeR (16 steps, q = 1/8), delta 1e-6, 1000 canaries unless a row says otherwise. Coins,
samples and noise are the system's own and take no seed, so the figures differ a little from run to run. The row without
a fault has at least 20 repetitions. The tests of the audit and of the engine check plant their faults from here.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deerfield.plan import schedule
from deerfield.randomness import Randomness, SystemRandomness
from deerfield.strategies import make
from deerfield.strategy import completed
from deerfield.types import Spend, Task, Unit
from services.client.auditing.audit import Report, Request, examine
from services.client.training.dplora import Fused
from services.client.training.mechanism import Mechanism, clip_factors
from services.client.training.models import load
from services.client.training.trainer import TorchTrainer
from tests.unit.client import tiny

WIDE = {"rank": 12, "scale": 0.5, "targets": ("query", "key", "value", "dense")}  # 3000 coordinates in each factor
UNITS_LOW = 30
MANY = 1400  # canaries: nearly the most that the model has room for
SOUND, SOUND_REPETITIONS = "as claimed", 20  # at most 5 % of them may be found
APART = "each tensor clipped for itself"
ELSEWHERE = {APART: "the engine check finds it"}  # tests/unit/client/test_client_engine_check.py
DEFAULT = Request()

Noised = Callable[[int, int], NDArray[np.int64]]  # number of a step and of its coordinates n -> (n,) of 0 and 1


class World:
    """A tiny run that claims epsilon 1 for a round of DEeR, B then A, and a way to train it otherwise than claimed."""

    def __init__(self, folder: Path, unit: Unit = "record", noise: Randomness | None = None) -> None:
        privacy = {"unit": unit, "epsilon": 1.0, "sample_rate": 0.125}
        spec = tiny.spec("bert", lora=WIDE, privacy=privacy)
        self.classifier = load(folder, spec)
        spec = spec.model_copy(update={"adapter": self.classifier.schema(), "rounds": 1})
        self.spec = completed(spec, make(spec).declares)
        self.noise = noise or SystemRandomness()
        self.claim = schedule(self.spec, make(self.spec).declares)

    def build(self, _task: Task, spend: Spend) -> TorchTrainer:
        """The trainer of one phase, as `audit.Build` says."""
        mechanism = Mechanism(spend=spend, units_low=UNITS_LOW, sampling=SystemRandomness(), noise=self.noise)
        return tiny.trainer(self.classifier, "bert", self.spec, mechanism, each=2)

    def examine(self, request: Request = DEFAULT, **taken: Any) -> Report:
        """Audits a training whose steps differ from the claim by `taken`, entries of its `Spend`."""
        return examine(self.spec, self.build, claim=self.claim, taken=replace(self.claim, **taken), request=request)

    def sizes(self, step: int) -> list[int]:
        """Of the tensors that `step` trains."""
        factors = make(self.spec).declares.phases[step // self.spec.steps(1)]
        return [entry.numel() for entry in self.classifier.trained("shared", factors).values()]


class Partly:
    """The system's draws, without the noise of the coordinates for which `noised(step, n)`, (n,) of 0 and 1, has 0."""

    def __init__(self, noised: Noised) -> None:
        self.system, self.noised, self.steps = SystemRandomness(), noised, 0

    def uniform(self, n: int) -> NDArray[np.float64]:
        """As `Randomness` says."""
        return self.system.uniform(n)

    def normal(self, n: int) -> NDArray[np.float64]:
        """The noise of one step."""
        draws = self.system.normal(n) * self.noised(self.steps, n)
        self.steps += 1
        return draws


class Apart(Fused):
    """Clips every tensor for itself, so that all of them together are above the clip."""

    def _sums(self) -> list[Tensor]:
        each = [self._taken[name].flatten(1) for name in self._shapes]
        return [
            torch.mv(g.t(), clip_factors(torch.linalg.vector_norm(g, dim=1), self._clip)).view(shape)
            for g, shape in zip(each, self._shapes.values(), strict=True)
        ]


def in_steps(noised: Callable[[int], bool]) -> Noised:
    """Noise in those steps, counted from 0, that are `noised`."""
    return lambda step, n: np.full(n, int(noised(step)))


def on_tensors(world: World, noised: Callable[[int], bool]) -> Noised:
    """Noise on those tensors of each step, counted from 0, that are `noised`."""

    def coordinates(step: int, _n: int) -> NDArray[np.int64]:
        sizes = world.sizes(step)
        return np.repeat([int(noised(number)) for number in range(len(sizes))], sizes)

    return coordinates


def scaled(world: World, *, noise: float = 1.0, clip: float = 1.0, canaries: int | None = None) -> Report:
    """An audit of training with so many times the noise, and so many times the clip."""
    z, limit = world.claim.noise_multiplier * noise / clip, world.claim.clip * clip
    return world.examine(Request(canaries=canaries), noise_multiplier=z, clip=limit)


def partly(world: World, noised: Noised, request: Request = DEFAULT) -> Report:
    """An audit of training with noise on some coordinates alone."""
    world.noise = Partly(noised)
    return world.examine(request)


def apart(world: World) -> Report:
    """An audit of training with the clip of `Apart`; an audit makes its own engine, so the fault goes into that."""
    whole = Fused._sums
    Fused._sums = Apart._sums  # type: ignore[method-assign, assignment]
    try:
        return world.examine()
    finally:
        Fused._sums = whole  # type: ignore[method-assign]


FAULTS: Mapping[str, Callable[[World], Report]] = {
    SOUND: World.examine,
    "no noise": lambda world: scaled(world, noise=0),
    "a quarter of the noise": lambda world: scaled(world, noise=1 / 4),
    f"half of the noise, {MANY} canaries": lambda world: scaled(world, noise=1 / 2, canaries=MANY),
    "every unit in every step": lambda world: world.examine(sample_rate=1.0),
    "no clip": lambda world: scaled(world, clip=2**20),  # above every norm; infinity would take no noise
    "the clip twice as wide": lambda world: scaled(world, clip=2),
    APART: apart,
    "noise divided by the denominator twice": lambda world: scaled(
        world, noise=1 / (world.claim.sample_rate * UNITS_LOW)
    ),
    f"one step in 16 without noise, {MANY} canaries": lambda world: partly(
        world, in_steps(lambda step: step != 5), Request(canaries=MANY)
    ),
    "every other tensor without noise": lambda world: partly(world, on_tensors(world, lambda number: number % 2 == 1)),
    "one tensor of 20 without noise": lambda world: partly(world, on_tensors(world, lambda number: number > 0)),
}


def row(name: str, reports: Sequence[Report]) -> str:
    """One line of the table."""
    bounds = [report.bound for report in reports]
    low, middle, high = (f"{each:.2f}" for each in (min(bounds), statistics.median(bounds), max(bounds)))
    spread = middle if low == high else f"{middle} ({low} to {high})"
    found = f"{sum(report.violation for report in reports)} of {len(reports)}"
    return f"| {name} | {spread} | {'; '.join([found, *filter(None, [ELSEWHERE.get(name)])])} |"


def main() -> None:
    """Prints the table of docs/audit.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=12)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| the training, otherwise as claimed | bound, median (range) | found |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        saved = tiny.save("bert", Path(folder))
        for name in arguments.faults:
            least = SOUND_REPETITIONS if name == SOUND else 1
            reports = [FAULTS[name](World(saved)) for _ in range(max(arguments.repetitions, least))]
            print(row(name, reports), flush=True)


if __name__ == "__main__":
    main()
