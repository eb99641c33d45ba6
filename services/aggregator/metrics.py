"""The aggregator's metrics: what passes is counted here, how runs stand is read from the database when it is asked.

Labels are bounded: a run has one until it has ended, calls and reasons are closed sets, and no metric names a site.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime

from prometheus_client import CollectorRegistry

import deerfield
from deerfield.errors import REFUSALS, DeerfieldError, Refusal, TooBusy
from services.aggregator.desk import Desk
from services.aggregator.rpc.admission import Admission
from services.aggregator.sql.census import Standing
from services.aggregator.sql.records import PhaseState
from services.telemetry.families import Family, Live, Reading

STATES: tuple[PhaseState, ...] = ("OPEN", "COLLECTING", "AGGREGATING", "PUBLISHED")
FATES = ("waiting", "taken", "sealed", "declined", "left", "lost")

UPLOAD_BYTES = Family(
    name="deerfield_upload_bytes_total", kind="counter", unit="bytes", meaning="Bytes of chunks that sites have sent"
)
RESUMED_BYTES = Family(
    name="deerfield_upload_resumed_bytes_total",
    kind="counter",
    unit="bytes",
    meaning="Bytes of an announced update that were already here when its upload was begun again",
)
DOWNLOAD_BYTES = Family(
    name="deerfield_download_bytes_total", kind="counter", unit="bytes", meaning="Bytes of published chunks served"
)
UPLOAD_SECONDS = Family(
    name="deerfield_upload_seconds", kind="histogram", unit="seconds", meaning="Time of an upload's stream, once let in"
)
AGGREGATION_SECONDS = Family(
    name="deerfield_aggregation_seconds",
    kind="histogram",
    unit="seconds",
    meaning="Time from the close of a phase to its next state",
)
CALLS_REFUSED = Family(
    name="deerfield_calls_refused_total",
    kind="counter",
    labels=("call", "reason"),
    meaning="Calls that ended in a refusal; UNAVAILABLE: this aggregator is ending, or cannot reach a store",
)
UPDATES_REFUSED = Family(
    name="deerfield_updates_refused_total",
    kind="counter",
    labels=("reason",),
    meaning="Of these, BeginUpload, PutChunks and Commit that another try does not mend: updates that were not taken",
)
COUNTED = (
    UPLOAD_BYTES,
    RESUMED_BYTES,
    DOWNLOAD_BYTES,
    UPLOAD_SECONDS,
    AGGREGATION_SECONDS,
    CALLS_REFUSED,
    UPDATES_REFUSED,
)


def _gauge(name: str, meaning: str, *labels: str, unit: str = "1") -> Family:
    return Family(name=name, kind="gauge", meaning=meaning, labels=labels, unit=unit)


BUILD = _gauge("deerfield_build_info", "1; the label says which version runs", "version")
CERTIFICATE = _gauge(
    "deerfield_certificate_expiry_timestamp_seconds",
    "When the data port's certificate expires; absent without TLS",
    unit="seconds since 1970",
)
ADMITTED = _gauge("deerfield_uploads_admitted", "Uploads that are being taken in")
WAITING = _gauge("deerfield_uploads_waiting", "Uploads that wait for their turn")
READABLE = _gauge(
    "deerfield_database_up", "1 if the database could be read for this answer; 0: what is on runs is absent"
)
RUNNING = _gauge("deerfield_runs_running", "Runs that are running")
PAUSED = _gauge("deerfield_runs_paused", "Runs that are paused")
ROUND = _gauge("deerfield_round", "Round of the newest phase", "run")
PHASE = _gauge("deerfield_phase", "Number of the newest phase in its round", "run")
STATE = _gauge("deerfield_phase_state", "1 for the state that the newest phase is in, 0 for the others", "run", "state")
AGE = _gauge("deerfield_phase_age_seconds", "Time since the newest phase opened, without pauses", "run", unit="seconds")
DEADLINE = _gauge(
    "deerfield_phase_deadline_seconds", "After how long without progress it closes", "run", unit="seconds"
)
SITES = _gauge("deerfield_sites", "Sites by what they are to the newest phase", "run", "status")
SEEN = _gauge("deerfield_sites_seen", "Sites that have called within the time after which one is lost", "run")
LATE = _gauge(
    "deerfield_sites_late", "Sites that had taken the phase before, and had not answered when it closed", "run"
)
DECLINED = _gauge("deerfield_sites_declined", "Sites that declined the newest phase", "run", "reason")
DEVIATION = _gauge("deerfield_deviation", "Deviation of the last published phase; absent where there is none", "run")
SPENT = _gauge("deerfield_epsilon_spent", "The highest epsilon of a site in this run, so far", "run", unit="epsilon")
LEFT = _gauge(
    "deerfield_epsilon_left",
    "What is left at the site that has least; scope run: of the run's epsilon; lifetime: of the consortium's limit, "
    "by what sites attest",
    "run",
    "scope",
    unit="epsilon",
)
READ = (
    BUILD,
    CERTIFICATE,
    ADMITTED,
    WAITING,
    READABLE,
    RUNNING,
    PAUSED,
    ROUND,
    PHASE,
    STATE,
    AGE,
    DEADLINE,
    SITES,
    SEEN,
    LATE,
    DECLINED,
    DEVIATION,
    SPENT,
    LEFT,
)
FAMILIES = (*COUNTED, *READ)
UPLOADING = frozenset({"BeginUpload", "PutChunks", "Commit"})
UNTAKEN = REFUSALS.keys() - {TooBusy.reason}  # after any other reason the same update comes again


class Metrics:
    """What is counted as it passes, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.upload_bytes = UPLOAD_BYTES.counter(self.registry)
        self.resumed_bytes = RESUMED_BYTES.counter(self.registry)
        self.download_bytes = DOWNLOAD_BYTES.counter(self.registry)
        self.upload_seconds = UPLOAD_SECONDS.histogram(self.registry)
        self.aggregation_seconds = AGGREGATION_SECONDS.histogram(self.registry)
        self._calls_refused = CALLS_REFUSED.counter(self.registry)
        self._updates_refused = UPDATES_REFUSED.counter(self.registry)

    def aggregating(self) -> AbstractContextManager[object]:
        """Times an aggregation."""
        return self.aggregation_seconds.time()

    def refused(self, call: str, reason: str) -> None:
        """Counts a call that ended in a refusal, and an update that was not taken."""
        self._calls_refused.labels(call, "UNAVAILABLE" if reason == Refusal.reason else reason).inc()
        if call in UPLOADING and reason in UNTAKEN:
            self._updates_refused.labels(reason).inc()

    def read(
        self, desk: Desk, admission: Admission, lost_after_s: float, expires: Callable[[], datetime] | None
    ) -> None:
        """Adds what is read when it is asked for; `expires` says when the data port's certificate does."""

        def readings() -> Iterator[Reading]:
            yield BUILD, (deerfield.__version__,), 1
            yield ADMITTED, (), admission.admitted
            yield WAITING, (), admission.waiting
            if expires is not None:
                yield CERTIFICATE, (), expires().timestamp()
            try:
                with desk.store.edge() as edge:
                    found = edge.census.standings()
            except DeerfieldError:  # the aggregator sees it too, and says so in its log
                yield READABLE, (), 0
                return
            yield READABLE, (), 1
            for each, state in ((RUNNING, "RUNNING"), (PAUSED, "PAUSED")):
                yield each, (), sum(standing.run_state == state for standing in found)
            for standing in found:
                yield from _run(standing, desk, lost_after_s)

        self.registry.register(Live(READ, readings))


