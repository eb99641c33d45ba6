"""FedAvg (McMahan et al. 2017, arXiv:1602.05629) over LoRA factors: FedIT (Zhang et al. 2023, arXiv:2305.05644).

The mean of the products is not the product of the means, and noise on both factors enters the layer as
xi_B A + B xi_A + xi_B xi_A.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deerfield.central import clipped
from deerfield.errors import RoundClosed, StaleBase
from deerfield.robust import combine_of, robustly_moved
from deerfield.runspec import RunSpec
from deerfield.strategy import Declaration, Strategy, Trainer
from deerfield.tensors import Shapes, Tensors, Wide, digest, plus_weighted, shapes, subtract, trained
from deerfield.types import State, Task, Update


def fedavg(spec: RunSpec) -> Strategy:
    """Trains A and B together and averages each: what everyone ships."""
    combine = combine_of(spec.federation)

    def plan(state: State, site: str) -> Task:
        return Task(round=state.round, phase=state.phase, factors="AB", epochs=spec.epochs, start=state.shared)

    def aggregate(state: State, updates: Sequence[Update]) -> State:
        updates = in_order(state, updates)
        shares = spec.shares([update.site for update in updates])
        shared = (
            moved(state.shared, updates, shares)
            if combine is None
            else robustly_moved(state.shared, [update.delta for update in updates], combine)
        )
        return replace(state, round=state.round + 1, shared=shared)

    def release(change: Tensors, task: Task) -> Tensors:
        """The change, whose every step DP-SGD clipped and noised; under unit site clipped as a whole."""
        return change if spec.privacy.unit != "site" else clipped(change, spec.privacy.clip or 0.0)

    declares = Declaration(
        sends="the noised change of A, B and the head",
        rounds=spec.rounds,
        epochs=spec.epochs,
        phases=("AB",),
        units=frozenset({"record", "patient", "site", "none"}),
        lr_adapter=0.05,  # noise on a raw A outgrows A itself at the rates that an orthonormal partner allows
        upload=upload,
        streams=combine is None,
        site_state=False,
    )
    return Strategy(declares=declares, init=init, plan=plan, train=train, release=release, aggregate=aggregate)


def init(adapter: Tensors) -> State:
    """The state before the first phase: everybody starts from the drawn adapter."""
    return State(round=0, phase=0, shared=adapter)


def train(trainer: Trainer, task: Task) -> Tensors:
    """What local training of the task's factors and the head added to its start."""
    trainer.load(task.start)
    trainer.fit(epochs=task.epochs, factors=task.factors)
    return subtract(trainer.read(factors=task.factors), task.start)


def upload(task: Task) -> Shapes:
    """The entries that the task trains."""
    return shapes(trained(task.start, task.factors))


def in_order(state: State, updates: Sequence[Update]) -> list[Update]:
    """The updates by site name, so that their sum does not depend on who came first.

    Raises:
        RoundClosed: an update of another round or phase.
        StaleBase: an update trained against other tensors than the state's.
    """
    base = digest(state.shared)
    for update in updates:
        if (update.round, update.phase) != (state.round, state.phase):
            raise RoundClosed(
                f"{update.site}: round {update.round} phase {update.phase} is not open, "
                f"round {state.round} phase {state.phase} is; ask NextTask"
            )
        if update.base != base:
            raise StaleBase(
                f"{update.site}: trained against {update.base[:12]}, the start is {base[:12]}; ask NextTask"
            )
    return sorted(updates, key=lambda update: update.site)


def moved(start: Tensors, updates: Sequence[Update], shares: Sequence[float]) -> Tensors:
    """`start` plus the weighted mean of the deltas; entries that no delta has stay the very same arrays.

    Sums in float64, one tensor at a time: a delta may be lazy.
    """

    def mean(name: str) -> Wide:
        terms = ((share, update.delta[name]) for share, update in zip(shares, updates, strict=True))
        return plus_weighted(np.zeros(start[name].shape), terms)

    names = set(updates[0].delta)
    return {name: (v + mean(name)).astype(np.float32) if name in names else v for name, v in start.items()}
