"""Builds the aggregator's parts over one database: for `__main__`, for the in-process simulation and for tests."""

from collections.abc import Callable
from dataclasses import dataclass

from deerfield.runspec import RunSpec
from deerfield.strategy import Strategy
from services.aggregator.blobs import Blobs
from services.aggregator.coordinator import Coordinator
from services.aggregator.desk import Desk
from services.aggregator.intake import Intake
from services.aggregator.presence import Presence
from services.aggregator.runs import Runs
from services.aggregator.store import Store

LOST_AFTER_S = 60.0  # two long polls and a heartbeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregator:
    """The parts: `coordinator` and `intake` face the sites, `runs` the operator."""

    desk: Desk
    coordinator: Coordinator
    intake: Intake
    runs: Runs


def assemble_aggregator(
    *,
    store: Store,
    uploads: Blobs,
    published: Blobs,
    make: Callable[[RunSpec], Strategy],
    clock: Callable[[], float],
    lost_after_s: float = LOST_AFTER_S,
) -> Aggregator:
    """The aggregator, without a transport or a thread of its own."""
    desk = Desk(store=store, uploads=uploads, published=published, presence=Presence(), make=make, clock=clock)
    return Aggregator(desk=desk, coordinator=Coordinator(desk, lost_after_s), intake=Intake(desk), runs=Runs(desk))
