"""A site without a model: it reserves, makes noise, stores, commits and sends, and kills itself where it is told to.

Run as `python -m tests.integration.crash_site FOLDER POINT FILTER`. Each line that it prints is something that left it.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deerfield import keyfile
from deerfield.tensors import Tensors, digest
from services.client.custody.ledger_file import Ledger
from services.client.custody.vault import Vault
from tests.integration.mortal import killing
from tests.ledgers import RENYI, TERMS, key, plan


def work(folder: Path, terms_name: str, on_durable: Callable[[str], None], tell: Callable[[str, object], None]) -> None:
    """Answers two tasks of one run, or sends again what was committed before."""
    terms = RENYI if terms_name == "renyi" else TERMS
    vault = Vault(folder / "vault", on_durable=on_durable)
    with Ledger.open(
        folder, keyfile.load(folder / keyfile.SITE, on_durable=on_durable), terms, on_durable=on_durable
    ) as ledger:
        run = ledger.reserve_run(plan(spare_phases=2, steps=40))
        tell("reserved", run.epsilon_after)
        for round in (0, 1):
            name = ledger.committed(key(round))
            if name is None:
                reservation = ledger.reserve_task(key(round), 10)
                tell("reserved", reservation.epsilon_after)
                name = vault.put(noise())
                ledger.commit(reservation, name)
            tell("sent", [round, name, sent_bytes(vault.get(name))])


def noise() -> Tensors:
    """A release that no second attempt makes again."""
    drawn = np.frombuffer(os.urandom(64), np.uint8).astype(np.float32)
    return {"head.bias": drawn[:4], "head.weight": drawn[4:].reshape(4, 15)}


def sent_bytes(update: Tensors) -> str:
    assert digest(update)
    return b"".join(update[name].tobytes() for name in sorted(update)).hex()


def _main() -> None:
    folder, point, terms_name = sys.argv[1:]

    def tell(what: str, value: object) -> None:
        print(json.dumps([what, value]), flush=True)

    work(Path(folder), terms_name, killing(point), tell)


if __name__ == "__main__":
    _main()
