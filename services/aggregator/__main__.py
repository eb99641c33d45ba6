"""The composition root of the aggregator: reads settings, builds the parts, serves until it is told to stop."""

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import structlog

from deerfield import keyfile
from deerfield.attestation import public_key
from deerfield.certificates import utc_now
from deerfield.durable import OnDurable, ignore
from deerfield.errors import DeerfieldError
from deerfield.strategies import make
from services.aggregator.assembly import Aggregator, assemble_aggregator
from services.aggregator.blobstore.bucket import open_blobs, open_marks
from services.aggregator.blobstore.folder_blobs import tidy
from services.aggregator.blobstore.ownership import check_owned, check_unused
from services.aggregator.clock import check_clock, steady_clock
from services.aggregator.desk import Desk
from services.aggregator.rounds.recorder import Tracking, Untracked
from services.aggregator.rpc.gate import Gate
from services.aggregator.rpc.identity import from_metadata
from services.aggregator.server import Ports, serving
from services.aggregator.settings import Settings, read_form, read_settings
from services.aggregator.sql.database import open_database
from services.aggregator.sql.schema import create, upgrade
from services.aggregator.sql.store import Store
from services.aggregator.tracking import MlflowTracking
from services.telemetry import logs
from services.telemetry.ending import ended

STOP = (signal.SIGTERM, signal.SIGINT)
SIGNALLED = 128  # and the signal's number: the exit code of what a signal has ended

log = structlog.get_logger()


def main(argv: Sequence[str], reached: OnDurable = ignore) -> int:
    """Runs the aggregator; answers the exit code. `reached` is told every point at which a crash is told apart."""
    form = read_form(argv)
    try:
        logs.configure(form, "aggregator", sys.stderr)
        settings = read_settings(argv)
        log.info("settings", values=settings.as_json())
        for number in STOP:  # while it waits for another aggregator to end
            signal.signal(number, _end)
        gate = Gate(settings.tls, settings.revoked, utc_now) if settings.tls else None  # refuses before a file is made
        asyncio.run(_run(settings, build(settings, reached), gate))
    except DeerfieldError as error:
        return ended(error, form)
    except BaseExceptionGroup as group:  # of the server's tasks: the first one that failed has ended the others
        ours, others = group.split(DeerfieldError)
        if ours is None or others is not None:
            raise
        return ended(_first(ours), form)
    return 0


def _end(number: int, frame: object) -> None:
    sys.exit(SIGNALLED + number)


def _first(group: BaseExceptionGroup[DeerfieldError]) -> DeerfieldError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


async def _run(settings: Settings, aggregator: Aggregator, gate: Gate | None) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def told(number: int) -> None:
        if stop.is_set():  # told twice: as after a crash, the next start goes on where this one was
            os._exit(SIGNALLED + number)
        stop.set()

    for number in STOP:
        loop.add_signal_handler(number, told, number)
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


def build(settings: Settings, reached: OnDurable = ignore) -> Aggregator:
    """The aggregator over its database, key and blobs; `reached` is told each point that matters in a crash."""
    prepare = upgrade if settings.migrate else create
    opened = open_database(settings.database, settings.takeover_s, lambda: check_unused(settings.blobs), prepare)
    store, clock = Store(opened, reached), steady_clock()
    check_clock(store, clock(), settings.clock_skew_s)
    uploads, published = open_blobs(settings.blobs, settings.retention.gc_grace_s, on_durable=reached)
    check_blobs = check_owned(store, published, open_marks(settings.blobs), settings.blobs)
    if isinstance(settings.blobs, Path):
        tidy(settings.blobs)  # nobody else has the database, and with it the blobs
    desk = Desk(
        store=store,
        uploads=uploads,
        published=published,
        make=make,
        clock=clock,
        key=keyfile.load(settings.key),
        check_blobs=check_blobs,
        rules=settings.rules,
        reached=reached,
    )
    built = assemble_aggregator(desk, settings.lost_after_s, settings.retention, settings.bounds)
    return replace(built, drain_s=settings.drain_s, tracking_patience_s=settings.tracking_patience_s)


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
