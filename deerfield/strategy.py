"""A federated method is a frozen record of functions (after google/fedjax: an algorithm is a value)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import PolicyRefused
from deerfield.runspec import RunSpec
from deerfield.tensors import Factors, Shapes, Tensors, Wide
from deerfield.types import State, Task, Unit, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What one call of `Trainer.fit` did; `loss` is private and stays at the site unless its policy says otherwise."""

    steps: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A model's answers on a split: `probabilities` (n, labels), each row sums to 1, and `labels` (n,) as indices."""

    probabilities: Wide
    labels: NDArray[np.int64]


class Trainer(Protocol):
    """What a strategy may ask of a site's model: named PEFT adapters ("slots") and their heads on one frozen base.

    Implementers guarantee that `fit` moves exactly the named factors and the head of `slot`, that `read` after `load`
    returns the same bits, and that every step of `fit` goes through the run's privacy mechanism.
    """

    def load(self, tensors: Tensors, *, slot: str = "shared") -> None:
        """Overwrites the entries of `slot` that `tensors` names."""

    def read(self, *, slot: str = "shared", factors: Factors = "AB") -> Tensors:
        """The entries of `slot` that an exchange of `factors` trains."""
        ...

    def fit(self, *, epochs: int, slot: str = "shared", factors: Factors = "AB") -> FitReport:
        """Trains `factors` and the head of `slot` for `epochs` passes with a fresh optimizer."""
        ...

    def score(self, *, slot: str = "shared", split: str = "validation") -> Scores:
        """Predicts the `split` of the site's data with `slot`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What the rest of the system must know of a strategy without running it."""

    sends: str  # one line for people: what leaves a site
    rounds: int
    # local epochs of each exchange; with rounds and phases this fixes the steps that are paid for. 0: nothing is
    # trained, and all that a site gives is what its policy lets it report on each task's start tensors
    epochs: int
    phases: tuple[Factors, ...]  # the exchanges of one round
    units: frozenset[Unit]  # the privacy units under which the method has a formal guarantee
    lr_adapter: float  # the adapter's learning rate where the run file names none; measured at s = 1/32, epsilon > 1
    upload: Callable[[Task], Shapes]  # the schema of an update, from the public task alone
    streams: bool  # the aggregate is a linear sum: O(1) memory in the number of sites
    site_state: bool  # sites keep private state between rounds
    robust: bool = False  # `aggregate` does what federation.robust says, and coordinates of different sites compare
    topology: Literal["federated", "pooled"] = "federated"  # "pooled": one site holds all the data, simulation only
    # models that are there when the run starts, by name: the digest of a finished run's, or "", the drawn adapter
    models: Mapping[str, str] = field(default_factory=dict)


def check_task(declares: Declaration, task: Task) -> None:
    """Holds what an aggregator asks for against what the run was declared, and paid for, as.

    Raises:
        PolicyRefused: no round of the run has such a task.
    """
    known = task.round < declares.rounds and task.phase < len(declares.phases)
    if not known or (task.factors, task.epochs) != (declares.phases[task.phase], declares.epochs):
        phases = ", ".join(repr(factors) for factors in declares.phases)
        raise PolicyRefused(
            f"the task is round {task.round}, phase {task.phase} on {task.factors!r} for {task.epochs} epochs; the run "
            f"has rounds 0 to {declares.rounds - 1} with the phases {phases} of {declares.epochs} epochs each"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """The aggregator's and the sites' halves of a method, all free of I/O."""

    declares: Declaration
    # aggregator: the state before the first phase, from the drawn adapter, or from the declared models, `gathered`
    init: Callable[[Tensors], State]
    plan: Callable[[State, str], Task]  # aggregator: what this site does next; public, data-free
    train: Callable[[Trainer, Task], Tensors]  # site: a short script over the trainer; raw, never leaves
    release: Callable[[Tensors, Task], Tensors]  # site: what may leave
    aggregate: Callable[[State, Sequence[Update]], State]  # aggregator: pure, sorted by site, float64


def completed(spec: RunSpec, declares: Declaration) -> RunSpec:
    """The run with the learning rates that its strategy and its epsilon suggest, where it names none.

    Noise grows as epsilon shrinks and the clip fixes the signal, so small budgets want small steps; docs/benchmarks.md
    has the figures.
    """
    epsilon = spec.privacy.epsilon or inf
    rates = {
        "lr_adapter": spec.training.lr_adapter or declares.lr_adapter * (0.25 if epsilon <= 1 else 1.0),
        "lr_head": spec.training.lr_head or (0.2 if epsilon <= 1 else 0.5 if epsilon <= 3 else 0.8),
    }
    return spec.model_copy(update={"training": spec.training.model_copy(update=rates)})
