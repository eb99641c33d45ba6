"""The bulk that passes the data port: who may upload now, how slowly, and how much has passed."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.aggregator.bounds import Bounds
from services.aggregator.metrics import Metrics
from services.aggregator.rpc.admission import Admission


class Traffic:
    """Admission with its figures; `heard` as there."""

    def __init__(self, bounds: Bounds, metrics: Metrics, heard: Callable[[str], None]) -> None:
        self.idle_s = bounds.idle_s
        self.admission = Admission(bounds, heard)
        self._metrics = metrics

    @asynccontextmanager
    async def upload(self, site: str) -> AsyncIterator[None]:
        """Holds a turn, as `Admission.turn` does, and times it."""
        async with self.admission.turn(site):
            began = time.monotonic()
            try:
                yield
            finally:
                self._metrics.upload_seconds.observe(time.monotonic() - began)

    def received(self, size_bytes: int) -> None:
        """Counts bytes of a chunk that came."""
        self._metrics.upload_bytes.inc(size_bytes)

    def resumed(self, size_bytes: int) -> None:
        """Counts bytes that were here already when their upload was begun again."""
        self._metrics.resumed_bytes.inc(size_bytes)

    def served(self, size_bytes: int) -> None:
        """Counts bytes of a chunk that went out."""
        self._metrics.download_bytes.inc(size_bytes)