def _run(standing: Standing, desk: Desk, lost_after_s: float) -> Iterator[Reading]:
    run, now, sites = standing.run, desk.clock(), standing.spec.federation.sites
    yield ROUND, (run,), standing.round
    yield PHASE, (run,), standing.phase
    yield AGE, (run,), max(0.0, (standing.paused_at or now) - standing.opened_at)
    yield DEADLINE, (run,), standing.spec.federation.deadline_s
    yield SEEN, (run,), sum(now - desk.presence.last_seen(site, 0) <= lost_after_s for site in sites)
    yield LATE, (run,), standing.late
    for state in STATES:
        yield STATE, (run, state), float(state == standing.state)
    for fate in FATES:
        yield SITES, (run, fate), standing.fates.get(fate, 0)
    for reason, count in standing.declined.items():
        yield DECLINED, (run, reason), count
    yield from _published(standing)


def _published(standing: Standing) -> Iterator[Reading]:
    run, detail, spec = standing.run, standing.published, standing.spec
    if not detail:
        return
    if detail["deviation"] is not None:
        yield DEVIATION, (run,), detail["deviation"]
    spent = _highest(detail["epsilon"])
    yield SPENT, (run,), spent
    if spec.privacy.epsilon is not None:
        yield LEFT, (run, "run"), spec.privacy.epsilon - spent
    if spec.federation.lifetime_epsilon is not None:
        yield LEFT, (run, "lifetime"), spec.federation.lifetime_epsilon - _highest(detail["epsilon_total"])


def _highest(epsilons: Mapping[str, float | None]) -> float:
    """The highest of the sites; null stands for an infinite one."""
    return max((float("inf") if each is None else each for each in epsilons.values()), default=0.0)
