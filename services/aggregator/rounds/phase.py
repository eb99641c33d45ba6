"""The long and pure part of a phase: from sealed manifests to the next state, its tasks and its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial
from itertools import islice

import numpy as np

from deerfield.central import Mechanism, noise_key, noise_of, privatised
from deerfield.deviation import deviation
from deerfield.exchange import Key
from deerfield.manifest import Manifest, Stored, assemble, describe, pieces
from deerfield.plan import schedule
from deerfield.privacy import epsilon
from deerfield.runspec import RunSpec
from deerfield.strategy import Strategy
from deerfield.tensors import Shapes, Tensors, factor
from deerfield.types import Spend, State, Task, Update
from services.aggregator.blobstore.blobs import Blobs
from services.aggregator.sql.records import PhaseRow, StateRecord, TaskRow, UploadRow

CHUNKS_AT_ONCE = 16  # to be stored: more cost memory, fewer cost waits for the disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A state in the blob store, and what every site does from there; no tasks: the run has its last state."""

    state: StateRecord
    tasks: Sequence[TaskRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What came out of a phase."""

    next: Opening
    deviation: float | None  # None where the sites did not start from the same tensors, and where no mean is published
    epsilon: Mapping[str, float]  # of each site, over all that `budget.charged` counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """A phase that takes no more updates; `compute` may run on any thread, and a redo is bit-identical."""

    key: Key
    spec: RunSpec
    strategy: Strategy
    before: StateRecord
    tasks: Sequence[TaskRow]
    sealed: Sequence[UploadRow]  # by site
    noise_key: bytes | None = field(repr=False)  # secret; under unit site
    spends: Mapping[str, tuple[Spend, ...]]  # by site, of the run so far
    uploads: Blobs
    published: Blobs

    def compute(self) -> Closed:
        """Aggregates, in the order of the sites and in float64; an update is read tensor by tensor."""
        before, updates = self._state(), [self._update(row) for row in self.sealed]
        if self.spec.privacy.unit == "site":
            updates = [self._privatised(before, updates)]
        state = self.strategy.aggregate(before, updates)
        return Closed(
            next=open_phase(self.strategy, state, tuple(task.site for task in self.tasks), self.published),
            deviation=self._deviation(updates, state),
            epsilon={site: epsilon(spends, self.spec.privacy.delta) for site, spends in self.spends.items()},
        )

    def _state(self) -> State:
        return State(
            round=self.before.round,
            phase=self.before.phase,
            shared=assemble(self.before.shared, self.published.read),  # whose digest covers every chunk
            personal={site: assemble(own, self.published.read) for site, own in self.before.personal.items()},
        )

    def _update(self, row: UploadRow) -> Update:
        announcement = row.announcement
        return Update(
            site=row.site,
            round=self.key.round,
            phase=self.key.phase,
            base=announcement.base,
            delta=Stored(announcement.manifest, self.uploads.get),
            attestation=announcement.attestation,
            metrics=announcement.metrics,
        )

    def _privatised(self, before: State, updates: Sequence[Update]) -> Update:
        """What stands for all updates under unit site; nothing else that was made of them leaves here."""
        if self.noise_key is None:
            raise ValueError(f"phase {self.key} has no noise key, and its updates cannot be published without noise")
        declares, sites = self.strategy.declares, self.spec.federation.sites
        task = self.strategy.plan(before, sites[0])  # the same for all
        contents = (f"{row.site} {row.announcement.manifest.digest}" for row in self.sealed)
        noise = noise_of(self.noise_key, *map(str, astuple(self.key)), *contents)
        mechanism = Mechanism(spend=schedule(self.spec, declares), sites=len(sites), noise=noise)
        return privatised(task, declares.upload(task), updates, mechanism)

    def _deviation(self, updates: Sequence[Update], state: State) -> float | None:
        starts = {task.start for task in self.tasks if task.state == "SEALED"}
        is_mean = self.spec.privacy.unit != "site" and self.spec.federation.robust == "none"
        if len(starts) != 1 or state.personal or not is_mean or not self.strategy.declares.epochs:
            return None
        start = assemble(starts.pop(), self.published.read)
        shares = self.spec.shares([update.site for update in updates])
        return deviation(start, [update.delta for update in updates], shares, state.shared)


def open_phase(strategy: Strategy, state: State, sites: Sequence[str], published: Blobs) -> Opening:
    """Stores `state` and plans every site's task from it, until the strategy's last round is done."""
    stored: set[str] = set()
    keep = partial(store_tensors, published=published, stored=stored)
    record = StateRecord(
        round=state.round,
        phase=state.phase,
        shared=keep(state.shared),
        personal={site: keep(own) for site, own in state.personal.items()},
    )
    if state.round >= strategy.declares.rounds:
        return Opening(state=record, tasks=())
    tasks: list[TaskRow] = []
    last: Tensors = {}
    for site in sorted(sites):
        task = strategy.plan(state, site)
        start = tasks[-1].start if tasks and _same(task.start, last) else keep(task.start)
        tasks.append(_planned(strategy, site, task, start))
        last = task.start
    return Opening(state=record, tasks=tasks)


def fresh_phase(spec: RunSpec, key: Key, opening: Opening, now: float) -> PhaseRow:
    """The row of a phase that opens now, with the secret of its noise where the aggregator adds it."""
    secret = noise_key() if spec.privacy.unit == "site" else None
    return PhaseRow(key=key, state="OPEN", opened_at=now, before=opening.state, noise_key=secret)


def store_tensors(tensors: Tensors, published: Blobs, stored: set[str]) -> Manifest:
    """Puts tensors into the blob store, and names them; what is in `stored` is there, and the rest comes to it."""
    manifest = describe(tensors)
    chunks = pieces(tensors, manifest, published.missing(manifest.chunks - stored))
    while some := list(islice(chunks, CHUNKS_AT_ONCE)):
        published.put_all(some)
    stored |= manifest.chunks  # what all sites start from is asked for once
    return manifest


def draw_adapter(schema: Shapes, seed: int) -> Tensors:
    """The adapter before the first phase: A Kaiming-uniform with a = sqrt 5, B and head zero.

    For A (r, d_in) that is U(-1/sqrt(d_in), 1/sqrt(d_in)); the draws follow the order of the names.
    """
    generator = np.random.default_rng(seed)

    def drawn(name: str) -> Tensors:
        shape = schema[name]
        if factor(name) != "A":
            return {name: np.zeros(shape, np.float32)}
        bound = 1 / np.sqrt(shape[1])
        return {name: generator.uniform(-bound, bound, shape).astype(np.float32)}

    return {name: array for each in sorted(schema) for name, array in drawn(each).items()}


def _same(start: Tensors, last: Tensors) -> bool:
    """Whether they are the very same arrays: most strategies start all sites from one state, which is stored once."""
    return start.keys() == last.keys() and all(array is last[name] for name, array in start.items())


def _planned(strategy: Strategy, site: str, task: Task, start: Manifest) -> TaskRow:
    return TaskRow(
        site=site,
        factors=task.factors,
        epochs=task.epochs,
        start=start,
        schema=dict(strategy.declares.upload(task)),
    )
