"""The folder of one task, on the volume that the agent and the Job share: its files, and what stands in them.

Nothing of a training is ever put here but what the strategy has released, and how many steps it has taken.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import deerfield
from deerfield import durable
from deerfield.errors import REFUSALS, DeerfieldError, EngineFault, InvalidInput, NoMachine, Refusal, RoundClosed
from deerfield.exchange import Key
from deerfield.ledger.account import Reservation
from deerfield.ledger.reading import bytes_of, update_of
from deerfield.link import Assignment
from deerfield.runspec import RunSpec, Section
from deerfield.tensors import Factors, Tensors, digest
from deerfield.types import Spend, Task
from services.client.policy import Policy

REQUEST, START = "request.json", "start.safetensors"
STARTED, CHECKED, PROGRESS = "started", "checked", "progress.json"
RESERVATION = "reservation.json"
RELEASE, RELEASED, FAULT = "release.safetensors", "released.json", "fault.json"
PREFIX = "deerfield-"  # of the name of a task's folder, and of its Job
TRIED = "tried-out"  # is there for a moment when an agent starts
INVALID_INPUT = "INVALID_INPUT"  # beside the reasons of refusals: what a person can mend


class Request(Section):
    """What a Job is asked to do; it has nothing else from the site but data and base model."""

    build: str = deerfield.__version__
    site: str
    run: str
    incarnation: int
    round: int
    phase: int
    factors: Factors
    epochs: int
    base: str  # digest of the start tensors
    spec: RunSpec
    # by value: whatever a person writes into the file meanwhile, a Job does what the agent has charged for
    policy: Policy
    split_key: str  # hex


@dataclass(frozen=True, slots=True)
class Folder:
    """One task's files. Each is whole or not there, and can be read by its owner alone."""

    path: Path

    def begin(self, site: str, policy: Policy, split_key: bytes, assignment: Assignment) -> None:
        """Makes the folder and asks for a task; raises NoMachine if the volume cannot be written."""
        key, task = assignment.key, assignment.task
        request = Request(
            site=site,
            **asdict(key),
            factors=task.factors,
            epochs=task.epochs,
            base=digest(task.start),
            spec=assignment.spec,
            policy=policy,
            split_key=split_key.hex(),
        )
        self._keep(START, bytes_of(task.start))
        self._keep(REQUEST, request.model_dump_json().encode())

    def request(self) -> Request:
        """What is asked for; raises InvalidInput if it was asked by an agent of another version."""
        with self._formed(REQUEST):
            found = json.loads(self._read(REQUEST))
            if (build := found.get("build")) != deerfield.__version__:
                raise InvalidInput(
                    f"the agent is deerfield {build}, its Job {deerfield.__version__}; give both the same image tag"
                )
            return Request.model_validate(found)

    def assignment(self, request: Request) -> Assignment:
        """The task with its start tensors; raises InvalidInput if they are not those of the request."""
        task = Task(
            round=request.round,
            phase=request.phase,
            factors=request.factors,
            epochs=request.epochs,
            start=self._tensors(START, request.base),
        )
        return Assignment(
            run=request.run, incarnation=request.incarnation, spec=request.spec, task=task, base=request.base
        )

    def reserve(self, reservation: Reservation) -> None:
        """Lets the Job go on: what it does from now on is charged."""
        self.put(RESERVATION, json.dumps(asdict(reservation)).encode())

    def reservation(self) -> Reservation:
        """What was charged."""
        with self._formed(RESERVATION):
            found = json.loads(self._read(RESERVATION))
            return Reservation(**{**found, "key": Key(**found["key"]), "spend": Spend(**found["spend"])})

    def release(self, delta: Tensors, metrics: Mapping[str, float]) -> None:
        """Hands over what was released: the tensors, and then the word that they are complete."""
        self.put(RELEASE, bytes_of(delta))
        self.put(RELEASED, json.dumps({"digest": digest(delta), "metrics": dict(metrics)}).encode())

    def released(self) -> tuple[Tensors, Mapping[str, float]]:
        """The release, and the metrics beside it; raises InvalidInput if the bytes are not those that were written."""
        with self._formed(RELEASED):
            found = json.loads(self._read(RELEASED))
            return self._tensors(RELEASE, found["digest"]), found["metrics"]

    def progress(self, done: int, steps: int) -> None:
        """Says how far the training is."""
        self.put(PROGRESS, json.dumps([done, steps]).encode())

    def steps(self) -> tuple[int, int]:
        """How far it is: (steps done, steps of the task); a file that cannot be read now is no reason to stop."""
        try:
            done, steps = json.loads((self.path / PROGRESS).read_bytes())
        except (OSError, ValueError):
            return 0, 0
        return done, steps

    def fail(self, error: Exception) -> None:
        """Says why there will be no release; of what deerfield has no name for, its kind alone."""
        reason, sentence = "", type(error).__name__
        if isinstance(error, DeerfieldError):
            sentence = str(error)
            reason = error.reason if isinstance(error, Refusal) else INVALID_INPUT * isinstance(error, InvalidInput)
        self.put(FAULT, json.dumps({"reason": reason, "sentence": sentence}).encode())

    def fault(self) -> DeerfieldError:
        """What the Job would have raised in the agent's own process."""
        with self._formed(FAULT):
            found = json.loads(self._read(FAULT))
        if found["reason"] == INVALID_INPUT:
            return InvalidInput(found["sentence"])
        known = REFUSALS.get(found["reason"], EngineFault)
        return known(f"the Job {self.path.name} failed: {found['sentence']}")

    def has(self, name: str) -> bool:
        """Whether a file is there. Lists the folder: NFS may remember for a minute that a name was not there."""
        try:
            return name in os.listdir(self.path)
        except FileNotFoundError:
            return False

    def put(self, name: str, data: bytes) -> None:
        """Adds a file to a task that is still wanted.

        Raises:
            RoundClosed: the agent has taken the task back.
            NoMachine: the volume cannot be written.
        """
        if not self.has(REQUEST):
            raise RoundClosed(f"{self.path} is gone: the task is no longer wanted")
        self._keep(name, data)

    def remove(self) -> None:
        """Takes the task back, and everything that was written about it."""
        with suppress(OSError):
            (self.path / REQUEST).unlink()  # first: from now on nobody adds a file
        shutil.rmtree(self.path, ignore_errors=True)

    def _keep(self, name: str, data: bytes) -> None:
        try:
            durable.replaced(self.path / name, data)
        except OSError as error:
            raise NoMachine(
                f"{self.path} cannot be written ({error.strerror}); make room on the volume that agent and Job share, "
                "or let the user of both write to it"
            ) from error

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise NoMachine(f"{self.path / name} cannot be read ({error.strerror}); look at the volume") from error

    def _tensors(self, name: str, expected: str) -> Tensors:
        with self._formed(name):
            return update_of(self._read(name), expected)

    @contextmanager
    def _formed(self, name: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"{self.path / name} is not what was written ({error}); look at the volume") from error


def folders(work: Path) -> list[Folder]:
    """The tasks on a volume, by name: whatever else is there, such as `lost+found`, is not ours."""
    return [Folder(path) for path in sorted(work.glob(f"{PREFIX}*"))]


def try_out(work: Path) -> None:
    """Writes a file as every other is written; raises InvalidInput if the volume does not take it."""
    try:
        durable.replaced(work / TRIED, b"")
        (work / TRIED).unlink()
    except OSError as error:
        raise InvalidInput(
            f"--work {work} cannot be written ({error.strerror}); mount a volume there that the user of agent and Jobs "
            "may write to, with room in it and hard links"
        ) from error
