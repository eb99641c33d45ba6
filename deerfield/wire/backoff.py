"""When to try again: after UNAVAILABLE or TOO_BUSY, with growing pauses and jitter, for ever or as long as is asked."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from deerfield.errors import AGAIN, DeerfieldError, TooBusy

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pauses of `first_s`, doubling up to `last_s`, each drawn from its upper half; `sleep` may raise to end it all."""

    first_s: float = 1.0
    last_s: float = 60.0
    patience_s: float = float("inf")  # since the first failure in a row
    sleep: Callable[[float], object] = time.sleep
    uniform: Callable[[float, float], float] = random.uniform
    clock: Callable[[], float] = time.monotonic
    again: tuple[type[DeerfieldError], ...] = AGAIN  # what is tried again
    explain: Callable[[DeerfieldError], DeerfieldError] = lambda error: error  # whoever knows more about the cause
    tell: Callable[[DeerfieldError, float], object] = lambda cause, wait_s: None  # before each pause
    answered: Callable[[], object] = lambda: None  # after each answer

    def retry(self, attempt: Callable[[], Answer]) -> Answer:
        """Calls `attempt` until it answers, or raises anything that is not in `again`, or patience is at its end.

        Where the cause is one that only a person can mend, patience is at its end at once; whoever tries for ever tries
        again after `last_s`.
        """
        pauses = self.pauses()
        while True:
            try:
                answer = attempt()
            except self.again as error:
                pauses(error)
            else:
                self.answered()
                return answer

    def pauses(self) -> Callable[[DeerfieldError], None]:
        """A function that sleeps through the next pause, or raises what it is given once patience is at its end."""
        began = self.clock()
        longest = self.first_s

        def pause(error: DeerfieldError) -> None:
            nonlocal longest
            cause = error if isinstance(error, TooBusy) else self.explain(error)
            hopeless = not isinstance(cause, AGAIN)
            wait = self.last_s if hopeless else self.uniform(longest / 2, longest)
            if isinstance(error, TooBusy):  # what the other side asks for, up to the longest pause of ours
                wait = max(wait, min(error.retry_s, self.last_s))
            if self.clock() + wait - began > self.patience_s or (hopeless and self.patience_s < float("inf")):
                raise cause
            self.tell(cause, wait)
            self.sleep(wait)
            longest = min(2 * longest, self.last_s)

        return pause


FOR_EVER = Backoff()
ONE_MINUTE = Backoff(patience_s=60.0)
