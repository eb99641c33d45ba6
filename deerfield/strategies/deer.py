"""DEeR (Zhu et al. 2024, arXiv:2410.12926): train one factor at a time, and noise the product, not the factor.

One round is two exchanges: B on a frozen A, averaged, then A on that frozen B. With one factor equal everywhere the
mean of the products is the product of the means. The paper's noise regulator is the gauge of `deerfield.gauge` here;
its own form clips in one space and noises in another, and its epsilon is no guarantee.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from deerfield.gauge import regauge
from deerfield.runspec import RunSpec
from deerfield.strategies.fedavg import fedavg
from deerfield.strategy import Strategy
from deerfield.tensors import Tensors
from deerfield.types import State, Task, Update

PHASES: tuple[Literal["A", "B"], ...] = ("B", "A")  # B first: it starts at zero, and A learns nothing beside a zero B


def deer(spec: RunSpec, *, regulator: Literal["gauge", "off"] = "gauge") -> Strategy:
    """Trains B, then A, the other frozen and orthonormal: exact averages, evenly shaped noise, half the bytes."""
    base = fedavg(spec)

    def ready(state: State) -> State:
        """Every state is kept in the gauge of the phase that it opens: what is published is the next start."""
        gauged = regulator == "gauge"
        return replace(state, shared=regauge(state.shared, PHASES[state.phase])) if gauged else state

    def init(adapter: Tensors) -> State:
        return ready(base.init(adapter))

    def plan(state: State, site: str) -> Task:
        return replace(base.plan(state, site), factors=PHASES[state.phase])

    def aggregate(state: State, updates: Sequence[Update]) -> State:
        shared = base.aggregate(state, updates).shared
        rounds, phase = divmod(state.phase + 1, len(PHASES))
        return ready(replace(state, round=state.round + rounds, phase=phase, shared=shared))

    sends = "the noised change of B or A, in turn, and the head"
    rate = 0.8 if regulator == "gauge" else base.declares.lr_adapter  # an orthonormal partner keeps gradients in place
    declares = replace(base.declares, sends=sends, phases=PHASES, lr_adapter=rate, robust=True)
    return replace(base, declares=declares, init=init, plan=plan, aggregate=aggregate)
