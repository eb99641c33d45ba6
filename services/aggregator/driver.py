"""Closes phases as they fall due: decisions on the event loop, computation on a thread."""

import asyncio

import structlog

from deerfield.errors import Unreachable
from deerfield.exchange import Key
from services.aggregator.coordinator import Coordinator
from services.aggregator.pulse import Pulse

TICK_S = 1.0  # how late a deadline or a lost site may be noticed
LONGEST_PAUSE_S = 60.0  # between two attempts, while tensors cannot be read or written

log = structlog.get_logger()


async def drive(coordinator: Coordinator, pulse: Pulse) -> None:
    """Runs until it is cancelled; a computation that breaks fails its run, with the error as the reason.

    One that cannot reach its tensors is begun again, for ever: as with a site that is away, the run waits.
    """
    pauses_s: dict[Key, float] = {}
    while True:
        closing = coordinator.due()
        if closing is None:
            await pulse.wait(TICK_S)
            continue
        try:
            closed = await asyncio.to_thread(closing.compute)
        except Unreachable as error:
            again_s = pauses_s[closing.key] = min(2 * pauses_s.get(closing.key, 0.5), LONGEST_PAUSE_S)
            of = {"run": closing.key.run, "round": closing.key.round, "phase": closing.key.phase}
            log.warning("aggregation waits for tensors", **of, error=str(error), again_s=again_s)
            asyncio.get_running_loop().call_later(again_s, coordinator.postpone, closing)
        except Exception as error:  # whatever it is, the run must not wait for ever
            log.exception("aggregation failed", run=closing.key.run, round=closing.key.round, phase=closing.key.phase)
            coordinator.fail(closing.key.run, f"aggregation failed: {type(error).__name__}: {error}")
        else:
            pauses_s.pop(closing.key, None)
            coordinator.publish(closing, closed)
        pulse.beat()
