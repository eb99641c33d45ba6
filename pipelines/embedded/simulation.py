"""A whole federation inside one process: the very same coordinator, strategies, sites and noise, without sockets.

For comparisons over many runs, and for tests. It is the one module that holds both sides.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

from deerfield import keyfile
from deerfield.attestation import check_receipt, verify_head
from deerfield.errors import RunEnded, RunFailed
from deerfield.exchange import ENDINGS, Event, announce
from deerfield.link import Assignment
from deerfield.manifest import assemble, pieces
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.tensors import Tensors
from deerfield.types import Countersigned, Task, Update
from pipelines.runs.result import Result
from services.aggregator.assembly import Aggregator, assemble_aggregator
from services.aggregator.blobstore.blobs import MemoryBlobs
from services.aggregator.desk import Desk
from services.aggregator.rounds.recorder import Recorder, Untracked
from services.aggregator.sql.database import IN_MEMORY, open_database
from services.aggregator.sql.store import Store
from services.client.custody.custody import Custody
from services.client.policy import Policy
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

    def send(self, assignment: Assignment, update: Update) -> Countersigned:
        """Announces, puts what is missing, and commits."""
        intake, key, announcement = self.aggregator.intake, assignment.key, announce(update)
        missing = intake.begin(self.site, key, announcement)
        for sha, data in pieces(update.delta, announcement.manifest, missing):
            intake.put(missing, sha, data)
        return check_receipt(announcement.attestation, intake.commit(self.site, key, announcement.manifest.digest))

    def head(self, population: str) -> Countersigned | None:
        """The newest head of this site's ledger that the aggregator has countersigned."""
        record = self.aggregator.intake.head(self.site, population)
        if record is not None:
            verify_head(record, population)
        return record

    def decline(self, assignment: Assignment, reason: str, detail: str) -> None:
        """Refuses the task."""
        self.aggregator.coordinator.decline(self.site, assignment.key, reason, detail)

    def leave(self, run: str, detail: str) -> None:
        """Withdraws from the run."""
        self.aggregator.coordinator.leave(self.site, run, detail)

    def heartbeat(self, assignment: Assignment, steps_done: int, steps: int) -> bool:
        """Reports progress."""
        return self.aggregator.coordinator.heartbeat(self.site, assignment.key, steps_done, steps)


def simulate(
    spec: RunSpec, policies: Mapping[str, Policy], state: Path, build: Build, score: Score | None = None
) -> Result:
    """Runs `spec` to its end, one site after another; `score` evaluates what each phase publishes.

    `policies` are by site; their ledgers, keys and stored updates are below `state`, and stay there.

    Raises:
        DeerfieldError: whatever a site raises; a run that fails is a result in the state "failed".
    """
    aggregator = _in_memory(state)
    run = aggregator.runs.start(spec, request_id=uuid.uuid4().hex)
    result = Result(aggregator.runs.get(run).spec, run)
    with ExitStack() as stack:
        sites = [
            _site(
                name, LocalLink(aggregator, name, run), stack.enter_context(Custody(name, policy, state / name)), build
            )
            for name, policy in policies.items()
        ]
        return _follow(aggregator, run, result, sites, score)


def _site(name: str, link: LocalLink, custody: Custody, build: Build) -> Site:
    leaves = custody.policy.on_exhaustion == "leave"
    return Site(name=name, link=link, account=custody.account, build=partial(build, name), leaves=leaves, beats=False)


def _follow(aggregator: Aggregator, run: str, result: Result, sites: Sequence[Site], score: Score | None) -> Result:
    """Lets every site work in turn until the run has ended."""
    recorder, working = Recorder(aggregator.desk.store, Untracked(), time.time), list(sites)
    while True:
        worked = [_step(site, working) for site in tuple(working)]
        if not aggregator.coordinator.close_due() and not any(worked):
            raise RunFailed(f"run {run} waits for nobody: no site has a task and no phase is due")
        recorder.drain()
        for event in aggregator.runs.events(run, result.events):
            result.seen(event)
            if event.kind == "phase_published" and score is not None:
                _evaluate(aggregator, run, event, score)
            if event.kind in ENDINGS:
                return _last(result, aggregator, run)


def _step(site: Site, working: list[Site]) -> bool:
    try:
        return site.step()
    except RunEnded:  # the run is over, or the site has left it
        working.remove(site)
        return True


def _in_memory(state: Path) -> Aggregator:
    store = Store(open_database(IN_MEMORY))
    uploads, published, key = MemoryBlobs(), MemoryBlobs(), keyfile.load(state / keyfile.AGGREGATOR)
    desk = Desk(store=store, uploads=uploads, published=published, make=make, clock=time.time, key=key)
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
