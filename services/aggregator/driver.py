"""Closes phases as they fall due: decisions on the event loop, computation on a thread."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import structlog

from services.aggregator.coordinator import Coordinator
from services.aggregator.log_context import phase_context
from services.aggregator.pulse import Pulse

TICK_S = 1.0  # how late a deadline or a lost site may be noticed

log = structlog.get_logger()


async def drive(
    coordinator: Coordinator, pulse: Pulse, timed: Callable[[], AbstractContextManager[object]] = nullcontext
) -> None:
    """Runs until it is cancelled; a computation that breaks fails its run, with the error as the reason.

    Each computation is done within a `timed` of its own.
    """
    while True:
        closing = coordinator.due()
        if closing is None:
            await pulse.wait(TICK_S)
            continue
        with phase_context(closing.key):
            try:
                with timed():
                    closed = await asyncio.to_thread(closing.compute)
            except Exception as error:  # whatever it is, the run must not wait for ever
                log.exception("aggregation failed")
                coordinator.fail(closing.key.run, f"aggregation failed: {type(error).__name__}: {error}")
            else:
                coordinator.publish(closing, closed)
                log.info("phase published", updates=len(closing.sealed), tasks=len(closing.tasks))
        pulse.beat()
