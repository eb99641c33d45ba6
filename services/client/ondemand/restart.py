"""What an agent that starts finds of the one before it: releases that were complete, Jobs and folders.

A complete release is committed, once. It was charged before a record was read (`reservation.json` is written after the
ledger's entry), it is the one that its reservation has (the ledger takes no second), and it leaves as any other does:
stored, committed, then sent. Without it the same budget is spent for nothing. Whatever is not complete is given up, and
its reservation stays spent: a training that may be under way is no reason to wait, and its noise is never used again.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from deerfield.errors import DeerfieldError, LedgerFault, NoMachine
from deerfield.ledger.account import Reservation
from deerfield.link import Assignment
from deerfield.runspec import RunSpec
from deerfield.tensors import Tensors
from deerfield.types import Update
from services.client.ondemand.bench import check
from services.client.ondemand.folder import RELEASED, Folder, folders
from services.client.ondemand.jobs import Jobs
from services.client.policy import Policy

log = structlog.get_logger()


class Account(Protocol):
    """The part of a site's `Account` that a release needs which is there already."""

    def stored(self, assignment: Assignment) -> Update | None:
        """The update that was committed for a task."""
        ...

    def commit(
        self, reservation: Reservation, assignment: Assignment, delta: Tensors, metrics: Mapping[str, float]
    ) -> Update:
        """Stores what was made under a reservation."""
        ...


def take_over(work: Path, policy: Policy, account: Callable[[str, int, RunSpec], Account], jobs: Jobs) -> None:
    """Commits what is complete on the volume, and deletes every Job and folder of this site.

    Raises:
        LedgerFault: the ledger cannot be used.
    """
    found = folders(work)
    for folder in found:
        if folder.has(RELEASED):
            _commit(folder, policy, account)
    try:
        for name in jobs.running():
            jobs.delete(name)
            log.info("a Job of an earlier agent is deleted", job=name)
    except NoMachine as error:
        log.warning("Jobs of an earlier agent may still run; they stop by themselves", error=str(error))
    for folder in found:
        folder.remove()


def _commit(folder: Folder, policy: Policy, account: Callable[[str, int, RunSpec], Account]) -> None:
    try:
        request = folder.request()
        if request.policy != policy:
            log.warning("a release is given up: the policy has changed since", job=folder.path.name)
            return
        assignment = folder.assignment(request)
        run = account(request.run, request.incarnation, request.spec)
        if run.stored(assignment) is not None:
            return
        delta, metrics = folder.released()
        check(delta, assignment)
        run.commit(folder.reservation(), assignment, delta, metrics)
        log.info("a release that was complete is committed", job=folder.path.name, run=request.run)
    except LedgerFault:
        raise
    except DeerfieldError as error:
        log.warning("a release is given up", job=folder.path.name, error=str(error))
