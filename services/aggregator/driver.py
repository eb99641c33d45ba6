"""Closes phases as they fall due: decisions on the event loop, computation on a thread."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import structlog

from deerfield.errors import Unreachable
from deerfield.exchange import Key
from services.aggregator.rounds.coordinator import Coordinator
from services.aggregator.rpc.drain import Drain
from services.aggregator.rpc.log_context import phase_context
from services.aggregator.rpc.pulse import Pulse
from services.aggregator.threads import on_a_thread

TICK_S = 1.0  # how late a deadline or a lost site may be noticed
LONGEST_S = 10.0  # between two attempts while the database is away or a disk is full
LONGEST_PAUSE_S = 60.0  # between two attempts, while a phase's tensors cannot be read or written

Timed: TypeAlias = Callable[[], AbstractContextManager[object]]

log = structlog.get_logger()


async def drive(coordinator: Coordinator, pulse: Pulse, drain: Drain, timed: Timed = nullcontext) -> None:
    """Runs until the drain begins; a computation that breaks fails its run, with the error as the reason.

    One that cannot reach its tensors is begun again, for ever: as with a site that is away, the run waits. Each
    computation is done within a `timed` of its own.
    """
    pause_s, pauses_s = TICK_S, dict[Key, float]()
    while not drain.begun:
        try:
            closed = await _close_one(coordinator, pauses_s, timed)
        except Unreachable:  # told where it happened; the phase is still there
            await drain.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_S)
            continue
        pause_s = TICK_S
        if closed:
            pulse.beat(tasks=True)
        else:
            await pulse.wait(TICK_S)


async def _close_one(coordinator: Coordinator, pauses_s: dict[Key, float], timed: Timed) -> bool:
    closing = coordinator.due()
    for key in [key for key in pauses_s if key.run not in coordinator.running]:
        del pauses_s[key]
    if closing is None:
        return False
    with phase_context(closing.key):
        try:
            with timed():
                closed = await on_a_thread(closing.compute, "aggregation")
        except Unreachable:  # told where it happened: this phase's tensors are away, and other runs go on
            again_s = pauses_s[closing.key] = min(2 * pauses_s.get(closing.key, 0.5), LONGEST_PAUSE_S)
            log.info("aggregation waits for its tensors", again_s=again_s)
            asyncio.get_running_loop().call_later(again_s, coordinator.give_back, closing)
        except Exception as error:  # whatever it is, the run must not wait for ever
            log.exception("aggregation failed")
            coordinator.give_back(closing)
            coordinator.fail(closing.key.run, f"aggregation failed: {type(error).__name__}: {error}")
        else:
            pauses_s.pop(closing.key, None)
            if coordinator.publish(closing, closed):
                log.info("phase published", updates=len(closing.sealed), tasks=len(closing.tasks))
    return True
