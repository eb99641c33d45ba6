"""Closes phases as they fall due: decisions on the event loop, computation on a thread."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import structlog

from deerfield.errors import Unreachable
from services.aggregator.coordinator import Coordinator
from services.aggregator.drain import Drain
from services.aggregator.pulse import Pulse

TICK_S = 1.0  # how late a deadline or a lost site may be noticed
LONGEST_S = 10.0  # between two attempts while the database is away or a disk is full

Answer = TypeVar("Answer")

log = structlog.get_logger()


async def drive(coordinator: Coordinator, pulse: Pulse, drain: Drain) -> None:
    """Runs until the drain begins; a computation that breaks fails its run, with the error as the reason."""
    pause_s = TICK_S
    while not drain.begun:
        try:
            closed = await _close_one(coordinator)
        except Unreachable:  # told where it happened; the phase is still there
            await drain.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_S)
            continue
        pause_s = TICK_S
        if closed:
            pulse.beat()
        else:
            await pulse.wait(TICK_S)


async def _close_one(coordinator: Coordinator) -> bool:
    closing = coordinator.due()
    if closing is None:
        return False
    try:
        closed = await _on_a_thread(closing.compute)
    except Unreachable:
        coordinator.give_back(closing)
        raise
    except Exception as error:  # whatever it is, the run must not wait for ever
        log.exception("aggregation failed", run=closing.key.run, round=closing.key.round, phase=closing.key.phase)
        coordinator.give_back(closing)
        coordinator.fail(closing.key.run, f"aggregation failed: {type(error).__name__}: {error}")
    else:
        coordinator.publish(closing, closed)
    return True


async def _on_a_thread(compute: Callable[[], Answer]) -> Answer:
    """As asyncio.to_thread, on a thread that the end of the process does not wait for."""
    done: Future[Answer] = Future()
    done.set_running_or_notify_cancel()  # whoever waits may be cancelled, this may not

    def work() -> None:
        try:
            done.set_result(compute())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, name="aggregation", daemon=True).start()
    return await asyncio.wrap_future(done)
