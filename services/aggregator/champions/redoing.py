"""Carries out what a crash, or MLflow's absence, has left open: at the start, and as long as there is anything."""

import asyncio

from deerfield.errors import Unreachable
from services.aggregator.champions.promotions import Promotions
from services.aggregator.threads import on_a_thread

PERIOD_S = 5.0  # between two looks where nothing was open
LONGEST_S = 15.0  # between two attempts while MLflow is away


async def redoing(promotions: Promotions) -> None:
    """Runs until it is cancelled."""
    pause_s = PERIOD_S
    while True:
        try:
            done = await on_a_thread(promotions.redo, "redo")
        except Unreachable:  # the database, told where it happened
            done = False
        pause_s = PERIOD_S if done else min(2 * pause_s, LONGEST_S)
        await asyncio.sleep(pause_s)
