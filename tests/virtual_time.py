"""An event loop whose clock jumps: whoever waits for time alone is woken at once, in the right order."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):
    """Counts the time that it was asked to wait, instead of waiting."""

    waited = 0.0

    def select(self, timeout=None):
        found = super().select(0)
        if not found and timeout:
            self.waited += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.waited


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """As `asyncio.run`, in no time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
