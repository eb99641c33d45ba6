"""All data in one place: what a federation gives up by not moving it. Simulation only."""

from dataclasses import replace

from deerfield.runspec import RunSpec
from deerfield.strategies.fedavg import fedavg
from deerfield.strategy import Strategy


def central(spec: RunSpec) -> Strategy:
    """Trains A and B on all sites' data pooled at one: the ceiling of a comparison, in simulation only."""
    base = fedavg(spec)
    units = base.declares.units - {"site"}  # there is only one
    return replace(base, declares=replace(base.declares, units=units, topology="pooled"))
