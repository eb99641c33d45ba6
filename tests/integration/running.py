"""`deerfield run` under way, for tests of how it ends before its time."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.integration.federation import assert_none_left, command, environment, started_in, wait_for, write


class Running:
    """`deerfield run` under way, with everything it started."""

    def __init__(self, file: Path, out: Path) -> None:
        self.out, self.log, self.environment = out, out.with_suffix(".txt").open("w+"), environment()
        argv = command("run", file, "--out", out)
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=self.log, env=self.environment)

    def wait_for_a_phase(self) -> None:
        wait_for(lambda: re.search(r"^ +1/\d+ round", self.said(), re.MULTILINE))

    def hold(self, log: str) -> list[psutil.Process]:
        """Stops the processes that write to logs/`log` as soon as there is one, wherever they are in their work."""
        file = str(self.out / "logs" / log)
        wait_for(lambda: any(_holds(process, file) for process in started_in(self.environment)))
        held = [process for process in started_in(self.environment) if _holds(process, file)]
        for process in held:
            process.suspend()
        return held

    def said(self) -> str:
        return Path(self.log.name).read_text()

    def kill(self, site: str) -> None:
        """Ends one site, as a power cut would."""
        pid = re.search(r'"pid": (\d+)', (self.out / "logs" / f"{site}.log").read_text())
        assert pid
        os.kill(int(pid[1]), signal.SIGKILL)

    def end(self, timeout_s: float = 60.0) -> int:
        code = self.process.wait(timeout_s)
        assert_none_left(self.environment)
        return code

    def interrupted(self) -> None:
        """Ctrl-C, and what it promises."""
        self.process.send_signal(signal.SIGINT)
        assert self.end() == 130, self.said()
        assert "interrupted" in self.said()
        assert "Traceback" not in self.said()


def _holds(process: psutil.Process, file: str) -> bool:
    """Whether the standard error of a process goes to `file`."""
    try:
        return os.readlink(f"/proc/{process.pid}/fd/2") == file
    except OSError:
        return False


@contextmanager
def running(folder: Path, **changes) -> Iterator[Running]:
    """A run that has begun, and is ended where a failed test left it behind."""
    begun = Running(write(folder, **changes), folder / "out")
    try:
        yield begun
    finally:
        if begun.process.poll() is None:
            begun.process.kill()
            begun.process.wait()
        begun.log.close()


@contextmanager
def training(folder: Path, **changes) -> Iterator[Running]:
    """As `running`, and its first phase is published."""
    with running(folder, **changes) as begun:
        begun.wait_for_a_phase()
        yield begun
