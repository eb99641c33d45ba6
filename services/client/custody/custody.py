"""What a site holds in trust for its hospital: the ledgers, the signing key, the stored updates and the policy.

One process at a time has them. What it does with a ledger for one run is in `run_account`.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from deerfield import durable, keyfile
from deerfield.errors import LedgerBusy, LedgerUnwritable
from deerfield.ledger import charging
from deerfield.restoration import Trust
from deerfield.runspec import RunSpec
from services.client.custody.commitment import commitment, salt
from services.client.custody.ledger_file import NAME, Ledger
from services.client.custody.register import admit, terms
from services.client.custody.run_account import RunAccount, run_plan
from services.client.custody.vault import Vault
from services.client.policy import Policy, Population

TRIAL_BYTES = 64 << 10  # more than an entry of a ledger


@dataclass
class Custody:
    """The state folder of one site, this process' alone; use it with `with`.

    `lock`, `site.key`, `ledgers/POPULATION/ledger.jsonl`, `vault/`, `metrics/`, `split.key`, `commitment.salt`,
    `aggregator.pub`, `records/`.
    """

    site: str
    policy: Policy
    folder: Path
    clock: Callable[[], float] = time.time
    on_durable: durable.OnDurable = durable.ignore
    trust: Trust | None = None  # for what operators sign
    _open: dict[str, Ledger] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Raises LedgerBusy if another process has the folder, so that a second one answers no task of the first."""
        with ExitStack() as stack:
            stack.enter_context(_alone(self.folder))
            self._prepare()
            self._stack = stack.pop_all()
        return self

    def _prepare(self) -> None:
        _check_room(self.folder)
        self.key = keyfile.load(self.folder / keyfile.SITE)
        self.vault = Vault(self.folder / "vault", on_durable=self.on_durable)
        self.salt = salt(self.folder)
        self.split_key = durable.kept(self.folder / "split.key", os.urandom(32))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._open.clear()

    def account(self, run: str, incarnation: int, spec: RunSpec) -> RunAccount:
        """A run's account with its population, once the policy allows the run.

        Reads no record: the data's bytes are hashed, once for each process, to see that they are those registered.

        Raises:
            NotMapped: the policy does not map what the run names, or its data are not registered.
            PolicyRefused: the policy does not allow the run, or it was reserved in other terms.
            InvalidInput: the data cannot be read, or, where they are registered now, lack a column.
            LedgerFault: the ledger cannot be used.
        """
        population = self.policy.population(spec)
        ledger = self._ledger(spec.population, population)
        plan = run_plan(run, incarnation, spec, self.policy, population)
        if (held := ledger.account.runs.get((run, incarnation))) is not None:
            charging.check_same(held, plan)
        return RunAccount(
            site=self.site,
            key=self.key,
            folder=self.folder,
            vault=self.vault,
            in_the_clear=self.policy.metrics == "clear",
            spec=spec,
            ledger=ledger,
            plan=plan,
            trust=self.trust,
        )

    def left(self) -> Mapping[str, tuple[float, float]]:
        """The epsilon and the delta that are left of each population that was opened."""
        accounts = {name: ledger.account for name, ledger in tuple(self._open.items())}
        return {name: (account.remaining, account.delta_remaining) for name, account in accounts.items()}

    def _ledger(self, name: str, population: Population) -> Ledger:
        if name not in self._open:
            folder = self.folder / "ledgers" / name
            found = commitment(population.source, self.salt)
            if not (folder / NAME).exists() and population.registration == "required":
                admit(name, population, found, None)  # which refuses: no ledger is begun for it
            opened = Ledger.open(
                folder,
                self.key,
                terms(self.site, self.policy, name, found),
                clock=self.clock,
                on_durable=self.on_durable,
                admit=partial(admit, name, population, found),
            )
            self._open[name] = self._stack.enter_context(opened)
        return self._open[name]


def _check_room(folder: Path) -> None:
    """Writes and removes a small file: a full disk should be told of before anybody waits for this site."""
    trial = folder / "trial"
    try:
        durable.create(trial, bytes(TRIAL_BYTES))
        trial.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> LedgerUnwritable:
    return LedgerUnwritable(
        f"{folder} cannot be used ({error.strerror}); give the site a folder that it may write to, with room in it"
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        durable.make_folder(folder)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise LedgerBusy(f"another process of this site has {folder} open; let it end, or stop it") from None
    finally:
        os.close(handle)
