"""A whole federation of real processes that can be killed: one aggregator on a fixed port, its sites, an operator."""

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from deerfield.exchange import ENDINGS, Event
from deerfield.runspec import RunSpec
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient
from services.aggregator.blobstore.blobs import Blobs
from services.aggregator.blobstore.bucket import open_blobs, read_place
from tests.chaos.site import Job

PATIENT = Backoff(first_s=0.1, last_s=0.5, patience_s=90)
START_S = 120.0
RUN_S = 300.0
TICK_S = 0.02


def free_port() -> int:
    """A port that is free on loopback, and that no outgoing connection is given."""
    while True:
        with socket.socket() as taken, suppress(OSError):
            taken.bind(("127.0.0.1", random.randint(20_000, 32_000)))
            return int(taken.getsockname()[1])


@dataclass
class Aggregator:
    """An aggregator process: started, killed and started again over the same folder, database and port."""

    folder: Path
    database: str
    flags: Sequence[str] = ()
    blobs: str = ""  # default: a folder here
    environment: Mapping[str, str] = field(default_factory=dict)  # beside this process's own
    port: int = field(default_factory=free_port)
    starts: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, point: str = "never") -> None:
        """Starts it, and waits until it serves or has killed itself."""
        flags = ["--listen", self.address, "--health", "127.0.0.1:0", "--database", self.database]
        places = ["--blobs", self.blobs or str(self.folder / "blobs"), "--key", str(self.folder / "aggregator.key")]
        command = [sys.executable, "-m", "tests.chaos.mortal_aggregator", point, *flags, *places, *self.flags]
        self.starts += 1
        with open(self.folder / "aggregator.log", "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | dict(self.environment),
            )
        readable, _, _ = select.select([self.process.stdout], [], [], START_S)
        assert readable, f"it did not start within {START_S} s: {self.log()}"
        line = self.process.stdout.readline()
        assert (json.loads(line)["listening"] if line else self.address) == self.address

    def died(self) -> int | None:
        """Its exit code, once it has ended."""
        return self.process.poll() if self.process else None

    def kill(self) -> None:
        """Kills it, if it is alive."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process.stdout.close()
            self.process = None

    def log(self) -> str:
        return (self.folder / "aggregator.log").read_text()[-4000:]


@dataclass
class Course:
    """How a run went."""

    run: str = ""
    events: list[Event] = field(default_factory=list)
    restarts: int = 0
    kills: int = 0
    seconds: float = 0.0
    served_s: float = 0.0  # of it, since the aggregator served for the first time
    trouble: BaseException | None = None
    same: bool | None = None  # the hashes of everything published, where they could be the same

    @property
    def over(self) -> bool:
        return any(event.kind in ENDINGS for event in self.events)


@dataclass
class Consortium:
    """Runs `spec` to its end over an aggregator that dies on the way; every death is followed by a start."""

    folder: Path
    database: str
    spec: RunSpec
    flags: Sequence[str] = ()
    starts: Callable[["Consortium"], Callable[[str, str, str], object]] | None = (
        None  # (name, address, run) -> a process
    )
    site_points: Mapping[str, str] = field(default_factory=dict)  # where a site kills itself, the first time
    stays_dead: bool = False  # a site that was killed
    blobs: str = ""  # default: a folder here
    environment: Mapping[str, str] = field(default_factory=dict)  # of the aggregator
    between: Callable[["Consortium"], object] = lambda _: None  # while no aggregator lives
    job: Mapping[str, object] = field(default_factory=dict)  # more for each `Job`

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.aggregator = Aggregator(self.folder, self.database, self.flags, self.blobs, self.environment)
        self.course = Course()
        self.sites: dict[str, object] = {}
        self.reach = self.aggregator.address  # where sites find it

    def opened(self) -> tuple[Blobs, Blobs] | None:
        """The blobs, where they are not in the folder."""
        return open_blobs(read_place(self.blobs), environment=self.environment) if self.blobs else None

    def live(self, name: str, point: str = "never") -> None:
        """Starts a site."""
        place = {"name": name, "address": self.reach, "run": self.course.run}
        if self.starts is not None:
            self.sites[name] = self.starts(self)(*place.values())
        else:
            self.sites[name] = Job(**place, state=self.folder / name, spec=self.spec, point=point, **self.job).start()

    def complete(self, *points: str, meddle: Callable[["Consortium"], object] = lambda _: None) -> Course:
        """To the end of the run and of all its processes; each start of the aggregator dies at the next of `points`.

        `meddle` is called over and over while the run lasts.
        """
        began, left = time.monotonic(), [*points]
        with ExitStack() as stack:
            stack.callback(self.end)
            self.aggregator.start(*left[:1])
            served = time.monotonic()
            caller = threading.Thread(target=self._operate, name="operator", daemon=True)
            caller.start()
            pause = threading.Event()
            while caller.is_alive() or any(site.exitcode is None for site in self.sites.values()):
                assert time.monotonic() - began < RUN_S, self.told()
                if (code := self.aggregator.died()) is not None:
                    assert code == -signal.SIGKILL, self.told()
                    self.course.kills += 1
                    self.aggregator.kill()
                    self.between(self)
                    left = left[1:]
                    self.aggregator.start(*left[:1])
                    self.course.restarts += 1
                for name in self.spec.federation.sites if self.course.run else ():
                    if name not in self.sites:
                        self.live(name, self.site_points.get(name, "never"))
                    elif self.sites[name].exitcode == -signal.SIGKILL and not self.stays_dead:
                        self.course.kills += 1
                        self.course.restarts += 1
                        self.live(name)
                meddle(self)
                pause.wait(TICK_S)
            if self.course.trouble:
                raise AssertionError(self.told()) from self.course.trouble
            ended = time.monotonic()
        self.course.seconds, self.course.served_s = ended - began, ended - served
        dead = [name for name, site in self.sites.items() if site.exitcode != 0]
        assert dead == (list(self.site_points) if self.stays_dead else []), self.told()
        self.course.kills += len(dead)
        return self.course

    def _operate(self) -> None:
        """The operator: starts the run, once, and follows it to its end."""
        try:
            with connect(self.aggregator.address, role="operator") as channel:
                runs = RunsClient(channel, backoff=PATIENT)
                self.course.run = runs.start(self.spec, "once")
                for event in runs.watch(self.course.run):
                    if event.number:
                        self.course.events.append(event)
        except BaseException as error:
            self.course.trouble = error

    def end(self) -> None:
        """Nothing outlives this."""
        self.aggregator.kill()
        for site in self.sites.values():
            if site.exitcode is None:
                site.kill()
            site.join(10)

    def told(self) -> str:
        """What the processes have said."""
        logs = [f"-- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log"))]
        return "\n".join([f"{self.course}", *logs])


def killed_at(events: int, delay_s: float) -> Callable[[Consortium], None]:
    """A meddler that kills the aggregator once, from outside, so long after its operator has seen so many events."""
    instant_s: list[float] = []

    def meddle(consortium: Consortium) -> None:
        if not instant_s and len(consortium.course.events) >= events:
            instant_s.append(time.monotonic() + delay_s)
        if instant_s and time.monotonic() >= instant_s[0]:
            instant_s[0] = float("inf")
            consortium.aggregator.process.kill()
            consortium.aggregator.process.wait(10)

    return meddle
