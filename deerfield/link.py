"""The seam between a site and its aggregator: one small protocol, over gRPC or inside one process."""

from dataclasses import dataclass
from typing import Protocol

from deerfield.exchange import Key
from deerfield.restoration import Restoration
from deerfield.runspec import RunSpec
from deerfield.types import Countersigned, Task, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A task and the run it belongs to. (run, incarnation, task.round, task.phase, site) names the exchange."""

    run: str
    incarnation: int
    spec: RunSpec
    task: Task
    base: str  # digest of task.start
    restoration: Restoration | None = None  # of an incarnation above 1: who says that the run goes on

    @property
    def key(self) -> Key:
        """The name of the exchange, but for the site."""
        return Key(run=self.run, incarnation=self.incarnation, round=self.task.round, phase=self.task.phase)


class Link(Protocol):
    """What a site may say to its aggregator. Implementers retry what is safe, and raise a Refusal where it says no."""

    def next_task(self) -> Assignment | None:
        """The site's next task, or None if none came within one long poll.

        Raises:
            RunEnded: the run is over.
        """
        ...

    def send(self, assignment: Assignment, update: Update) -> Countersigned:
        """Delivers the update, once, however often the connection breaks; answers its head, countersigned and checked.

        Raises:
            BadAttestation: the update has no attestation, or the answer does not countersign it.
        """
        ...

    def head(self, population: str) -> Countersigned | None:
        """The newest head of this site's ledger of `population` that the aggregator has seen; None if there is none.

        Its signature is checked, by the key that it names; whose key that is, and whether the head is in the site's
        ledger, is for the site to check.
        """
        ...

    def decline(self, assignment: Assignment, reason: str, detail: str) -> None:
        """Refuses the task; `reason` is one of `errors.REFUSALS`."""

    def leave(self, run: str, detail: str) -> None:
        """Withdraws from the run: nobody waits for this site any more."""

    def heartbeat(self, assignment: Assignment, steps_done: int, steps: int) -> bool:
        """Reports progress; False says that the task is closed."""
        ...
