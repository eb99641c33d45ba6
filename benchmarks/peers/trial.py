"""One trial: two sites add 1 and 2 to a model of 1,000 numbers, five times; the server may be killed in round two."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil

ROUNDS, TRAIN_S, SITES = 5, 3.0, (1, 2)
KILLED_ROUND = 2
LAST = 7.5  # 5 times the mean of 1 and 2, in every entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run: the state that its own command tells at the end, and its model, if there is one."""

    state: str
    model: str  # sha256 of the last model; empty: none was published
    rounds: int  # the highest one that both sites began
    seconds: float  # from the start of the run to its end, or to where it was given up


@dataclass
class Processes:
    """Processes with a session and a log each; whatever is left of them and their children ends with the trial."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _started: list[psutil.Process] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str | Path], stdin: int = subprocess.DEVNULL) -> int:
        """Starts a process in the background; answers its pid."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
                cwd=self.folder,
                start_new_session=True,
            )
        self._started.append(psutil.Process(process.pid))
        return process.pid

    def ask(self, command: Sequence[str | Path], timeout_s: float = 60.0) -> str:
        """Runs a command to its end; answers what it printed, with stderr where it failed or took too long."""
        try:
            done = subprocess.run(
                [str(part) for part in command],
                capture_output=True,
                text=True,
                timeout=timeout_s,
                env=os.environ | self.environment,
                cwd=self.folder,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {timeout_s:.0f} s"
        return done.stdout + (done.stderr if done.returncode else "")

    def kill(self, pid: int) -> None:
        """SIGKILL to a process and all below it, as when a pod is lost."""
        root = psutil.Process(pid)
        for each in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)

    def end(self) -> None:
        """Ends everything."""
        for each in self._started:
            with suppress(psutil.NoSuchProcess):
                self.kill(each.pid)
        for each in psutil.Process().children():
            with suppress(psutil.TimeoutExpired):
                each.wait(10)


def began(folder: Path, round: int) -> bool:
    """Whether both sites have begun a round; each leaves a file for each that it begins."""
    return all((folder / f"round-{round}-site-{site}").exists() for site in SITES)


def mid_round(folder: Path, patience_s: float) -> None:
    """Waits until both sites are in the middle of the round in which the server is killed."""
    until(lambda: began(folder, KILLED_ROUND), patience_s)
    time.sleep(TRAIN_S / 3)


def last_round(folder: Path) -> int:
    """The highest round that both sites have begun."""
    return max((round for round in range(1, ROUNDS + 1) if began(folder, round)), default=0)


def until(holds: Callable[[], object], timeout_s: float) -> bool:
    """Waits until `holds` answers true; False if it has not within `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def fingerprint(model: object) -> str:
    """The sha256 of a model; says so on stderr if it is not what five rounds give."""
    array = np.ascontiguousarray(np.asarray(model, np.float32).reshape(-1))
    if not np.all(array == LAST):
        print(f"the model holds {array[:3]}, not {LAST}", file=sys.stderr)
    return sha256(array.tobytes()).hexdigest()
