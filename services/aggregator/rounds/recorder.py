"""Tells the tracking server what has happened, on a thread of its own: rounds never wait for it.

It reads the table of events behind a cursor, so nothing is lost over a restart and nothing is told twice for long: a
crash between telling and moving the cursor repeats one event, which tracking must bear. A tracking server that is away
holds up the run's end for as long as the patience allows. Of a run that has lost one event nothing more is told. Files
about a run are no events: each is logged sooner or later, also after the end, and its blob is kept until then.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Protocol

import structlog

from deerfield.errors import Unreachable
from deerfield.exchange import Event
from services.aggregator.champions.models import Models
from services.aggregator.rounds.patience import PATIENT, Patience
from services.aggregator.sql.attachments import Attachment
from services.aggregator.sql.store import Store

READER = "tracking"
OWN = ("registered", "tracking_waits", "tracking_failed", "attached")  # that need not be told, or not as events
AGAIN_S = 60.0  # between two attempts to log a file
IDLE_S = 1.0
LONGEST_S = 10.0  # between two attempts while the database is away

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A model version in the registry."""

    name: str
    version: str


class TrackingAway(Unreachable):
    """What keeps the course of runs does not answer as it should, and a later attempt may be answered."""


class Tracking(Protocol):
    """Where the course of runs is kept for people. Telling it the same thing twice changes nothing."""

    @property
    def models(self) -> Models | None:
        """Where it registers models; None: nowhere."""
        ...

    def record(self, event: Event) -> Registered | None:
        """Takes note of an event; answers the model it registered, if this was a run's last phase.

        Raises:
            TrackingAway: it may work later.
            Unreachable: what we keep ourselves is out of reach.
        """
        ...

    def attach(self, file: Attachment) -> None:
        """Keeps a file about a run, in the place of one before it; not asked for where nothing is registered."""


class Untracked:
    """Keeps nothing."""

    models = None

    def record(self, event: Event) -> Registered | None:
        return None

    def attach(self, file: Attachment) -> None:
        pass


class Recorder:
    """Feeds events to `tracking`; after a run's last phase it writes the event run_finished.

    The patience with an event counts from when it happened, or from the start: runs whose events wait for one another
    wait together.
    """

    def __init__(
        self,
        store: Store,
        tracking: Tracking,
        clock: Callable[[], float],
        told: Callable[[Event], None] = lambda event: None,
        *,
        patience: Patience = PATIENT,
    ) -> None:
        self._store = store
        self._tracking = tracking
        self._clock = clock
        self._told = told  # called, on the recorder's thread, after each event
        self._patience = patience
        self._began_at = clock()
        self._attach_at: dict[Attachment, float] = {}  # those that failed: when they are tried again
        self._stop = threading.Event()
        self._wait = patience.wait or self._stop.wait
        self.over: Future[None] = Future()  # done when the thread has ended; holds what broke it
        self._thread = threading.Thread(target=self._follow, name="recorder", daemon=True)

    def start(self) -> None:
        """Begins to follow the events."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stops after the event it is at and the files that wait, each tried once; leaves them after `timeout_s`.

        The next start goes on with what was left.
        """
        self._stop.set()
        self._thread.join(timeout_s)

    def drain(self) -> None:
        """Tells everything there is to tell, right here."""
        while self._step() or self._attach():
            pass

    def _follow(self) -> None:
        try:
            pause_s = IDLE_S
            while not self._stop.is_set():
                try:
                    pause_s = 0.0 if self._step() or self._attach() else IDLE_S
                except Unreachable:  # told where it happened; the cursor says where to go on
                    pause_s = min(2 * pause_s + IDLE_S, LONGEST_S)
                self._stop.wait(pause_s)
            while self._attach():  # a trial on one machine has no next start that would hand them over
                pass
        except BaseException as error:  # handed to whoever waits for `over`
            self.over.set_exception(error)
        else:
            self.over.set_result(None)

    def _step(self) -> bool:
        with self._store.edge() as edge:
            batch = edge.events(edge.cursor(READER), limit=1)
            untold = any(event.kind in OWN or edge.has_kind(event.run, "tracking_failed") for event in batch)
        for event in batch:
            registered, trouble = (None, "") if untold else self._tell(event)
            if self._stop.is_set() and trouble:
                return False
            with self._store.edge() as edge:
                if trouble:
                    edge.add_event(
                        event.run, "tracking_failed", {"reason": trouble, "event": event.kind}, self._clock()
                    )
                if registered and edge.ending(event.run) is None:
                    edge.add_event(event.run, "registered", asdict(registered), self._clock())
                if event.kind == "phase_published" and event.detail["last"] and edge.ending(event.run) is None:
                    edge.add_event(event.run, "run_finished", {"digest": event.detail["digest"]}, self._clock())
                edge.set_cursor(READER, event.number)
            self._told(event)
        return bool(batch)

    def _attach(self) -> bool:
        """Logs one file that waits; one that could not be logged lets the others go first."""
        with self._store.edge() as edge:
            waiting = edge.attachments.waiting()
        ready = [file for file in waiting if self._attach_at.get(file, 0.0) <= monotonic()]
        if not ready or self._tracking.models is None:
            return False
        file = ready[0]
        try:
            self._tracking.attach(file)
        except Exception as error:  # foreign code: whatever it raises, the file is kept
            log.warning("a file waits for tracking", run=file.run, name=file.name, error=f"{error}", again_s=AGAIN_S)
            self._attach_at[file] = monotonic() + AGAIN_S
            return True
        self._attach_at.pop(file, None)
        with self._store.edge() as edge:
            edge.attachments.logged(file)
        return True

    def _tell(self, event: Event) -> tuple[Registered | None, str]:
        """What tracking answered, or why it could not be told."""
        began_at, tries = self._clock(), 0
        while True:
            try:
                registered = self._tracking.record(event)
            except TrackingAway as error:
                is_away, trouble = True, f"{error}"
            except Unreachable:  # what we keep ourselves is out of reach, which has nothing to do with tracking
                raise
            except Exception as error:  # foreign code: whatever it raises, the run has its model
                is_away, trouble = False, f"{type(error).__name__}: {error}"
            else:
                if tries:
                    seconds = round(self._clock() - began_at, 1)
                    log.info("tracking answers again", run=event.run, event_kind=event.kind, seconds=seconds)
                return registered, ""
            tries += 1
            waited_s = self._clock() - max(event.time, self._began_at)
            pause_s = self._patience.pause_s(tries, waited_s, is_away=is_away)
            if tries == 1 or not is_away or pause_s is None:  # an outage is told when it begins and when it is over
                log.warning("tracking failed", run=event.run, event_kind=event.kind, error=trouble, again_s=pause_s)
            if pause_s is not None and tries == len(self._patience.quick_s) + 1:
                self._note_waits(event, trouble)
            if pause_s is None or self._wait(pause_s):
                return None, trouble

    def _note_waits(self, event: Event, trouble: str) -> None:
        """Tells whoever watches the run that its record, and perhaps its end, will be late."""
        with self._store.edge() as edge:
            if edge.ending(event.run) is None:
                edge.add_event(event.run, "tracking_waits", {"event": event.kind, "reason": trouble}, self._clock())
        self._told(event)
