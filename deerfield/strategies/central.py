"""All data in one place: what a federation gives up by not moving it. Simulation only."""

from dataclasses import replace

from deerfield.runspec import RunSpec
from deerfield.strategies.fedavg import fedavg
from deerfield.strategy import Strategy


def central(spec: RunSpec) -> Strategy:
    """Trains A and B on all sites' data pooled at one: the ceiling of a comparison, in simulation only."""
    base = fedavg(spec)
    return replace(base, declares=replace(base.declares, topology="pooled"))
