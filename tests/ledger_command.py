"""Sites' state folders for `deerfield ledger`, and what an aggregator has seen of their ledgers."""

from pathlib import Path

import numpy as np

from deerfield import keyfile
from deerfield.attestation import countersign
from deerfield.ledger.account import fold
from deerfield.ledger.chain import first_damage, lines_of
from deerfield.types import Attestation, Countersigned
from services.client.custody.ledger_file import NAME, Ledger
from services.client.custody.vault import Vault
from tests.attesting import key_of
from tests.ledgers import TERMS, key, plan

AGGREGATOR = key_of("the aggregator")


def state(folder: Path, terms=TERMS, runs=("r1",), rounds=2, **options) -> Path:
    """A site's state folder with one population, `rounds` of each run done and one begun."""
    vault = Vault(folder / "vault")
    with Ledger.open(
        folder / "ledgers" / terms.population, keyfile.load(folder / keyfile.SITE), terms, **options
    ) as ledger:
        for number, run in enumerate(runs):
            ledger.reserve_run(plan(run))
            for round in range(rounds):
                update = {"head.weight": np.full((2, 2), 10 * number + round, np.float32)}
                ledger.commit(ledger.reserve_task(key(round, run=run), 10), vault.put(update))
            ledger.reserve_task(key(rounds, run=run), 10)
    return folder


def ledger_of(folder: Path, population: str = "lungs") -> Path:
    return folder / "ledgers" / population / NAME


def chain(folder: Path):
    entries, damage = first_damage(lines_of(ledger_of(folder).read_bytes()))
    assert damage is None
    return entries


def record_of(folder: Path, signer=AGGREGATOR, **changes) -> Countersigned:
    """What the aggregator has seen of a ledger as it is now."""
    account = fold(chain(folder))
    seen = Attestation(
        **{
            **dict.fromkeys(("run", "update", "accountant"), "x"),
            **dict.fromkeys(("incarnation", "round", "phase"), 0),
            "site": "alpha",
            "population": "lungs",
            "spend": plan().spend(10),
            "epsilon_before": 0.0,
            "epsilon_after": account.epsilon,
            "delta_after": account.delta,
            "ledger_sequence": account.head.sequence,
            "ledger_head": account.head.hash,
            **changes,
        }
    )
    return countersign(signer, seen)
