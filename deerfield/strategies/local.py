"""No exchange: what each site reaches alone, the floor that a federation must beat."""

from collections.abc import Sequence
from dataclasses import replace

from deerfield.runspec import RunSpec
from deerfield.strategies.fedavg import fedavg, in_order, moved
from deerfield.strategy import Strategy
from deerfield.types import State, Task, Update


def local(spec: RunSpec) -> Strategy:
    """Trains a model at each site and mixes nothing: as many local epochs, in one go."""
    base = fedavg(spec)
    epochs = spec.rounds * spec.epochs

    def plan(state: State, site: str) -> Task:
        return replace(base.plan(state, site), epochs=epochs)

    def aggregate(state: State, updates: Sequence[Update]) -> State:
        personal = {update.site: moved(state.shared, [update], [1.0]) for update in in_order(state, updates)}
        return replace(state, round=state.round + 1, personal=personal)

    sends = "the noised change of A, B and the head, once, for evaluation; nothing is mixed"
    units = base.declares.units - {"site"}  # nothing is summed that could hide a site
    declares = replace(base.declares, sends=sends, rounds=1, epochs=epochs, units=units, streams=False)
    return replace(base, declares=declares, plan=plan, aggregate=aggregate)
