"""What is wrong with a store at the moment: told once when it begins and once when it is over, however many ask."""

import threading
from time import monotonic

import structlog

from deerfield.errors import Unreachable

log = structlog.get_logger()


class Outage:
    """The trouble of one store; may be told from any thread."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._error: Unreachable | None = None
        self._since = 0.0
        self._size = 0

    @property
    def error(self) -> Unreachable | None:
        """What is wrong; None while nothing is."""
        return self._error

    def began(self, error: Unreachable, size: int = 0) -> None:
        """Something failed, with `size` bytes to write; only the first one after a success is told."""
        with self._guard:
            self._size = max(self._size, size)
            if self._error is None:
                self._error, self._since = error, monotonic()
                log.warning("a store failed; what needs it is tried again", store=self._store, error=str(error))

    def ended(self, size: int = 0) -> None:
        """Something worked; less than what failed, as the short last chunk of a tensor, shows nothing yet."""
        with self._guard:
            if self._error is None or size < self._size:
                return
            self._error, self._size = None, 0
            log.info("a store works again", store=self._store, seconds=round(monotonic() - self._since, 1))
