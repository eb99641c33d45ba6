"""The Job's side: one task, checked, waited for, trained and released, in a process that ends with it."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
from structlog.contextvars import bound_contextvars

from deerfield.errors import DeerfieldError, NoMachine, RoundClosed
from deerfield.ledger.account import Reservation
from services.client.ondemand.folder import CHECKED, REQUEST, RESERVATION, STARTED, Folder, Request
from services.client.site import OnStep, Workbench

POLL_S = 0.1
CHARGED_S = 300.0  # an agent that has not charged by then is gone; its next process deletes this Job
PROGRESS_S = 1.0

Build = Callable[[Request], Workbench]
log = structlog.get_logger()


def work(path: Path, build: Build) -> None:
    """Does the task in a folder; why it cannot is left there for the agent.

    Raises:
        DeerfieldError: what went wrong, for this Job's own log and exit code.
    """
    folder = Folder(path)
    try:
        folder.put(STARTED, b"")
        request = folder.request()
        known = {"site": request.site, "run": request.run, "round": request.round, "phase": request.phase}
        with bound_contextvars(**known, incarnation=request.incarnation):
            _work(folder, request, build)
    except RoundClosed as closed:
        log.warning("task taken back", reason=str(closed))
    except Exception as error:
        with suppress(DeerfieldError):  # the agent then learns from the Job that it has ended, and less of why
            folder.fail(error)
        raise


def _work(folder: Folder, request: Request, build: Build) -> None:
    assignment = folder.assignment(request)
    bench, on_step = build(request), _reporting(folder)
    bench.check(assignment, on_step)
    folder.put(CHECKED, b"")
    log.info("checked; waits for the charge")
    reservation = _charged(folder)
    log.info("charged; trains", entry=reservation.sequence)
    delta = bench.release(assignment, reservation, on_step)
    folder.release(delta, bench.metrics())
    bench.done()
    log.info("released")


def _charged(folder: Folder) -> Reservation:
    end = time.monotonic() + CHARGED_S
    while not folder.has(RESERVATION):
        if not folder.has(REQUEST):
            raise RoundClosed(f"{folder.path} is gone: the task is no longer wanted")
        if time.monotonic() > end:
            raise NoMachine(f"the agent has charged nothing for {CHARGED_S:g} s; it seems to be gone")
        time.sleep(POLL_S)
    return folder.reservation()


def _reporting(folder: Folder) -> OnStep:
    """Says how far the training is, each second at most; raises RoundClosed once nobody wants it."""
    said = 0.0

    def on_step(done: int, steps: int) -> None:
        nonlocal said
        if (now := time.monotonic()) - said >= PROGRESS_S:
            said = now
            folder.progress(done, steps)

    return on_step
