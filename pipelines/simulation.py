"""A whole federation inside one process: the very same coordinator, strategies, sites and noise, without sockets.

For comparisons over many runs, and for tests. It is the one module that holds both sides.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf

from deerfield.errors import RunEnded, RunFailed
from deerfield.exchange import ENDINGS, Announcement, Event
from deerfield.link import Assignment
from deerfield.manifest import assemble, describe, pieces
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.tensors import Tensors
from deerfield.types import Task, Update
from pipelines.result import Result
from services.aggregator.assembly import Aggregator, assemble_aggregator
from services.aggregator.blobs import MemoryBlobs
from services.aggregator.desk import Desk
from services.aggregator.recorder import Recorder, Untracked
from services.aggregator.store import IN_MEMORY, Store, open_database
from services.client.site import Site, Workbench

Build = Callable[[str, RunSpec], Workbench]  # (site, run) -> its model and data
Score = Callable[[Tensors], Mapping[str, float]]


@dataclass(frozen=True)
class LocalLink:
    """`deerfield.link.Link` by calling the aggregator's parts."""

    aggregator: Aggregator
    site: str
    run: str

    def next_task(self) -> Assignment | None:
        """As `Link` says, without waiting."""
        offer = self.aggregator.coordinator.next_task(self.site, self.run)
        if offer is None:
            return None
        key, start = offer.key, assemble(offer.start, self.aggregator.desk.published.get)
        task = Task(round=key.round, phase=key.phase, factors=offer.factors, epochs=offer.epochs, start=start)
        return Assignment(run=key.run, incarnation=key.incarnation, spec=offer.spec, task=task, base=offer.start.digest)

    def send(self, assignment: Assignment, update: Update) -> None:
        """Announces, puts what is missing, and commits."""
        intake, key, manifest = self.aggregator.intake, assignment.key, describe(update.delta)
        announcement = Announcement(manifest=manifest, base=update.base, spend=update.spend, metrics=update.metrics)
        missing = intake.begin(self.site, key, announcement)
        for sha, data in pieces(update.delta, manifest, missing):
            intake.put(missing, sha, data)
        intake.commit(self.site, key, manifest.digest)

    def decline(self, assignment: Assignment, reason: str, detail: str) -> None:
        """Refuses the task."""
        self.aggregator.coordinator.decline(self.site, assignment.key, reason, detail)

    def heartbeat(self, assignment: Assignment, steps_done: int, steps: int) -> bool:
        """Reports progress."""
        return self.aggregator.coordinator.heartbeat(self.site, assignment.key, steps_done, steps)


def simulate(spec: RunSpec, build: Build, score: Score | None = None) -> Result:
    """Runs `spec` to its end, one site after another; `score` evaluates what each phase publishes.

    Raises:
        DeerfieldError: whatever a site raises; a run that fails is a result in the state "failed".
    """
    aggregator = _in_memory()
    run = aggregator.runs.start(spec, request_id="simulation")
    result = Result(aggregator.runs.get(run).spec, run)
    sites = [
        Site(name=name, link=LocalLink(aggregator, name, run), build=partial(build, name), beats=False)
        for name in spec.federation.sites
    ]
    recorder = Recorder(aggregator.desk.store, Untracked(), time.time)
    while True:
        worked = [_step(site) for site in sites]
        if not aggregator.coordinator.close_due() and not any(worked):
            raise RunFailed(f"run {run} waits for nobody: no site has a task and no phase is due")
        recorder.drain()
        for event in aggregator.runs.events(run, result.events):
            result.seen(event)
            if event.kind == "phase_published" and score is not None:
                _evaluate(aggregator, run, event, score)
            if event.kind in ENDINGS:
                return _last(result, aggregator, run)


def _step(site: Site) -> bool:
    try:
        return site.step()
    except RunEnded:
        return True


def _in_memory() -> Aggregator:
    store = Store(open_database(IN_MEMORY))
    desk = Desk(store=store, uploads=MemoryBlobs(), published=MemoryBlobs(), make=make, clock=time.time)
    return assemble_aggregator(desk, lost_after_s=inf)  # a site that waits for its turn is silent, not lost


def _evaluate(aggregator: Aggregator, run: str, event: Event, score: Score) -> None:
    """Scores the published adapter, or the mean over the sites' own where the strategy personalises."""
    view = aggregator.runs.get(run)
    models = list(view.personal.values()) or [view.model]
    scores = [score(assemble(model, aggregator.desk.published.get)) for model in models]
    mean = {name: sum(each[name] for each in scores) / len(scores) for name in scores[0]}
    aggregator.runs.evaluated(run, event.detail["round"], event.detail["phase"], mean)


def _last(result: Result, aggregator: Aggregator, run: str) -> Result:
    for event in aggregator.runs.events(run, result.events):
        result.seen(event)
    return result
