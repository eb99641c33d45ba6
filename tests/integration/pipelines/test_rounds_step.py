"""The rounds step killed in the middle and run again: the aggregator goes on with the same run."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient
from tests.chaos.checks import found
from tests.chaos.consortium import PATIENT, Consortium
from tests.chaos.edges import undisturbed
from tests.chaos.site import spec
from tests.integration.federation import wait_for

SCRIPT = Path(__file__).with_name("local_rounds.py")


class Task:
    """A process, and the lines that it says."""

    def __init__(self, *command: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def says(self, text: str, times: int = 1) -> bool:
        return sum(text in line for line in self.lines) >= times

    @property
    def run(self) -> str:
        """The run that it has found, once it has."""
        wait_for(lambda: self.says("rounds done") or self.process.poll() is not None)
        assert self.says("rounds done"), self.lines
        return next(line for line in self.lines if "rounds done" in line).split()[1].rstrip(":")

    def ended(self) -> int:
        code = self.process.wait(120)
        self._reader.join(10)
        self.process.stdout.close()
        return code


class Stepped(Consortium):
    """Its operator is the rounds step; the first one is killed when it has told of a phase: three are left."""

    how = "step"

    def _operate(self) -> None:
        try:
            last = self._drive()
            assert last.ended() == 0, last.lines
            assert last.says(f"answer: {self.course.run}")
            with connect(self.aggregator.address, role="operator") as channel:
                runs = RunsClient(channel, backoff=PATIENT)
                assert [view.run for view in runs.list()] == [self.course.run]
                self.course.events = [event for event in runs.watch(self.course.run) if event.number]
        except BaseException as error:
            self.course.trouble = error

    def _drive(self) -> Task:
        first = self._begun()
        wait_for(lambda: first.says("phase published"))
        first.process.kill()
        assert first.ended() == -signal.SIGKILL
        assert not first.says("run finished")
        return self._begun()

    def _begun(self) -> Task:
        run = self.folder / "run.json"
        run.write_text(self.spec.canonical())
        task = Task(sys.executable, str(SCRIPT), self.how, str(run), self.aggregator.address)
        self.course.run = task.run
        return task


class Retried(Stepped):
    """Its operator is kfp.local, which retries the task that is killed."""

    how = "kfp"

    def _drive(self) -> Task:
        task = self._begun()
        wait_for(lambda: task.says("phase published"))
        children = psutil.Process(task.process.pid).children(recursive=True)
        (step,) = [each for each in children if each.cmdline()[1:3] == ["-m", "kfp.dsl.executor_main"]]
        step.kill()
        wait_for(lambda: task.says("rounds done", 2))
        return task


def described():
    """Two rounds of two phases, with noise."""
    asked = spec("north", "south", noise=True, rounds=2)
    return asked.model_copy(update={"model": asked.model.model_copy(update={"digest": "d" * 64})})


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The run when nothing happens to it."""
    return undisturbed(tmp_path_factory.mktemp("calm"), lambda place: f"sqlite:///{place / 'a.db'}", described())


@pytest.mark.parametrize(
    ("operator", "points"),
    [(Stepped, ["phase_published:after_commit#3"]), (Retried, [])],
    ids=["step-and-aggregator", "kfp-local"],
)
def test_a_killed_step_finds_its_run_again_and_nothing_is_trained_or_published_twice(tmp_path, calm, operator, points):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    course = operator(tmp_path, url, described(), job={"slow_s": 1.0}).complete(*points)
    left = found(tmp_path, url, course.run)
    assert course.kills == len(points)
    assert (left.state, left.events, left.entries) == (calm.left.state, calm.left.events, calm.left.entries)
    assert sum(kind == "commit" for kinds in left.entries.values() for kind in kinds) == 2 * 2 * described().rounds
