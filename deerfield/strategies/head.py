"""The linear probe: the base model as it is, and a trained head. Compare with it always: it is often enough."""

from dataclasses import replace

import numpy as np

from deerfield.runspec import RunSpec
from deerfield.strategies.fedavg import fedavg
from deerfield.strategy import Strategy
from deerfield.tensors import Tensors, factor
from deerfield.types import State, Task


def head(spec: RunSpec) -> Strategy:
    """Keeps the adapter at zero, trains and averages the head alone: the cheapest private baseline."""
    base = fedavg(spec)

    def init(adapter: Tensors) -> State:
        return base.init({name: np.zeros_like(v) if factor(name) == "B" else v for name, v in adapter.items()})

    def plan(state: State, site: str) -> Task:
        return replace(base.plan(state, site), factors="")

    declares = replace(base.declares, sends="the noised change of the head", phases=("",), robust=True)
    return replace(base, declares=declares, init=init, plan=plan)
