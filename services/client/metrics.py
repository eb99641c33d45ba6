"""A site's metrics, and the link that counts what passes it: nothing about records, only about tasks and budget."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry

import deerfield
from deerfield.errors import Refusal
from deerfield.link import Assignment, Link
from deerfield.types import Countersigned, Update
from services.telemetry.families import Family, Live, Reading

TASKS = Family(
    name="deerfield_site_tasks_total",
    kind="counter",
    labels=("outcome",),
    meaning="Answers to tasks: sealed, or the reason why there was no update",
)
UPLOAD_SECONDS = Family(
    name="deerfield_site_upload_seconds",
    kind="histogram",
    unit="seconds",
    meaning="Time from the first attempt to deliver an update to its seal, all pauses among it",
)


def _gauge(name: str, meaning: str, *labels: str, unit: str = "1") -> Family:
    return Family(name=name, kind="gauge", meaning=meaning, labels=labels, unit=unit)


BUILD = _gauge("deerfield_site_build_info", "1; the label says which version runs", "version")
CONTACT = _gauge(
    "deerfield_site_contact_timestamp_seconds", "When the aggregator last answered; 0: never", unit="seconds since 1970"
)
ROUND = _gauge("deerfield_site_round", "Round of the newest task")
PHASE = _gauge("deerfield_site_phase", "Phase of the newest task")
STEPS = _gauge("deerfield_site_steps", "Optimizer steps of the newest task", "which")
EPSILON = _gauge("deerfield_site_epsilon_left", "What is left of a population's budget", "population", unit="epsilon")
DELTA = _gauge("deerfield_site_delta_left", "What is left of a population's delta", "population", unit="delta")
CERTIFICATE = _gauge(
    "deerfield_site_certificate_expiry_timestamp_seconds",
    "When the site's certificate expires; absent without TLS",
    unit="seconds since 1970",
)
READ = (BUILD, CONTACT, ROUND, PHASE, STEPS, EPSILON, DELTA, CERTIFICATE)
FAMILIES = (TASKS, UPLOAD_SECONDS, *READ)
Budgets = Callable[[], Mapping[str, tuple[float, float]]]  # by population: the epsilon and the delta that are left


class Metrics:
    """In a registry of its own; `budgets` and `expires` are asked at each fetch."""

    def __init__(
        self, budgets: Budgets, expires: Callable[[], datetime] | None, clock: Callable[[], float] = time.time
    ) -> None:
        self.registry = CollectorRegistry()
        self.tasks = TASKS.counter(self.registry)
        self.upload_seconds = UPLOAD_SECONDS.histogram(self.registry)
        self.contact, self.task, self.steps = 0.0, (0, 0), (0, 0)
        self._budgets, self._expires, self._clock = budgets, expires, clock
        self.registry.register(Live(READ, self._read))

    def heard(self) -> None:
        """The aggregator has answered."""
        self.contact = self._clock()

    def _read(self) -> Iterator[Reading]:
        yield BUILD, (deerfield.__version__,), 1
        yield CONTACT, (), self.contact
        yield ROUND, (), self.task[0]
        yield PHASE, (), self.task[1]
        yield STEPS, ("done",), self.steps[0]
        yield STEPS, ("all",), self.steps[1]
        for population, (epsilon, delta) in self._budgets().items():
            yield EPSILON, (population,), epsilon
            yield DELTA, (population,), delta
        if self._expires is not None:
            yield CERTIFICATE, (), self._expires().timestamp()


@dataclass(frozen=True)
class MeasuredLink:
    """A `deerfield.link.Link` that is another one, counted."""

    link: Link
    metrics: Metrics

    def next_task(self) -> Assignment | None:
        """As `Link` says."""
        assignment = self.link.next_task()
        self.metrics.heard()
        if assignment is not None:
            self.metrics.task, self.metrics.steps = (assignment.task.round, assignment.task.phase), (0, 0)
        return assignment

    def send(self, assignment: Assignment, update: Update) -> Countersigned:
        """As `Link` says; an update that is refused counts by its reason."""
        try:
            with self.metrics.upload_seconds.time():
                receipt = self.link.send(assignment, update)
        except Refusal as refusal:
            self.metrics.tasks.labels(refusal.reason).inc()
            raise
        self.metrics.heard()
        self.metrics.tasks.labels("sealed").inc()
        return receipt

    def head(self, population: str) -> Countersigned | None:
        """As `Link` says."""
        return self.link.head(population)

    def decline(self, assignment: Assignment, reason: str, detail: str) -> None:
        """As `Link` says."""
        self.metrics.tasks.labels(reason).inc()
        self.link.decline(assignment, reason, detail)

    def leave(self, run: str, detail: str) -> None:
        """As `Link` says."""
        self.link.leave(run, detail)

    def heartbeat(self, assignment: Assignment, steps_done: int, steps: int) -> bool:
        """As `Link` says."""
        self.metrics.steps = (steps_done, steps)
        return self.link.heartbeat(assignment, steps_done, steps)
