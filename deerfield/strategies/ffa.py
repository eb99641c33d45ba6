"""FFA-LoRA (Sun et al. 2024, arXiv:2403.12313): A stays at its random start, so averaging B is exact."""

from dataclasses import replace

from deerfield.runspec import RunSpec
from deerfield.strategies.fedavg import fedavg
from deerfield.strategy import Strategy
from deerfield.types import State, Task


def ffa(spec: RunSpec) -> Strategy:
    """Freezes A for ever, trains and averages B: exact, half the bytes, but a fixed row space."""
    base = fedavg(spec)

    def plan(state: State, site: str) -> Task:
        return replace(base.plan(state, site), factors="B")

    sends = "the noised change of B and the head"
    declares = replace(base.declares, sends=sends, phases=("B",), lr_adapter=0.8, robust=True)
    return replace(base, declares=declares, plan=plan)
