"""One population's ledger on the site's own disk: append-only, exclusive, and on the disk before anybody acts on it.

Every entry is written and fsynced before the call that made it returns. A crash in the middle leaves at most one line
without its end, which is cut; what is wrong in any other way stops the site.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deerfield import mounts
from deerfield.attestation import public_key
from deerfield.durable import OnDurable, ignore
from deerfield.errors import InvalidInput, LedgerDamaged, LedgerUnwritable
from deerfield.keyfile import SigningKey
from deerfield.ledger import charging
from deerfield.ledger.account import Account, Reservation, RunCharge, extend, fold, opened
from deerfield.ledger.chain import after_reconcile, first_damage, lines_of
from deerfield.ledger.details import Known, RunPlan, TaskKey, Terms
from deerfield.ledger.entry import GENESIS, Entry, Head, Kind, line, seal
from services.client.custody.append import AppendFile

NAME = "ledger.jsonl"
CLOCK_SLACK_S = 1.0  # a correction of the clock that is waited out on paper: the entry gets the time of the last one


def read(folder: Path) -> list[bytes]:
    """The lines of a ledger, also while a site has it open; raises InvalidInput if there are none to read."""
    path = folder / NAME
    try:
        return lines_of(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"the ledger {path} cannot be read ({error.strerror}); name the folder it is in") from error


def check_local(folder: Path, table: Path = mounts.MOUNTS) -> None:
    """Raises LedgerUnwritable if the folder is, or would be, on a network file system."""
    if kind := mounts.network(folder, table):
        raise LedgerUnwritable(
            f"{folder} is on a network file system ({kind}), where a lock or an fsync may not hold; set the site's "
            "ledger folder, or the storage class of its volume, to a local or block disk"
        )


def account_of(lines: list[bytes], path: Path) -> Account:
    """What the lines add up to.

    Raises:
        LedgerDamaged: an entry is not what was once written.
    """
    entries, damage = first_damage(lines)
    if damage is not None:
        raise LedgerDamaged(
            f"{path}: entry {damage.entry} is damaged: {damage.what}; restore the ledger from a copy, then reconcile it"
        )
    return fold(entries)


class Ledger:
    """One open population, this process' alone until it is closed.

    Every method that writes raises LedgerUnwritable if the entry cannot be made to last: then nothing may be done that
    it was to record. What may not be written at all raises before a byte is.
    """

    def __init__(self, path: Path, key: SigningKey, clock: Callable[[], float], on_durable: OnDurable) -> None:
        """Use `open`."""
        self._path, self._key, self._clock = path, key, clock
        self._file = AppendFile(path, on_durable)
        self._account: Account | None = None

    @classmethod
    def open(  # noqa: PLR0913  each is a seam of its own
        cls,
        folder: Path,
        key: SigningKey,
        terms: Terms,
        *,
        clock: Callable[[], float] = time.time,
        on_durable: OnDurable = ignore,
        admit: Callable[[Terms | None], None] = lambda _: None,
    ) -> "Ledger":
        """Continues the ledger in `folder`, or begins it; writes the terms if they have changed.

        `admit` is given the terms in force, None in a new ledger, and may raise before anything is written.
        `on_durable` is told "KIND:before_fsync" and "KIND:after_fsync" of every entry.

        Raises:
            LedgerBusy: another process has it open.
            LedgerDamaged: an entry is not what was once written.
            LedgerUnwritable: the folder is on a network file system, read-only or full, or the clock went back.
            InvalidInput: it was begun with another key or for another population or unit.
        """
        check_local(folder)
        ledger = cls(folder / NAME, key, clock, on_durable)
        with ExitStack() as stack:
            stack.callback(ledger.close)
            ledger._begin(terms, admit)
            stack.pop_all()  # it stays open
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets another process open it."""
        self._file.close()

    @property
    def account(self) -> Account:
        """What the entries add up to."""
        if self._account is None:
            raise LedgerDamaged(f"{self._path} has no entry; open it first")
        return self._account

    @property
    def head(self) -> Head:
        """Where the chain ends."""
        return self.account.head

    def reserve_run(self, plan: RunPlan) -> RunCharge:
        """Charges the population for a run, once for each run and incarnation.

        Raises:
            BudgetExhausted: it does not fit.
            PolicyRefused: it has another unit than the population, or was reserved in other terms.
        """
        name = (plan.run, plan.incarnation)
        if (held := self.account.runs.get(name)) is not None:
            charging.check_same(held, plan)
            return held
        self._append("run", charging.run_detail(self.account, plan))
        return self.account.runs[name]

    def reserve_task(self, key: TaskKey, steps: int) -> Reservation:
        """Takes a task's steps off its run, and charges them where the filter says so.

        Raises:
            BudgetExhausted: they are beyond the run or the budget.
            AlreadySealed: the task was answered, or was begun and the run has no spare phase left.
        """
        self._append("task", charging.task_detail(self.account, key, steps))
        return self.account.task(key)[-1]

    def commit(self, reservation: Reservation, update: str) -> Entry:
        """Binds the digest of a stored update to its reservation, for ever; the same again changes nothing.

        Raises:
            AlreadySealed: the reservation has another update, or its task was reserved again.
        """
        held = self.account.commits.get(reservation.sequence)
        if held is None:
            return self._append("commit", charging.commit_detail(self.account, reservation, update))
        charging.check_update(held, update)
        return held

    def committed(self, key: TaskKey) -> str | None:
        """The digest of the update to send again."""
        return self.account.committed(key)

    def make_infinite(self, reason: str) -> Entry:
        """Charges infinity for something that no noise protects; once for each reason."""
        if (held := self.account.infinite.get(reason)) is not None:
            return held
        return self._append("infinite", charging.infinite_detail(reason))

    def reconcile(self, *, operator: str, reason: str, known: Known, agreed: Known | None) -> Entry:
        """Charges what a record has and a restored ledger may lack; `charging.missing` says how much that is.

        Its number is beyond every one on record, so that none stands for two entries.

        Raises:
            InvalidInput: the ledger lacks nothing.
        """
        return self._append("reconcile", charging.reconcile_detail(self.account, operator, reason, known, agreed))

    def _begin(self, terms: Terms, admit: Callable[[Terms | None], None]) -> None:
        mine = public_key(self._key)
        if not self._file.data:
            admit(None)
            self._append("open", charging.open_detail(terms, mine))
            return
        account = account_of(lines_of(self._file.data), self._path)
        if account.public_key != mine:
            raise InvalidInput(
                f"{self._path} is signed by key {account.public_key[:16]}..., and this site's key is {mine[:16]}...; "
                "restore the site.key that it was begun with"
            )
        self._account = account
        self._now()
        admit(account.terms)
        if (detail := charging.terms_detail(account, terms)) is not None:
            self._append("terms", detail)

    def _append(self, kind: Kind, detail: Mapping[str, Any]) -> Entry:
        entry = seal(self._next(kind, detail), self._key)
        self._file.append(kind, line(entry))
        self._account = opened(entry) if self._account is None else extend(self._account, [entry])
        return entry

    def _next(self, kind: Kind, detail: Mapping[str, Any]) -> Entry:
        if self._account is None:
            return Entry(sequence=0, time=float(self._clock()), kind=kind, detail=detail, previous=GENESIS)
        sequence = after_reconcile(self.head.sequence, detail.get("known_sequence"))
        return Entry(sequence=sequence, time=self._now(), kind=kind, detail=detail, previous=self.head.hash)

    def _now(self) -> float:
        """The time of the next entry: never before that of the last."""
        now, last = float(self._clock()), self.account.newest.time
        if now < last - CLOCK_SLACK_S:
            raise LedgerUnwritable(
                f"the clock is {last - now:.0f} s behind entry {self.head.sequence} of {self._path}, and entries never "
                "go back in time; set the clock right and start the site again"
            )
        return max(now, last)
