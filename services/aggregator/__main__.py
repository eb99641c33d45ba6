"""The composition root of the aggregator: reads settings, builds the parts, serves until it is told to stop."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import structlog

from deerfield import keyfile
from deerfield.attestation import public_key
from deerfield.certificates import utc_now
from deerfield.errors import DeerfieldError
from deerfield.strategies import make
from services.aggregator.assembly import Aggregator, assemble_aggregator
from services.aggregator.blobs import FolderBlobs
from services.aggregator.database import open_database
from services.aggregator.desk import Desk
from services.aggregator.gate import Gate
from services.aggregator.identity import from_metadata
from services.aggregator.recorder import Tracking, Untracked
from services.aggregator.server import Ports, serving
from services.aggregator.settings import Settings, read_settings
from services.aggregator.store import Store
from services.aggregator.tracking import MlflowTracking
from services.telemetry import logs

log = structlog.get_logger()


def main(argv: Sequence[str]) -> int:
    """Runs the aggregator; answers the exit code."""
    try:
        settings = read_settings(argv)
        logs.configure(settings.log, "aggregator", sys.stderr)
        log.info("settings", values=settings.as_json())
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while it waits for another aggregator to end
        gate = Gate(settings.tls, settings.revoked, utc_now) if settings.tls else None  # refuses before a file is made
        asyncio.run(_run(settings, build(settings), gate))
    except DeerfieldError as error:
        return _failed(error)
    except BaseExceptionGroup as group:  # of the server's tasks: the first one that failed has ended the others
        ours, others = group.split(DeerfieldError)
        if ours is None or others is not None:
            raise
        return _failed(_first(ours))
    return 0


def _failed(error: DeerfieldError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _first(group: BaseExceptionGroup[DeerfieldError]) -> DeerfieldError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


async def _run(settings: Settings, aggregator: Aggregator, gate: Gate | None) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.while_stdin:
        _when_stdin_closes(lambda: loop.call_soon_threadsafe(stop.set))
    asked = Ports(listening=settings.listen, health=settings.health, metrics=settings.metrics)
    try:
        tracking, identify = build_tracking(settings, aggregator.desk), gate.identify if gate else from_metadata
        async with serving(aggregator, tracking, identify, asked, gate) as ports:
            print(json.dumps({name: port for name, port in asdict(ports).items() if port}), flush=True)
            log.info("signs heads of ledgers", key=public_key(aggregator.desk.key))
            await stop.wait()
    finally:
        aggregator.desk.store.close()


def build(settings: Settings) -> Aggregator:
    """The aggregator over its database, key and folders."""
    desk = Desk(
        store=Store(open_database(settings.database, settings.takeover_s)),
        uploads=FolderBlobs(settings.blobs / "uploads"),
        published=FolderBlobs(settings.blobs / "published"),
        make=make,
        clock=time.time,
        key=keyfile.load(settings.key),
    )
    return assemble_aggregator(desk, settings.lost_after_s, settings.bounds)


def build_tracking(settings: Settings, desk: Desk) -> Tracking:
    """MLflow, or nothing where no tracking URI is set."""
    if not settings.tracking:
        return Untracked()
    return MlflowTracking(desk, settings.tracking, settings.artifacts, settings.mlflow_run_id)


def _when_stdin_closes(act: Callable[[], object]) -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        act()

    threading.Thread(target=watch, name="stdin", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
