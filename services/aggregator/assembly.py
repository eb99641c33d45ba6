"""Builds the aggregator's parts over one desk: for `__main__`, for the in-process simulation and for tests."""

from dataclasses import dataclass

from services.aggregator.blobstore.collector import Collector
from services.aggregator.blobstore.retention import KEEP, Retention
from services.aggregator.bounds import Bounds
from services.aggregator.desk import Desk
from services.aggregator.rounds.coordinator import Coordinator
from services.aggregator.rounds.intake import Intake
from services.aggregator.rounds.patience import PATIENCE_S
from services.aggregator.rounds.roster import Roster
from services.aggregator.rounds.runs import Runs

DEFAULTS = Bounds()
LOST_AFTER_S = 60.0  # two long polls and a heartbeat
DRAIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregator:
    """The parts: `coordinator` and `intake` face the sites, `runs` the operator, `roster` both."""

    desk: Desk
    coordinator: Coordinator
    intake: Intake
    runs: Runs
    roster: Roster
    collector: Collector
    lost_after_s: float
    bounds: Bounds
    tracking_patience_s: float = PATIENCE_S  # how long a record waits for a tracking server that is away
    drain_s: float = DRAIN_S  # how long uploads that are under way may take once the server is to end


def assemble_aggregator(
    desk: Desk, lost_after_s: float = LOST_AFTER_S, retention: Retention = KEEP, bounds: Bounds = DEFAULTS
) -> Aggregator:
    """The aggregator, without a transport or a thread of its own."""
    return Aggregator(
        desk=desk,
        coordinator=Coordinator(desk, lost_after_s),
        intake=Intake(desk),
        runs=Runs(desk, bounds),
        roster=Roster(desk),
        collector=Collector(desk, retention),
        lost_after_s=lost_after_s,
        bounds=bounds,
    )
