"""The processes of an embedded run: one aggregator, one preloader and what it forks. None of them outlives this one.

Both children end when their standard input closes, which the operating system does for us however we die.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from deerfield.errors import DeerfieldError, InvalidInput, RunFailed

ERROR = "error: "
START_S = 180.0  # a cold disk reads torch slowly
STOP_S = 30.0  # the aggregator finishes what it is writing to MLflow


def sentence(log: Path) -> str:
    """The last thing that a process said was wrong, or where to look."""
    lines = log.read_text("utf-8", errors="replace").splitlines() if log.exists() else []
    said = [sentence for sentence in map(error_in, lines) if sentence]
    return said[-1] if said else f"{lines[-1] if lines else 'it said nothing'} (whole log: {log})"


def error_in(line: str) -> str:
    """What a line of a log, in either form, says that its process has ended of; empty where it says no such thing."""
    if line.startswith("{"):
        with suppress(ValueError):
            line = str(json.loads(line).get("event", ""))
    return line.removeprefix(ERROR) if line.startswith(ERROR) else ""


def failure(code: int, log: Path) -> DeerfieldError:
    """The error that a process ended with, as this process's own."""
    return InvalidInput(sentence(log)) if code == InvalidInput.exit_code else RunFailed(sentence(log))


@dataclass
class Preloader:
    """Forks `services.client` processes that have torch imported already."""

    requests: IO[bytes]
    log: Path
    _messages: "queue.Queue[dict[str, Any] | None]" = field(default_factory=queue.Queue)
    _ready: bool = False
    _ended: dict[int, int] = field(default_factory=dict)

    def start(self, argv: Sequence[str], log: Path) -> int:
        """Starts `services.client` with `argv`; answers its pid."""
        while not self._ready:
            self._next(START_S)
        self.requests.write(json.dumps({"argv": list(argv), "log": str(log)}).encode() + b"\n")
        self.requests.flush()
        while True:
            message = self._next(START_S)
            if "started" in message:
                return int(message["started"])

    def wait(self, pid: int, timeout_s: float) -> int:
        """The exit code of a child that was started here."""
        while pid not in self._ended:
            self._next(timeout_s)
        return self._ended.pop(pid)

    def ended(self, wait_s: float) -> dict[int, int]:
        """Children that have ended since the last call, with their exit codes; waits so long if there is no news."""
        if wait_s and self._messages.empty() and not self._ended:
            with suppress(RunFailed):
                self._next(wait_s)
        while not self._messages.empty():
            self._next(0)
        ended, self._ended = self._ended, {}
        return ended

    def _next(self, timeout_s: float) -> dict[str, Any]:
        try:
            message = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            raise RunFailed(f"no answer from a process within {timeout_s:.0f} s; see {self.log}") from None
        if message is None:
            self._messages.put(None)  # it stays ended, whoever asks next
            raise RunFailed(f"the preloader ended: {sentence(self.log)}")
        self._ready = self._ready or "ready" in message
        if "ended" in message:
            self._ended[int(message["ended"])] = int(message["code"])
        return message

    def listen(self, stream: IO[bytes]) -> None:
        """Queues what the preloader says, until it ends."""
        with stream:
            for line in stream:
                self._messages.put(json.loads(line))
        self._messages.put(None)


@contextmanager
def preloader(folder: Path) -> Iterator[Preloader]:
    """A preloader that ends, with all its children, when the block is left."""
    log = folder / "logs" / "preload.log"
    with _process(["services.client.preload"], log) as child:
        forks = Preloader(child.requests, log)
        threading.Thread(target=forks.listen, args=(child.answers,), daemon=True).start()
        yield forks


@dataclass(frozen=True, slots=True)
class Aggregator:
    """A running aggregator."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises what it ended with, if it has."""
        if (code := self.process.poll()) is not None:
            raise RunFailed(f"the aggregator ended with code {code}: {sentence(self.log)}")


@contextmanager
def aggregator(flags: Sequence[str], log: Path) -> Iterator[Aggregator]:
    """An aggregator with these flags, listening; it ends when the block is left."""
    with _process(["services.aggregator", *flags, "--while-stdin"], log) as child, child.answers as answers:
        line = answers.readline()
        if not line:
            raise failure(child.process.wait(), log)
        yield Aggregator(str(json.loads(line)["listening"]), child.process, log)


@contextmanager
def worker(request: Path, log: Path, environment: Mapping[str, str]) -> Iterator["Child"]:
    """A process that runs the pipeline of `request`; it ends, with its tasks, when the block is left.

    Whoever reads its answers closes them.
    """
    with _process(["pipelines.local.worker", str(request)], log, environment) as child:
        yield child


@dataclass(frozen=True, slots=True)
class Child:
    """A process, and the two ends of it that this one holds."""

    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    answers: IO[bytes]


@contextmanager
def _process(module: Sequence[str], log: Path, more: Mapping[str, str] | None = None) -> Iterator[Child]:
    """`python -m module`, in a session of its own so that Ctrl-C reaches it through us alone."""
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment |= dict.fromkeys(("DEERFIELD_PROXY", "DEERFIELD_READY", "DEERFIELD_EGRESS_PROOF"), "")  # a hospital's
    environment["PYTHONSAFEPATH"] = "1"  # a kfp.py of the current folder is not KFP, there or in what it starts
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | environment | dict(more or {}),
            start_new_session=True,
        )
    requests, answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)  # both are pipes
    try:
        yield Child(process, requests, answers)
    finally:
        with suppress(BrokenPipeError):  # it has ended already
            requests.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
