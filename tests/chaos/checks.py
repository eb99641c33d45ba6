"""What must hold of a run that was disturbed: the hash rule of the design, counted once, and ledgers without a flaw."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, select

from deerfield.exchange import Event, Key
from deerfield.ledger.audit import verify
from deerfield.ledger.chain import first_damage
from deerfield.manifest import Stored, assemble
from deerfield.strategies import make
from deerfield.tensors import digest
from deerfield.types import State, Update
from services.aggregator.blobstore.blobs import Blobs
from services.aggregator.blobstore.folder_blobs import FolderBlobs
from services.aggregator.sql.database import open_database
from services.aggregator.sql.records import RunRow, StateRecord, state_of
from services.aggregator.sql.store import Edge, Store
from services.aggregator.sql.tables import phases
from services.client.custody.ledger_file import read
from tests.ledgers import stored_in

REPEATED = ("lost", "progress")  # the kinds of event that may happen again


@dataclass(frozen=True)
class Found:
    """What a run left behind, as far as two runs of the same federation must agree on it."""

    state: str
    digests: tuple[str, ...]  # of every published state
    events: tuple[tuple[object, ...], ...]  # what happened, in any order
    entries: dict[str, list[str]]  # kinds of the entries of each site's ledger


def found(folder: Path, database: str, run: str, blobs: tuple[Blobs, Blobs] | None = None) -> Found:
    """Looks at what is there after the end, and holds what must hold of every run.

    `blobs`: uploads and published states; default: those in the folder.
    """
    kept = blobs or tuple(FolderBlobs(folder / "blobs" / name) for name in ("uploads", "published"))
    befores = _befores(database)
    store = Store(open_database(database, 10))
    try:
        with store.edge() as edge:
            row = edge.run(run)
            events = edge.events(0, run, limit=100_000)
            published = [event.detail for event in events if event.kind == "phase_published"]
            keys = [_key(row, detail["round"], detail["phase"]) for detail in published]
            for key in keys:
                _check_published(kept, edge, row, key, befores[key])
            updates = [each for key in keys for each in edge.uploads.sealed(key)]
    finally:
        store.close()
    sealed = {site: [each.announcement.manifest.digest for each in updates if each.site == site] for site in sites(row)}
    return Found(
        state=row.state,
        digests=tuple(detail["digest"] for detail in published),
        events=_once(events),
        entries={site: ledger(folder / site, sealed[site]) for site in sealed},
    )


def sites(row: RunRow) -> Sequence[str]:
    return row.spec.federation.sites


def _once(events: Sequence[Event]) -> tuple[tuple[object, ...], ...]:
    """What happened; nothing of it twice."""
    told = Counter(
        (each.kind, *(str(each.detail.get(name, "")) for name in ("round", "phase", "site", "sites")))
        for each in events
        if each.kind not in REPEATED
    )
    assert max(told.values()) == 1, f"happened more than once: {told.most_common(3)}"
    return tuple(sorted(told))


def _key(row: RunRow, round: int, phase: int) -> Key:
    return Key(run=row.run, incarnation=row.incarnation, round=round, phase=phase)


def _befores(database: str) -> dict[Key, StateRecord]:
    """The states that phases began with."""
    engine = create_engine(database)
    with engine.begin() as connection:
        rows = connection.execute(select(phases)).all()
    engine.dispose()
    return {
        Key(run=row.run, incarnation=row.incarnation, round=row.round, phase=row.phase): state_of(row.before)
        for row in rows
    }


def _check_published(blobs: tuple[Blobs, Blobs], edge: Edge, run: RunRow, key: Key, before: StateRecord) -> None:
    """What a phase published is, bit by bit, what its sealed manifests give."""
    strategy, after = make(run.spec), edge.published(key)
    uploads, states = blobs
    personal = {site: assemble(own, states.get) for site, own in before.personal.items()}
    shared = assemble(before.shared, states.get)
    state = State(round=before.round, phase=before.phase, shared=shared, personal=personal)
    updates = [
        Update(
            site=row.site,
            round=key.round,
            phase=key.phase,
            base=row.announcement.base,
            delta=Stored(row.announcement.manifest, uploads.get),
        )
        for row in edge.uploads.sealed(key)
    ]
    assert after is not None
    assert digest(strategy.aggregate(state, updates).shared) == after.shared.digest, f"{key} is not what was sealed"


def ledger(state: Path, sealed: Sequence[str]) -> list[str]:
    """The kinds of the entries of a site's ledger, which is sound, and has committed each sealed update once."""
    lines = [path for path in (state / "ledgers").iterdir() if path.is_dir()]
    report = verify(read(lines[0]), stored_in(state / "vault"))
    assert (len(lines), report.findings) == (1, ())
    entries, damage = first_damage(read(lines[0]))
    assert damage is None
    committed = [entry.detail["update"] for entry in entries if entry.kind == "commit"]
    assert len(set(committed)) == len(committed)
    assert len(set(sealed)) == len(sealed)
    assert set(sealed) <= set(committed)
    return [entry.kind for entry in entries]
