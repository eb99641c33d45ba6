"""The agent's side: a workbench whose work is done by a Kubernetes Job for each task."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from deerfield import manifest
from deerfield.errors import NoMachine
from deerfield.ledger.account import Reservation
from deerfield.link import Assignment
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.tensors import Tensors
from services.client.ondemand.folder import CHECKED, FAULT, RELEASED, STARTED, Folder
from services.client.ondemand.jobs import Jobs
from services.client.ondemand.manifest import new_name
from services.client.policy import Policy
from services.client.site import OnStep

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long an agent waits, and how often it looks."""

    start_s: float = 600.0  # for a machine and its image
    settle_s: float = 10.0  # for the last files of a Job that has ended, on a volume that is slow to show them
    files_s: float = 0.5  # from one look at the folder to the next
    cluster_s: float = 5.0  # and at the Job


@dataclass(kw_only=True)
class JobWorkbench:
    """`site.Workbench` that has neither model nor data; one task at a time."""

    site: str
    policy: Policy
    split_key: bytes
    work: Path
    jobs: Jobs
    patience: Patience = field(default_factory=Patience)
    _folder: Folder | None = None
    _failed: bool = False  # the Job has ended by itself, and a person may want to read its log
    _metrics: Mapping[str, float] = field(default_factory=dict)

    def check(self, assignment: Assignment, on_step: OnStep) -> None:
        """Starts a Job for the task, and waits until it has checked the engine; no record was read then.

        Raises:
            NoMachine: the Job cannot be made, did not start in time, or ended without a word.
            DeerfieldError: what the check has raised in the Job.
        """
        name = new_name(self.site, assignment.key)
        self._folder = folder = Folder(self.work / name)
        folder.begin(self.site, self.policy, self.split_key, assignment)
        self.jobs.create(name, assignment.key, folder.path, assignment.spec.federation.deadline_s)
        log.info("Job created", job=name)
        self._wait(folder, CHECKED, on_step)

    def release(self, assignment: Assignment, reservation: Reservation, on_step: OnStep) -> Tensors:
        """Lets the Job go on, and waits for what it releases, which fits what the task asks for.

        Raises:
            NoMachine: the Job ended without a word.
            DeerfieldError: what the training has raised in the Job, or what does not fit.
        """
        folder = self._begun()
        folder.reserve(reservation)
        self._wait(folder, RELEASED, on_step)
        delta, self._metrics = folder.released()
        check(delta, assignment)
        return delta

    def done(self) -> None:
        """Deletes the task's folder, and its Job unless that has failed."""
        if self._folder is not None:
            self._folder.remove()
            if not self._failed:
                self.jobs.delete(self._folder.path.name)
        self._folder, self._failed, self._metrics = None, False, {}

    def metrics(self) -> Mapping[str, float]:
        """What the Job has let out beside the release, by the policy that it was given."""
        return self._metrics

    def _begun(self) -> Folder:
        if self._folder is None:
            raise NoMachine("there is no Job for the task; check comes before release")
        return self._folder

    def _wait(self, folder: Folder, name: str, on_step: OnStep) -> None:
        """Until the Job has written a file; says how far it is, and raises what it has failed of."""
        watch = _Watch(self.jobs, folder, self.patience)
        while not folder.has(name):
            if folder.has(FAULT):
                self._failed = True
                raise folder.fault()
            self._failed = watch.look()
            on_step(*folder.steps())
            time.sleep(self.patience.files_s)


class _Watch:
    """Sees that somebody is at work on a folder."""

    def __init__(self, jobs: Jobs, folder: Folder, patience: Patience) -> None:
        self._jobs, self._folder, self._patience = jobs, folder, patience
        self._begun = self._looked = time.monotonic()
        self._ended, self._words = 0.0, ""

    def look(self) -> bool:
        """Whether the Job has ended; raises NoMachine once its last files would be there, or if it has not begun."""
        now, name = time.monotonic(), self._folder.path.name
        if self._ended:
            if now - self._ended > self._patience.settle_s:
                raise NoMachine(f"Job {name} ended without an answer: {self._words or 'no reason is known'}")
            return True
        if now - self._looked < self._patience.cluster_s:
            return False
        seen, self._looked = self._jobs.look(name), now
        self._words = seen.words
        if seen.state in ("ended", "gone"):
            self._ended = now
        elif now - self._begun > self._patience.start_s and not self._folder.has(STARTED):
            raise NoMachine(
                f"Job {name} has not started within {self._patience.start_s:g} s: "
                f"{seen.words or 'no reason is known'}; see `kubectl describe job {name}`"
            )
        return bool(self._ended)


def check(delta: Tensors, assignment: Assignment) -> None:
    """Holds a release against what its task asks for, as the aggregator will.

    Raises:
        UnknownTensor, WrongShape, NotFinite: it is no update of the task.
    """
    told = manifest.describe(delta)
    manifest.check(told, make(assignment.spec).declares.upload(assignment.task))
    held = dict(manifest.pieces(delta, told, told.chunks))
    manifest.verify(told, held.__getitem__)


def build(bench: JobWorkbench, spec: RunSpec) -> JobWorkbench:
    """The workbench, once the policy maps what a run names; whether the model is what it says, the Job sees.

    Raises:
        NotMapped, PolicyRefused: the policy has no such population or base model, or does not allow the run.
    """
    bench.policy.population(spec)
    bench.policy.base(spec)
    return bench
