"""Ledgers in memory and on disk for tests: terms, plans, and a chain that is written as a site writes it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from deerfield.attestation import public_key
from deerfield.ledger import charging
from deerfield.ledger.account import Account, fold
from deerfield.ledger.audit import verify
from deerfield.ledger.details import RunPlan, TaskKey, Terms
from deerfield.ledger.entry import GENESIS, Entry, line, seal
from deerfield.ledger.reading import is_stored
from services.client.custody.ledger_file import NAME, Ledger
from tests.attesting import key_of

KEY = key_of("alpha")
TERMS = Terms(
    federation="north",
    site="alpha",
    population="lungs",
    unit="patient",
    epsilon=8.0,
    delta=1e-5,
    units_low=800,
    units_high=1000,
)
RENYI = replace(TERMS, filter="renyi", order=8.0)
UPDATE, OTHER = "ab" * 32, "cd" * 32


def plan(run: str = "r1", **changes: object) -> RunPlan:
    """A cheap run: 4 phases of 10 steps, one of them spare."""
    usual = RunPlan(
        run=run,
        incarnation=0,
        spec="ee" * 32,
        unit="patient",
        noise_multiplier=2.0,
        sample_rate=0.05,
        steps=40,
        clip=1.0,
        delta=1e-6,
        phases=3,
        spare_phases=1,
    )
    return replace(usual, **changes)


def key(round: int = 0, phase: int = 0, run: str = "r1", incarnation: int = 0) -> TaskKey:
    return TaskKey(run=run, incarnation=incarnation, round=round, phase=phase)


def opened(folder: Path, terms: Terms = TERMS, **options: object) -> Ledger:
    return Ledger.open(folder, KEY, terms, **options)


def lines(folder: Path) -> list[bytes]:
    return (folder / NAME).read_bytes().split(b"\n")[:-1]


def eight(folder: Path, terms: Terms = TERMS) -> bytes:
    """The bytes of a ledger of 8 entries, one of nearly every kind."""
    with opened(folder, terms) as ledger:
        ledger.reserve_run(plan())
        for round in (0, 1):
            ledger.commit(ledger.reserve_task(key(round), 10), UPDATE if round else OTHER)
        ledger.reserve_task(key(2), 10)
        ledger.make_infinite("metrics: clear")
    return (folder / NAME).read_bytes()


NONE_RUN = plan("open", unit="none", noise_multiplier=0.0, clip=inf)


def stored_in(vault: Path) -> Callable[[str], bool]:
    """What `verify` asks of a site's vault."""
    return lambda name: is_stored(lambda each: (vault / f"{each}.safetensors").read_bytes(), name)


class Chain:
    """A ledger in memory, written by the same rules as one on disk."""

    def __init__(self, terms: Terms = TERMS) -> None:
        first = Entry(
            sequence=0, time=0.0, kind="open", detail=charging.open_detail(terms, public_key(KEY)), previous=GENESIS
        )
        self.entries = [seal(first, KEY)]

    @property
    def account(self) -> Account:
        return fold(self.entries)

    @property
    def lines(self) -> list[bytes]:
        return [line(entry)[:-1] for entry in self.entries]

    def add(self, kind: str, detail: object, **changes: object) -> Entry:
        last = self.entries[-1]
        entry = Entry(sequence=last.sequence + 1, time=last.time + 1, kind=kind, detail=detail, previous=last.hash)
        self.entries.append(seal(replace(entry, **changes), KEY))
        return self.entries[-1]

    def run(self, asked: RunPlan) -> Entry:
        return self.add("run", charging.run_detail(self.account, asked))

    def task(self, *where: int, steps: int = 10, run: str = "r1") -> Entry:
        return self.add("task", charging.task_detail(self.account, key(*where, run=run), steps))

    def commit(self, entry: Entry, update: str = UPDATE) -> Entry:
        held = self.account.reservations[entry.sequence]
        return self.add("commit", charging.commit_detail(self.account, held, update))


def found(chain: Chain | Sequence[bytes]) -> list[str]:
    report = verify(chain.lines if isinstance(chain, Chain) else chain)
    return [f"{each.entry}: {each.what}" for each in report.findings]


def small(terms: Terms = TERMS) -> Chain:
    chain = Chain(terms)
    chain.run(plan())
    chain.commit(chain.task(0), UPDATE)
    chain.commit(chain.task(1), OTHER)
    chain.task(2)
    return chain
